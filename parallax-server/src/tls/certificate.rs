use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parallax_core::Escaped;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};

use super::provider;

/// Nobody's chain of certificates is longer.
const LONGEST: u64 = 1 << 20;

/// Where a certificate and its key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The server's own certificate, and after it those between it and a root that clients know.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate that can be shown: its key is there, and it is valid now.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(super) shown: Arc<CertifiedKey>,
    /// The hash by which clients on this machine know it.
    pub(crate) fingerprint: blake3::Hash,
    /// When the first one of the chain expires.
    pub(crate) valid_until: Timestamp,
}

/// Why a certificate and its key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsError {
    /// The file that it is about.
    pub(crate) path: PathBuf,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Unreadable(String),
    NotPem(&'static str),
    NoCertificate,
    /// A key, where a certificate should be.
    IsKey,
    NoKey,
    /// A certificate, where a key should be.
    IsCertificate,
    /// The key is protected by a passphrase, which nobody is there to type.
    Encrypted,
    Expired(Timestamp),
    NotYetValid(Timestamp),
    /// The key is that of no certificate in the file.
    Mismatch,
    /// The key is that of another certificate in the file than the first.
    WrongOrder,
    /// There is something about it that TLS cannot do.
    Unusable(String),
}

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// Warns of a key that others may read. Whether clients trust the certificate for the names by
    /// which they call this machine is for them to judge.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if it cannot be shown, or is not valid at this moment.
    pub(super) fn read(files: &Files) -> Result<Self, TlsError> {
        let of_certificate = |reason| TlsError {
            path: files.certificate.clone(),
            reason,
        };
        let of_key = |reason| TlsError {
            path: files.key.clone(),
            reason,
        };
        let chain = certificates(&files.certificate)?;
        let own = chain
            .first()
            .ok_or_else(|| of_certificate(Reason::NoCertificate))?;
        let fingerprint = fingerprint(own);
        let mut valid_until = Timestamp::MAX;
        for certificate in &chain {
            valid_until = valid_until.min(validity(certificate).map_err(of_certificate)?);
        }
        let key = private_key(&files.key).map_err(of_key)?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| of_key(Reason::Unusable(error.to_string())))?;
        let is_key_of = |certificates: Vec<CertificateDer<'static>>| {
            let certified = CertifiedKey::new(certificates, Arc::clone(&key));
            match certified.keys_match() {
                Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
                Err(error) => Err(error),
            }
        };
        let others: Vec<_> = chain.iter().skip(1).cloned().collect();
        let shown = is_key_of(chain).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let mut others = others.into_iter();
                match others.any(|other| is_key_of(vec![other]).is_ok()) {
                    true => of_certificate(Reason::WrongOrder),
                    false => of_key(Reason::Mismatch),
                }
            }
            error => of_certificate(Reason::Unusable(error.to_string())),
        })?;
        Ok(Self {
            shown: Arc::new(shown),
            fingerprint,
            valid_until,
        })
    }
}

/// Returns the hash by which a certificate is known.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> blake3::Hash {
    blake3::hash(certificate)
}

/// Reads the certificates in a file, in their order.
///
/// # Errors
///
/// [`TlsError`] if it cannot be read, or has none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason| TlsError {
        path: path.to_owned(),
        reason,
    };
    let (bytes, _) = read(path).map_err(failed)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| failed(not_pem(&error)))?;
    if certificates.is_empty() {
        let is_key = has_section(&bytes, "PRIVATE KEY-----");
        return Err(failed(match is_key {
            true => Reason::IsKey,
            false => Reason::NoCertificate,
        }));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Reason> {
    let (bytes, mode) = read(path)?;
    // A group may be there for just this.
    if mode & 0o006 != 0 {
        tracing::warn!(
            path = %Escaped(path.display()),
            mode = format!("{:03o}", mode & 0o777),
            "Others can use the key of the certificate"
        );
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if has_section(&bytes, "ENCRYPTED PRIVATE KEY-----") => {
            Reason::Encrypted
        }
        pem::Error::NoItemsFound if has_section(&bytes, "CERTIFICATE-----") => {
            Reason::IsCertificate
        }
        error => not_pem(&error),
    })
}

/// Returns when a certificate expires, if it is valid now.
fn validity(certificate: &CertificateDer<'_>) -> Result<Timestamp, Reason> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| {
        Reason::Unusable(match error {
            Error::InvalidCertificate(error) => {
                format!("a certificate in it cannot be read: {error:?}")
            }
            error => error.to_string(),
        })
    })?;
    // Nobody is trusted here, but that comes after the question of time.
    let judged = |time| {
        let algorithms = provider().signature_verification_algorithms.all;
        let nobody = RootCertStore::empty();
        match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], time, algorithms) {
            Err(Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        }
    };
    match judged(UnixTime::now()) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => {
            return Err(Reason::Expired(timestamp(not_after)));
        }
        Some(CertificateError::NotValidYetContext { not_before, .. }) => {
            return Err(Reason::NotYetValid(timestamp(not_before)));
        }
        _ => {}
    }
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(i64::MAX.unsigned_abs()));
    match judged(end_of_time) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => Ok(timestamp(not_after)),
        _ => Ok(Timestamp::MAX),
    }
}

fn timestamp(time: UnixTime) -> Timestamp {
    let seconds = i64::try_from(time.as_secs()).ok();
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.unwrap_or(Timestamp::MAX)
}

/// Reads a small file, and who may use it.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, u32), Reason> {
    let read = || {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok((bytes, mode))
    };
    read().map_err(|error: io::Error| {
        Reason::Unreadable(match error.kind() {
            ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        })
    })
}

fn has_section(bytes: &[u8], end_of_line: &str) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().filter(|line| line.starts_with("-----BEGIN "));
    lines.any(|line| line.trim_end().ends_with(end_of_line))
}

/// Says it without a word of the file, which may be a key.
fn not_pem(error: &pem::Error) -> Reason {
    match error {
        pem::Error::NoItemsFound => Reason::NoKey,
        pem::Error::MissingSectionEnd { .. } => Reason::NotPem("a section has no end"),
        pem::Error::IllegalSectionStart { .. } => Reason::NotPem("a section begins wrongly"),
        pem::Error::Base64Decode(_) => Reason::NotPem("a section is not base64"),
        _ => Reason::NotPem("a section cannot be read"),
    }
}

impl TlsError {
    /// Returns what to do next.
    pub(crate) fn help(&self) -> String {
        let path = self.path.display();
        match self.reason {
            Reason::Unreadable(_) => "name a file that the user who runs this can read".to_owned(),
            Reason::NotPem(_) => format!("see what is in it with openssl storeutl -noout {path}"),
            Reason::NoCertificate => "put the server's certificate there, in PEM: \
                                      -----BEGIN CERTIFICATE-----"
                .to_owned(),
            Reason::NoKey => "put the key of the certificate there, in PEM: \
                              -----BEGIN PRIVATE KEY-----"
                .to_owned(),
            Reason::IsKey | Reason::IsCertificate => {
                "exchange certificate and key, if they have been mixed up".to_owned()
            }
            Reason::Encrypted => format!(
                "take the passphrase away: openssl pkey -in {path} -out PLAIN, with PLAIN for \
                 nobody else to read"
            ),
            Reason::Expired(_) => "have it renewed, as by your ACME client".to_owned(),
            Reason::NotYetValid(_) => "see whether this machine's clock is right".to_owned(),
            Reason::Mismatch => "name the key that the certificate was requested with".to_owned(),
            Reason::WrongOrder => {
                "put the server's own certificate first, and those of who signed \
                                   it after it"
                    .to_owned()
            }
            Reason::Unusable(_) => {
                "have a new one made, with a key for ECDSA P-256 or for RSA with 2,048 bits"
                    .to_owned()
            }
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => f.write_str(error),
            Self::NotPem(what) => write!(f, "this is not PEM: {what}"),
            Self::NoCertificate => f.write_str("there is no certificate in it"),
            Self::IsKey => f.write_str("there is a key in it, and no certificate"),
            Self::NoKey => f.write_str("there is no key in it"),
            Self::IsCertificate => f.write_str("there is a certificate in it, and no key"),
            Self::Encrypted => f.write_str("the key is encrypted"),
            Self::Expired(when) => write!(f, "a certificate in it expired at {when}"),
            Self::NotYetValid(when) => {
                write!(f, "a certificate in it is not valid before {when}")
            }
            Self::Mismatch => f.write_str("the key is not that of the certificate"),
            Self::WrongOrder => f.write_str("the certificate of the key is not the first in it"),
            Self::Unusable(error) => f.write_str(error),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
