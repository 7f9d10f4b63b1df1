use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::error::Failure;
use crate::serve::stall::Stalling;

/// What a client may take up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Time to send the head of a request, counted from the answer to the one before.
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

/// Serves `router` until `stop` ends and the requests under way are answered, or their time is up.
///
/// A connection lives as long as its client sends requests and takes the answers: the page asks
/// often, and a stream of events has no end.
pub(super) async fn serve(
    Listener { listener, .. }: Listener,
    router: Router,
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
        let (router, stopped) = (router.clone(), stopped.clone());
        tokio::spawn(async move {
            answer(stream, Peer(peer), router, limits, stopped).await;
            drop(place);
        });
    }
    drop((listener, stopping));
    timeout(limits.end, places.acquire_many(limits.connections))
        .await
        .ok();
}

async fn answer(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    // Answers and events are small and many: none shall wait for the next one.
    stream.set_nodelay(true).ok();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        hyper::service::Service::call(&router, request)
    });
    let stream = TokioIo::new(Stalling::new(stream, limits.stall));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .serve_connection(stream, service);
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

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;
    use crate::serve::access::Access;
    use crate::serve::pages::Pages;
    use crate::serve::{api, router};

    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        server: JoinHandle<()>,
    }

    async fn running(limits: Limits) -> Running {
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
}
