//! TLS: the certificate that the daemon shows, and whom its clients take for it.

mod certificate;
mod pinned;
mod server;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, Error, WantsVerifier};

pub(crate) use certificate::Files;
#[cfg(feature = "otlp")]
pub(crate) use certificate::certificates;
pub(crate) use pinned::pinned;
pub(crate) use server::TlsServer;

/// All that is spoken below.
const HTTP: &[u8] = b"http/1.1";

/// Begins a client, by TLS 1.2 or 1.3. Whom it trusts is still to be said.
pub(crate) fn client() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
}

/// A connection, in the clear or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
pub(crate) use certificate::tests;
