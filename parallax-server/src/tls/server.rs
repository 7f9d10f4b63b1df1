use std::sync::{Arc, Mutex, PoisonError, RwLock};

use parallax_core::Escaped;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, ServerConfig};

use super::certificate::{Certificate, Files, Reason, TlsError, read};
use super::{HTTP, provider};

/// A certificate that clients are shown, and that is renewed on disk from time to time.
#[derive(Debug)]
pub(crate) struct TlsServer {
    pub(crate) files: Files,
    showing: Arc<Showing>,
    looked: Mutex<Looked>,
}

/// The certificate of the connections to come.
#[derive(Debug)]
struct Showing(RwLock<Arc<Certificate>>);

/// What was in the files.
#[derive(Debug)]
struct Looked {
    /// When they were last taken, rightly or not.
    taken: Contents,
    /// At the last look, if it was something else.
    changing: Option<Contents>,
}

/// Of certificate and key. Times of files are no use: two changes can have the same, and one of who
/// may read a file has none.
type Contents = [Result<blake3::Hash, Reason>; 2];

impl TlsServer {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if they cannot be used.
    pub(crate) fn open(files: Files) -> Result<Self, TlsError> {
        // Before they are read: what is changed meanwhile is seen at the next look.
        let taken = contents(&files);
        let certificate = Arc::new(Certificate::read(&files)?);
        let changing = None;
        Ok(Self {
            files,
            showing: Arc::new(Showing(RwLock::new(certificate))),
            looked: Mutex::new(Looked { taken, changing }),
        })
    }

    /// Returns what makes TLS connections, by 1.2 or 1.3, of others.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.showing) as _);
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Returns the certificate that clients are shown.
    pub(crate) fn certificate(&self) -> Arc<Certificate> {
        self.showing.certificate()
    }

    /// Looks at the files, and returns another certificate once there is one and nobody writes any
    /// more, which takes two looks: certificate and key are not changed at the same time. One that
    /// cannot be used is logged once, and the old one stays.
    pub(crate) fn renewed(&self) -> Option<Arc<Certificate>> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = contents(&self.files);
        let before = looked.changing.take();
        if now == looked.taken {
            return None;
        }
        if before.as_ref() != Some(&now) {
            looked.changing = Some(now);
            return None;
        }
        looked.taken = now;
        match Certificate::read(&self.files) {
            Ok(certificate) => Some(Arc::new(certificate)),
            Err(error) => {
                tracing::warn!(
                    error = %Escaped(&error),
                    valid_until = %self.certificate().valid_until,
                    "Renewed certificate cannot be used; the old one stays"
                );
                None
            }
        }
    }

    /// Shows a certificate to clients from now on.
    pub(crate) fn show(&self, certificate: Arc<Certificate>) {
        tracing::info!(
            path = %Escaped(self.files.certificate.display()),
            valid_until = %certificate.valid_until,
            "Certificate renewed"
        );
        *self
            .showing
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = certificate;
    }
}

impl Showing {
    fn certificate(&self) -> Arc<Certificate> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Showing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.certificate().shown))
    }
}

fn contents(Files { certificate, key }: &Files) -> Contents {
    [certificate, key].map(|path| read(path).map(|(bytes, _)| blake3::hash(&bytes)))
}

#[cfg(test)]
mod tests;
