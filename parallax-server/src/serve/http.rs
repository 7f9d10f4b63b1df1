use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::Failure;
use crate::serve::api::Problem;
use crate::serve::stall::Stalling;

/// What a client may take up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Time to send the head of a request, counted from the answer to the one before. Before the
    /// first one as much again, to agree on TLS.
    head: Duration,
    /// Time in which a client has to take something of what waits for it.
    stall: Duration,
    /// Connections at a time; more wait to be accepted.
    connections: u32,
    /// Time for the connections that are open at the end.
    end: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            connections: 2_048,
            end: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// Returns the limits of a process that may have so many files: the other half is for the store
    /// and for what the connectors read.
    pub(super) fn within(files: Option<u64>) -> Self {
        let mut limits = Self::default();
        let half = files.and_then(|files| u32::try_from(files / 2).ok());
        limits.connections = limits.connections.min(half.unwrap_or(u32::MAX)).max(1);
        limits
    }

    /// Returns how many connections may be kept for streams of events.
    pub(super) fn streams(&self) -> usize {
        self.connections as usize / 2
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A socket that takes connections.
#[derive(Debug)]
pub(super) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub(super) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let failed = |error| Failure::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Returns the address, with the port that the system chose if it was left to it.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves `router`, by TLS if there is `tls`, until `stop` ends and the requests under way are
/// answered, or their time is up.
///
/// A connection lives as long as its client sends requests and takes the answers: the page asks
/// often, and a stream of events has no end.
pub(super) async fn serve(
    Listener { listener, .. }: Listener,
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    let (stopping, stopped) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        let (Ok(place), Ok((stream, peer))) = (place, accepted) else {
            // No more files, most likely: some will be closed in a moment.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let connection = Connection {
            peer: Peer(peer),
            router: router.clone(),
            limits,
            stopped: stopped.clone(),
        };
        let tls = tls.clone();
        tokio::spawn(async move {
            // Answers and events are small and many: none shall wait for the next one.
            stream.set_nodelay(true).ok();
            match tls {
                Some(tls) => connection.secure(tls, stream).await,
                None => {
                    let stream = connection.stalling(stream);
                    connection.answer(stream).await;
                }
            }
            drop(place);
        });
    }
    drop((listener, stopping));
    timeout(limits.end, places.acquire_many(limits.connections))
        .await
        .ok();
}

/// One connection, from its first byte to its last.
struct Connection {
    peer: Peer,
    router: Router,
    limits: Limits,
    stopped: watch::Receiver<()>,
}

/// What a client begins with.
enum Greeting {
    Tls(Box<TlsStream<Stalling<TcpStream>>>),
    /// HTTP, on a port where TLS is spoken.
    InTheClear(TcpStream),
}

impl Connection {
    /// Agrees with the client on TLS, and answers its requests.
    async fn secure(mut self, tls: TlsAcceptor, stream: TcpStream) {
        let greeting = timeout(self.limits.head, self.greet(tls, stream));
        let mut stopped = self.stopped.clone();
        let greeting = tokio::select! {
            greeting = greeting => greeting,
            _ = stopped.changed() => return,
        };
        match greeting {
            Ok(Ok(Greeting::Tls(stream))) => self.answer(*stream).await,
            Ok(Ok(Greeting::InTheClear(stream))) => {
                self.router = Router::new().fallback(only_tls);
                let stream = self.stalling(stream);
                self.answer(stream).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.peer.0, %error, "Connection without TLS ended");
            }
            Err(_) => {
                tracing::debug!(peer = %self.peer.0, "Connection without TLS ended: no time left");
            }
        }
    }

    async fn greet(&self, tls: TlsAcceptor, stream: TcpStream) -> io::Result<Greeting> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        // The name of a method; TLS begins with a 22.
        if first.iter().all(u8::is_ascii_uppercase) {
            return Ok(Greeting::InTheClear(stream));
        }
        let stream = tls.accept(self.stalling(stream)).await?;
        Ok(Greeting::Tls(Box::new(stream)))
    }

    fn stalling(&self, stream: TcpStream) -> Stalling<TcpStream> {
        Stalling::new(stream, self.limits.stall)
    }

    /// Answers requests until there are no more.
    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Self {
            peer,
            router,
            limits,
            mut stopped,
        } = self;
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            hyper::service::Service::call(&router, request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            _ = stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                timeout(limits.end, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %peer.0, %error, "Connection ended early");
        }
    }
}

/// Answers whoever sends HTTP in the clear where TLS is spoken.
async fn only_tls() -> Response {
    let mut response = Problem::new(
        StatusCode::BAD_REQUEST,
        "tls_needed",
        "this port speaks TLS, and the request was sent in the clear",
        "use https:// instead of http://; a token that was sent along is known to whoever listened",
    )
    .into_response();
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use tokio_rustls::rustls::version::{TLS12, TLS13};
    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring,
    };

    use super::*;
    use crate::serve::access::Access;
    use crate::serve::pages::Pages;
    use crate::serve::{api, router};
    use crate::tls::tests::{files_in, fixture, write};
    use crate::tls::{TlsServer, pinned};

    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        server: JoinHandle<()>,
    }

    async fn running(limits: Limits) -> Running {
        running_with(None, limits).await
    }

    /// Returns one that speaks TLS, and the hash of its certificate.
    async fn secure(limits: Limits) -> (Running, blake3::Hash) {
        let directory = TempDir::new().unwrap();
        let files = files_in(&directory);
        write(&files, &fixture("server.pem"), &fixture("server.key"));
        let tls = TlsServer::open(files).unwrap();
        let running = running_with(Some(tls.acceptor().unwrap()), limits).await;
        (running, tls.certificate().fingerprint)
    }

    async fn running_with(tls: Option<TlsAcceptor>, limits: Limits) -> Running {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = listener.address();
        let pages = Arc::new(Pages::new(|_| "x".repeat(50_000_000)));
        let server = Arc::new(api::Server::new(pages));
        let (stop, stopped) = oneshot::channel();
        let server = serve(
            listener,
            router(&server, Access::new(None, false)),
            tls,
            limits,
            async {
                drop(stopped.await);
            },
        );
        let server = tokio::spawn(server);
        Running {
            address,
            stop,
            server,
        }
    }

    /// Short, but long enough for a busy machine to answer.
    fn limits() -> Limits {
        Limits {
            head: Duration::from_millis(500),
            stall: Duration::from_secs(2),
            connections: 2,
            end: Duration::from_millis(200),
        }
    }

    async fn sent(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Reads to the end, which comes in one way or the other.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        match stream.read_to_end(&mut text).await {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => String::from_utf8(text).unwrap(),
        }
    }

    #[tokio::test]
    async fn request_is_answered_and_the_connection_closed() {
        let server = running(limits()).await;
        let request = "GET /livez?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = rest(&mut sent(server.address, request).await).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nalive\n"), "{answer}");
        let request = "HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = rest(&mut sent(server.address, request).await).await;
        assert!(
            answer.contains("content-length: 6\r\n") && answer.ends_with("\r\n\r\n"),
            "{answer}"
        );
        let answer = rest(&mut sent(server.address, "no HTTP\r\n\r\n").await).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn half_a_head_is_cut_off_and_makes_room() {
        let server = running(limits()).await;
        // As many as there may be: who comes after them waits for their end.
        let mut slow = sent(server.address, "GET /livez HTTP/1.1\r\nHos").await;
        let mut silent = sent(server.address, "").await;
        let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut waiting = sent(server.address, request).await;
        assert!(rest(&mut waiting).await.ends_with("alive\n"));
        assert!(!rest(&mut slow).await.contains("200 OK"));
        assert_eq!(rest(&mut silent).await, "");
    }

    #[tokio::test]
    async fn client_that_does_not_read_is_cut_off() {
        let server = running(limits()).await;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut lazy = [
            sent(server.address, request).await,
            sent(server.address, request).await,
        ];
        let mut waiting = sent(
            server.address,
            "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        .await;
        assert!(rest(&mut waiting).await.ends_with("alive\n"));
        for stream in &mut lazy {
            assert!(rest(stream).await.len() < 50_000_000);
        }
    }

    #[tokio::test]
    async fn end_waits_for_no_client_for_long() {
        let server = running(limits()).await;
        let mut slow = sent(server.address, "GET /li").await;
        // Accepted, as the answer to another one shows.
        let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(
            rest(&mut sent(server.address, request).await)
                .await
                .ends_with("alive\n")
        );
        let started = Instant::now();
        server.stop.send(()).unwrap();
        server.server.await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(4));
        let refused = TcpStream::connect(server.address)
            .await
            .map_err(|error: Error| error.kind());
        assert_eq!(refused.unwrap_err(), ErrorKind::ConnectionRefused);
        rest(&mut slow).await;
    }

    const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    /// Asks by TLS how it is, and returns the answer or what came in the way.
    async fn asked(address: SocketAddr, tls: &TlsConnector) -> Result<String, Error> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = tls.connect(name, stream).await?;
        stream.write_all(LIVEZ.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Returns a client that knows who signs our certificates, and no more.
    fn stranger(
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(&fixture("authority.pem")).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        TlsConnector::from(Arc::new(config))
    }

    #[tokio::test]
    async fn any_client_that_speaks_tls_is_answered() {
        let (server, certificate) = secure(limits()).await;
        for tls in [
            stranger(&[&TLS12], &[]),
            stranger(&[&TLS13], &["h2", "http/1.1"]),
            pinned(certificate).unwrap(),
        ] {
            let answer = asked(server.address, &tls).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\nalive\n"), "{answer}");
        }
        let only_h2 = stranger(&[&TLS13], &["h2"]);
        let error = asked(server.address, &only_h2).await.unwrap_err();
        assert!(
            error.to_string().contains("NoApplicationProtocol"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn one_with_another_certificate_is_told_nothing() {
        let (server, _) = secure(limits()).await;
        let tls = pinned(blake3::hash(b"another")).unwrap();
        let error = asked(server.address, &tls).await.unwrap_err();
        assert!(
            error.to_string().contains("ApplicationVerificationFailure"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn request_in_the_clear_is_told_to_come_by_tls() {
        let (server, _) = secure(limits()).await;
        for request in [
            LIVEZ,
            "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n",
            "X / HTTP/1.0\r\n\r\n",
        ] {
            let answer = rest(&mut sent(server.address, request).await).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(" 400 Bad Request\r\n"), "{answer}");
            assert!(head.contains("application/problem+json"), "{answer}");
            assert!(body.contains("\"tls_needed\""), "{answer}");
        }
    }

    /// The head of a record of a handshake, and that of a greeting of so many bytes in it.
    fn greeting(bytes: u32) -> Vec<u8> {
        let mut greeting = b"\x16\x03\x01\x40\x00\x01".to_vec();
        greeting.extend_from_slice(&bytes.to_be_bytes()[1..]);
        greeting
    }

    #[tokio::test]
    async fn half_a_greeting_is_cut_off_and_makes_room() {
        let (server, certificate) = secure(limits()).await;
        // As many as there may be: who comes after them waits for their end.
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(&greeting(200)).await.unwrap();
        let mut silent = sent(server.address, "").await;
        let tls = pinned(certificate).unwrap();
        let answer = asked(server.address, &tls).await.unwrap();
        assert!(answer.ends_with("alive\n"), "{answer}");
        for stream in [&mut slow, &mut silent] {
            assert_eq!(rest(stream).await, "");
        }
        // One that has agreed on TLS has as long again for its request, and no longer.
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut idle = tls.connect(name, stream).await.unwrap();
        let mut nothing = Vec::new();
        idle.read_to_end(&mut nothing).await.ok();
        assert_eq!(nothing, b"");
    }

    #[tokio::test]
    async fn garbage_and_greetings_without_end_are_refused() {
        let (server, certificate) = secure(limits()).await;
        let mut endless = greeting(0x00ff_ffff);
        for _ in 0..2_000 {
            endless.extend_from_slice(&[b'x'; 0x4000 - 4]);
            endless.extend_from_slice(b"\x16\x03\x01\x40\x00xxxx");
        }
        let garbage = [
            b"\x00\x01\x02garbage".to_vec(),
            b"\x16\x03\x01\x00\x00".to_vec(),
            b"\x16\x03\x01\xff\xff".to_vec(),
            // SSL 2.0.
            b"\x80\x2e\x01\x00\x02".to_vec(),
            [
                b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03".to_vec(),
                vec![0; 100],
            ]
            .concat(),
            endless,
        ];
        for bytes in garbage {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            // An end in the middle of it is just what is wanted.
            stream.write_all(&bytes).await.ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok();
            // At most an alert, which has two bytes.
            assert!(
                answer.len() <= 7 && !answer.starts_with(b"HTTP"),
                "{answer:?}"
            );
        }
        let answer = asked(server.address, &pinned(certificate).unwrap()).await;
        assert!(answer.unwrap().ends_with("alive\n"));
    }

    #[tokio::test]
    async fn client_that_does_not_read_is_cut_off_over_tls_too() {
        let limits = Limits {
            connections: 1,
            ..limits()
        };
        let (server, certificate) = secure(limits).await;
        let tls = pinned(certificate).unwrap();
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut lazy = tls.connect(name, stream).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        lazy.write_all(request.as_bytes()).await.unwrap();
        // There is no room for another until it has been cut off.
        let answer = asked(server.address, &tls).await.unwrap();
        assert!(answer.ends_with("alive\n"), "{answer}");
        let mut text = Vec::new();
        lazy.read_to_end(&mut text).await.ok();
        assert!(text.len() < 50_000_000);
    }

    #[tokio::test]
    async fn end_waits_for_no_greeting() {
        let limits = Limits {
            head: Duration::from_secs(3_600),
            ..limits()
        };
        let (server, certificate) = secure(limits).await;
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(&greeting(200)).await.unwrap();
        // Accepted, as the answer to another one shows.
        asked(server.address, &pinned(certificate).unwrap())
            .await
            .unwrap();
        server.stop.send(()).unwrap();
        server.server.await.unwrap();
        assert_eq!(rest(&mut slow).await, "");
    }
}
