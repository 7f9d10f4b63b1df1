use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::error::Failure;
use crate::serve::pages::Pages;

/// What a client may take up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Time to send the head of a request.
    head: Duration,
    /// Time for all of it, with the answer.
    connection: Duration,
    /// Connections at a time; more wait to be accepted.
    connections: u32,
    /// Time for the connections that are open at the end.
    end: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            connection: Duration::from_secs(30),
            connections: 512,
            end: Duration::from_secs(1),
        }
    }
}

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

/// Serves pages until `stop` ends and the requests under way are answered, or their time is up.
///
/// A connection is for one request, so that none is held for nothing. Scrapes and probes are
/// seconds apart: they would hardly gain from a second one.
pub(super) async fn serve(
    Listener { listener, .. }: Listener,
    pages: Arc<Pages>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections as usize));
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
        let (Ok(place), Ok((stream, _))) = (place, accepted) else {
            // No more files, most likely: some will be closed in a moment.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            timeout(limits.connection, answer(stream, pages, limits))
                .await
                .ok();
            drop(place);
        });
    }
    drop(listener);
    timeout(limits.end, places.acquire_many(limits.connections))
        .await
        .ok();
}

async fn answer(stream: TcpStream, pages: Arc<Pages>, limits: Limits) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = pages.answer(request.method(), request.uri().path(), request.headers());
        ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "Connection ended early");
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
        let (stop, stopped) = oneshot::channel();
        let server = serve(listener, pages, limits, async { drop(stopped.await) });
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
            connection: Duration::from_secs(4),
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
        let request = "GET /livez?x=1 HTTP/1.1\r\nHost: x\r\n\r\n";
        let answer = rest(&mut sent(server.address, request).await).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nalive\n"), "{answer}");
        let request = "HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n";
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
        let request = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut waiting = sent(server.address, request).await;
        assert!(rest(&mut waiting).await.ends_with("alive\n"));
        assert!(!rest(&mut slow).await.contains("200 OK"));
        assert_eq!(rest(&mut silent).await, "");
    }

    #[tokio::test]
    async fn client_that_does_not_read_is_cut_off() {
        let server = running(limits()).await;
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut lazy = [
            sent(server.address, request).await,
            sent(server.address, request).await,
        ];
        let mut waiting = sent(server.address, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
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
        let request = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
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
