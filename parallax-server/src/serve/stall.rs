use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What a reader must take in each period to count as one that reads.
const PACE: usize = 64 << 10;

/// A connection whose other side has to take what it is sent.
///
/// What is written waits in the kernel while the other side reads slowly. Once nothing more fits,
/// each period must see at least [`PACE`] taken, or writing fails with
/// [`ErrorKind::TimedOut`]. Who is sent little, as a client of an event stream, is never waited
/// for.
pub(super) struct Stalling<S> {
    stream: S,
    period: Duration,
    /// Runs while something waits to be written.
    timer: Pin<Box<Sleep>>,
    waits: bool,
    /// What was taken since the timer was set.
    taken: usize,
}

impl<S> Stalling<S> {
    pub(super) fn new(stream: S, period: Duration) -> Self {
        Self {
            stream,
            period,
            timer: Box::pin(sleep(period)),
            waits: false,
            taken: 0,
        }
    }

    /// Judges what came of a write.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.taken = self.taken.saturating_add(bytes);
                if self.taken >= PACE {
                    self.waits = false;
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if !self.waits {
                    self.waits = true;
                    self.taken = 0;
                    self.timer.as_mut().reset(Instant::now() + self.period);
                }
                ready!(self.timer.as_mut().poll(context));
                let error = io::Error::new(ErrorKind::TimedOut, "the client does not read");
                Poll::Ready(Err(error))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing waits any more.
        self.waits = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    /// Writes a mebibyte to a client that takes `bytes` every second, and tells how far it got and
    /// how long that took.
    async fn written(bytes: usize) -> (Result<(), ErrorKind>, Duration) {
        let (server, mut client) = duplex(1 << 10);
        let mut server = Stalling::new(server, PERIOD);
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; bytes];
            loop {
                sleep(Duration::from_secs(1)).await;
                if client.read_exact(&mut buffer).await.is_err() {
                    return;
                }
            }
        });
        let begin = Instant::now();
        let written = server.write_all(&vec![0; 1 << 20]).await;
        let took = begin.elapsed();
        drop(server);
        reading.await.unwrap();
        (written.map_err(|error| error.kind()), took)
    }

    #[tokio::test(start_paused = true)]
    async fn reader_that_stops_or_drips_is_cut_off_and_a_slow_one_is_not() {
        let (cut, took) = written(100).await;
        assert_eq!(cut, Err(ErrorKind::TimedOut));
        assert_eq!(took.as_secs(), PERIOD.as_secs());
        let (slow, took) = written(8 << 10).await;
        assert_eq!(slow, Ok(()));
        assert!(took > PERIOD * 10, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_is_sent_little_may_stay() {
        let (server, mut client) = duplex(1 << 10);
        let mut server = Stalling::new(server, PERIOD);
        for _ in 0..100 {
            sleep(PERIOD * 2).await;
            server.write_all(b"data: 1\n\n").await.unwrap();
            let mut buffer = [0; 9];
            client.read_exact(&mut buffer).await.unwrap();
        }
    }
}
