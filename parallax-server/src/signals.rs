use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::sync::watch;

use crate::exit::Exit;

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    /// Returns how a process ends for it.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Interrupt => Exit::Interrupted,
            Self::Terminate => Exit::Terminated,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The first signal that the process got: a wish to stop.
#[derive(Debug)]
pub(crate) struct Signals(watch::Receiver<Option<Signal>>);

impl Signals {
    /// Hears no signals: they do what they do to any process.
    pub(crate) fn deaf() -> Self {
        Self(watch::channel(None).1)
    }

    /// Hears what the answer is called with.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (impl Fn(Signal) + Send, Self) {
        let (sender, receiver) = watch::channel(None);
        let send = move |signal| {
            sender.send_replace(Some(signal));
        };
        (send, Self(receiver))
    }

    /// Listens from now on. The first signal is what this value tells of; a second ends the
    /// process at once, even while a step blocks its thread. `hint` tells of that, a second after
    /// the first.
    pub(crate) fn listen(hint: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let mut source = Source::new()?;
        tokio::spawn(async move {
            sender.send_replace(Some(source.next().await));
            let hint = async {
                // Whoever waits longer than this wonders whether the first one was heard.
                tokio::time::sleep(Duration::from_secs(1)).await;
                // On a thread of its own: the standard error may take nothing for a long time.
                tokio::task::spawn_blocking(hint);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                signal = source.next() => std::process::exit(signal.exit().code().into()),
                () = hint => {}
            }
        });
        Ok(Self(receiver))
    }

    /// Returns the first signal, if there was one.
    pub(crate) fn received(&self) -> Option<Signal> {
        *self.0.borrow()
    }

    /// Waits for the first signal.
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.clone();
        async move {
            if receiver.wait_for(Option::is_some).await.is_err() {
                // Nobody can send any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Has a write beyond the process's limit of file sizes fail as any other, and say so. By default a
/// signal ends the process without a word.
///
/// # Panics
///
/// Outside of a tokio runtime.
#[cfg(unix)]
pub(crate) fn outlive_file_limit() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    // What hears a signal once is never unheard again.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

#[cfg(not(unix))]
pub(crate) fn outlive_file_limit() -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}
