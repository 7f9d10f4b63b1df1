//! The daemon that holds a store, asked for what only it can do.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use parallax_store::{Store, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{self, pki_types::ServerName};

use crate::error::Failure;
use crate::serve::{Tokens, read_secret};
use crate::tls::{self, Stream};

/// No answer is longer.
const ANSWER: usize = 64 << 20;

/// Where a daemon is, as its file beside the store says.
#[derive(Debug, Serialize, Deserialize)]
struct Whereabouts {
    pid: u32,
    address: SocketAddr,
    tokens: PathBuf,
    /// The fingerprint of its certificate, if it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

/// The file that tells where the daemon of a store is, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Announcement {
    path: PathBuf,
    whereabouts: Whereabouts,
}

impl Announcement {
    /// Writes it. Where that is not possible, commands that write say that the store is in use.
    pub(crate) fn make(
        store: &str,
        address: SocketAddr,
        tokens: Option<&Path>,
        certificate: Option<blake3::Hash>,
    ) -> Option<Self> {
        let announcement = Self {
            path: whereabouts_path(Path::new(store.strip_prefix("sqlite:")?)),
            whereabouts: Whereabouts {
                pid: std::process::id(),
                address: from_here(address),
                tokens: tokens?.to_owned(),
                certificate: certificate.map(|certificate| certificate.to_string()),
            },
        };
        announcement.write().then_some(announcement)
    }

    /// Names another certificate from now on.
    pub(crate) fn certify(&mut self, certificate: blake3::Hash) {
        self.whereabouts.certificate = Some(certificate.to_string());
        self.write();
    }

    /// Writes the file in place of the one before, or of one that a crash has left behind, and tells
    /// whether that was possible.
    fn write(&self) -> bool {
        let new = with_suffix(&self.path, ".new");
        let write = |json: String| {
            fs::remove_file(&new).ok();
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(json.as_bytes())?;
            fs::rename(&new, &self.path)
        };
        let json = serde_json::to_string(&self.whereabouts);
        let written = json.map_err(io::Error::from).and_then(write);
        if let Err(error) = &written {
            tracing::warn!(%error, "Commands will not find this daemon: its file was not written");
        }
        written.is_ok()
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// A daemon that can be asked.
pub(crate) struct Remote {
    address: SocketAddr,
    token: String,
    /// What it must show, if it speaks TLS.
    certificate: Option<Pinned>,
}

/// The certificate that a daemon must show.
struct Pinned {
    now: Mutex<blake3::Hash>,
    /// The file that names it, and the daemon that has written that.
    file: PathBuf,
    pid: u32,
}

impl Pinned {
    fn now(&self) -> blake3::Hash {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether the daemon has another one since, and takes that.
    fn is_renewed(&self) -> bool {
        let found = read_secret(&self.file).ok();
        let found = found.and_then(|json| serde_json::from_str::<Whereabouts>(&json).ok());
        let found = found.filter(|daemon| daemon.pid == self.pid);
        let shown = found.and_then(|daemon| blake3::Hash::from_hex(daemon.certificate?).ok());
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let is_renewed = shown.is_some_and(|shown| shown != *now);
        *now = shown.unwrap_or(*now);
        is_renewed
    }
}

impl Remote {
    /// Finds the daemon that holds a store, if one does.
    ///
    /// # Errors
    ///
    /// What keeps it from being asked.
    pub(crate) async fn find(store: &str) -> Result<Option<Self>, Failure> {
        let path = store.strip_prefix("sqlite:").map(Path::new);
        if !path.is_some_and(|path| whereabouts_path(path).exists()) {
            return Ok(None);
        }
        match Store::open(store).await {
            Err(error @ StoreError::Locked { .. }) => Self::behind(error).map(Some),
            // A daemon that was killed has left its file behind. Whoever opens the store again is
            // told what else is wrong.
            _ => Ok(None),
        }
    }

    /// Finds the daemon that is why a store could not be opened.
    ///
    /// # Errors
    ///
    /// `error`, if it is something else.
    pub(crate) fn behind(error: StoreError) -> Result<Self, Failure> {
        let StoreError::Locked { path, pid } = &error else {
            return Err(error.into());
        };
        let file = whereabouts_path(path);
        let found = read_secret(&file).ok();
        let found = found.and_then(|json| serde_json::from_str::<Whereabouts>(&json).ok());
        let Some(daemon) = found.filter(|daemon| daemon.pid.to_string() == *pid) else {
            return Err(error.into());
        };
        let certificate = daemon.certificate.map(blake3::Hash::from_hex);
        // Never in the clear to one that has a certificate, whatever its file makes of it.
        let certificate = certificate.transpose().map_err(|_| Failure::Unanswered {
            address: daemon.address,
            reason: "its file names no certificate that can be read".to_owned(),
        })?;
        Ok(Self {
            address: daemon.address,
            certificate: certificate.map(|certificate| Pinned {
                now: Mutex::new(certificate),
                file,
                pid: daemon.pid,
            }),
            token: Tokens::read(&daemon.tokens)?.admin(),
        })
    }

    /// Makes one that is at an address.
    #[cfg(test)]
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            token: "token".to_owned(),
            certificate: None,
        }
    }

    /// Asks for something, by its path below `/api/v1/`.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`] with what the daemon said, or [`Failure::Unanswered`].
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
    ) -> Result<T, Failure> {
        self.ask_with(method, path, "").await
    }

    /// The same with a query, which begins with its `?`.
    pub(crate) async fn ask_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &str,
    ) -> Result<T, Failure> {
        let unanswered = |reason: String| Failure::Unanswered {
            address: self.address,
            reason,
        };
        let path: Vec<String> = path.iter().map(|part| encoded(part)).collect();
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{}{query}", path.join("/")))
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Body::empty())
            .map_err(|error| unanswered(error.to_string()))?;
        let answer = async {
            let (mut sender, connection) = http1::handshake(self.connect().await?).await?;
            let answered = async {
                let response = sender.send_request(request).await?;
                let is_good = response.status().is_success();
                let body = to_bytes(Body::new(response.into_body()), ANSWER).await?;
                Ok::<_, Box<dyn Error + Send + Sync>>((is_good, body))
            };
            // The connection works for as long as the answer is waited for.
            tokio::pin!(answered);
            tokio::select! {
                answer = &mut answered => answer,
                ended = connection => {
                    ended?;
                    answered.await
                }
            }
        };
        let (is_good, body) = answer
            .await
            .map_err(|error: Box<dyn Error + Send + Sync>| unanswered(error.to_string()))?;
        if is_good {
            return serde_json::from_slice(&body).map_err(|error| unanswered(error.to_string()));
        }
        let refused: Refusal =
            serde_json::from_slice(&body).map_err(|error| unanswered(error.to_string()))?;
        Err(Failure::Refused(refused))
    }

    /// Connects, and goes no further where TLS is spoken with another than the daemon.
    async fn connect(&self) -> Result<TokioIo<Box<dyn Stream>>, Box<dyn Error + Send + Sync>> {
        loop {
            let stream = TcpStream::connect(self.address).await?;
            let Some(certificate) = &self.certificate else {
                return Ok(TokioIo::new(Box::new(stream)));
            };
            let name = ServerName::from(self.address.ip());
            let connected = tls::pinned(certificate.now())?.connect(name, stream);
            let error = match connected.await {
                Ok(stream) => return Ok(TokioIo::new(Box::new(stream))),
                Err(error) => error,
            };
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            match cause {
                Some(rustls::Error::InvalidCertificate(_)) if certificate.is_renewed() => {}
                Some(rustls::Error::InvalidCertificate(_)) => {
                    return Err("it shows another certificate than its file names".into());
                }
                _ => return Err(error.into()),
            }
        }
    }
}

/// Why a daemon did not do what it was asked for.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) detail: String,
    pub(crate) help: String,
}

fn whereabouts_path(store: &Path) -> PathBuf {
    with_suffix(store, ".daemon")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Returns the address by which this machine reaches one that it listens on.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Returns a text as a part of a path.
fn encoded(text: &str) -> String {
    let mut part = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                part.push(char::from(byte));
            }
            byte => part += &format!("%{byte:02X}"),
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_is_found_by_the_lock_that_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db");
        let store = format!("sqlite:{}", path.display());
        let tokens = directory.path().join("tokens");
        let token = Tokens::read_or_make(&tokens).unwrap().admin();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 7700));
        let locked = |pid: u32| StoreError::Locked {
            path: path.clone(),
            pid: pid.to_string(),
        };
        let pid = std::process::id();
        assert!(Remote::behind(locked(pid)).is_err());
        let announcement = Announcement::make(&store, everywhere, Some(&tokens), None);
        let daemon = Remote::behind(locked(pid)).unwrap();
        assert_eq!(daemon.address, SocketAddr::from(([127, 0, 0, 1], 7700)));
        assert_eq!(daemon.token, token);
        // Left behind by another process, it says nothing of who holds the lock now.
        assert!(Remote::behind(locked(pid + 1)).is_err());
        drop(announcement);
        assert!(Remote::behind(locked(pid)).is_err());
        assert!(Announcement::make("sqlite::memory:", everywhere, None, None).is_none());
    }

    #[test]
    fn renewed_certificate_is_that_of_the_daemons_own_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("parallax.db");
        let store = format!("sqlite:{}", path.display());
        let tokens = directory.path().join("tokens");
        Tokens::read_or_make(&tokens).unwrap();
        let here = SocketAddr::from(([127, 0, 0, 1], 7700));
        let [first, second] = ["first", "second"].map(|text| blake3::hash(text.as_bytes()));
        let announcement = Announcement::make(&store, here, Some(&tokens), Some(first));
        let mut announcement = announcement.unwrap();
        let pid = std::process::id().to_string();
        let daemon = Remote::behind(StoreError::Locked { path, pid }).unwrap();
        let pinned = daemon.certificate.unwrap();
        assert!(!pinned.is_renewed() && pinned.now() == first);
        announcement.certify(second);
        assert!(pinned.is_renewed() && pinned.now() == second);
        assert!(!pinned.is_renewed());
        // Another daemon has the store now.
        announcement.whereabouts.pid += 1;
        announcement.certify(first);
        assert!(!pinned.is_renewed() && pinned.now() == second);
        drop(announcement);
        assert!(!pinned.is_renewed() && pinned.now() == second);
    }

    #[test]
    fn any_account_is_one_part_of_a_path() {
        assert_eq!(encoded("a/b c?é%.."), "a%2Fb%20c%3F%C3%A9%25..");
    }
}
