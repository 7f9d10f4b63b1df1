use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::{Uri, client};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use parallax_core::Escaped;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::tls::{self, Stream};

/// How much of an answer is read. A receiver has little to say.
const ANSWER: usize = 64 * 1024;
/// How long one request may take if nobody says: the specification's default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the requests of one signal, and tells if they do not arrive.
#[derive(Debug)]
pub(super) struct Delivery {
    signal: &'static str,
    timeout: Duration,
    /// Of this signal among those that fail.
    bit: u8,
    /// Which signals fail, one bit each. One line tells of all: they most often share a receiver.
    failing: Arc<AtomicU8>,
    /// Who waits for the end.
    closing: Mutex<Option<Sender<()>>>,
    transport: Transport,
}

/// What a receiver is spoken to by.
#[derive(Clone, Debug)]
pub(super) enum Transport {
    InTheClear,
    Tls(Arc<ClientConfig>),
}

/// A [`Delivery`] as an exporter takes it.
#[derive(Debug)]
pub(super) struct Client(pub(super) Arc<Delivery>);

impl HttpClient for Client {
    /// Blocks the thread, which is the exporter's own.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.0.send(request) })
    }
}

impl Delivery {
    pub(super) fn new(
        signal: &'static str,
        bit: u8,
        failing: Arc<AtomicU8>,
        transport: Transport,
    ) -> Arc<Self> {
        let millis = super::setting(&signal.to_uppercase(), "TIMEOUT");
        let millis = millis.and_then(|(millis, _)| millis.parse().ok());
        Arc::new(Self {
            signal,
            timeout: millis.map_or(TIMEOUT, Duration::from_millis),
            bit,
            failing,
            closing: Mutex::default(),
            transport,
        })
    }

    /// Sends a word to `done` at the next failure.
    pub(super) fn closing(&self, done: Sender<()>) {
        *self.closing.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    }

    /// Tells that something was not delivered, unless that is known.
    pub(super) fn failed(&self, error: &str) {
        if self.failing.fetch_or(self.bit, Ordering::Relaxed) == 0 {
            tracing::warn!(
                signal = self.signal,
                error = %Escaped(error),
                "Telemetry not delivered"
            );
        }
        let closing = self.closing.lock();
        if let Some(done) = &*closing.unwrap_or_else(PoisonError::into_inner) {
            done.send(()).ok();
        }
    }

    /// Sends a request, blocking the thread, and tells if it was not received.
    pub(super) fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Of the address only what is no secret: a name and a password may stand before it.
        let receiver = receiver(request.uri());
        let answer = self.exchange(request);
        match &answer {
            Ok(response) if response.status().is_success() => {
                self.failing.fetch_and(!self.bit, Ordering::Relaxed);
            }
            Ok(response) => {
                self.failed(&format!("{receiver} answers {}", response.status()));
            }
            Err(error) => self.failed(&format!("{receiver}: {error}")),
        }
        answer
    }

    /// Makes one request on a connection of its own: there is one every few seconds.
    fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Inside, because a timer belongs to the runtime that it is made in.
        let answer = runtime.block_on(async {
            let exchange = exchange(&self.transport, request);
            timeout(self.timeout, exchange).await
        });
        // A name that is being looked up must not be waited for.
        runtime.shutdown_background();
        answer.unwrap_or_else(|_| {
            let message = format!("no answer within {} ms", self.timeout.as_millis());
            Err(io::Error::new(io::ErrorKind::TimedOut, message).into())
        })
    }
}

impl Transport {
    /// Makes TLS with whoever is certified by the authorities in a file, or else by those that this
    /// machine trusts.
    pub(super) fn tls(authorities: Option<(String, String)>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some((path, name)) => {
                let certificates = tls::certificates(Path::new(&path));
                let certificates = certificates.map_err(|error| format!("{name}: {error}"))?;
                for certificate in certificates {
                    roots
                        .add(certificate)
                        .map_err(|error| format!("{name}: {path}: {error}"))?;
                }
            }
            None => {
                // One that cannot be read is one that nobody is certified by.
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(
                        "this machine trusts no authorities; name a file of them in \
                                OTEL_EXPORTER_OTLP_CERTIFICATE"
                            .to_owned(),
                    );
                }
            }
        }
        let client = tls::client().map_err(|error| error.to_string())?;
        let config = client.with_root_certificates(roots).with_no_client_auth();
        Ok(Self::Tls(Arc::new(config)))
    }

    async fn connect(&self, uri: &Uri) -> Result<Box<dyn Stream>, HttpError> {
        let host = uri.host().unwrap_or_default();
        // An address of IPv6 stands in brackets there.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = match self {
            Self::InTheClear => 80,
            Self::Tls(_) => 443,
        };
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(port))).await?;
        let Self::Tls(config) = self else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(host.to_owned())?;
        let connector = TlsConnector::from(Arc::clone(config));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

async fn exchange(
    transport: &Transport,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let stream = transport.connect(&parts.uri).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the runtime.
    tokio::spawn(connection);

    let receiver = HeaderValue::from_str(&receiver(&parts.uri))?;
    parts.headers.insert(HOST, receiver);
    if let Some(path) = parts.uri.path_and_query() {
        parts.uri = Uri::from(path.clone());
    }
    let response = sender
        .send_request(Request::from_parts(parts, Full::new(body)))
        .await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

/// Returns host and port.
fn receiver(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match uri.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
