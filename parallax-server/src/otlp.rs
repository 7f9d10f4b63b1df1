//! Traces, logs and metrics for an OpenTelemetry receiver, where the environment names one.

mod delivery;
mod metrics;

use std::env;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, ContextGuard, Key, KeyValue, Value};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use parallax_metrics::Prometheus;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::Registry;

use crate::trace_parent::TraceParent;

use delivery::{Client, Delivery, Transport};
use metrics::{Metrics, Sending};

/// How long the end of the process waits for what is not sent yet.
const FLUSH: Duration = Duration::from_secs(2);

/// The exporters. Dropping it sends what is left, which takes at most [`FLUSH`].
#[derive(Default)]
pub(crate) struct Otlp {
    traces: Option<(SdkTracerProvider, Arc<Delivery>)>,
    logs: Option<(SdkLoggerProvider, Arc<Delivery>)>,
    /// Those that nobody records yet.
    metrics: Option<Metrics>,
    sending: Option<Sending>,
    /// Why something that the environment asks for is not exported.
    pub(crate) problems: Vec<String>,
}

impl Otlp {
    /// Makes exporters as the variables of OpenTelemetry say. Without an endpoint there are none.
    pub(crate) fn from_env() -> Self {
        let mut otlp = Self::default();
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return otlp;
        }
        let failing = Arc::new(AtomicU8::new(0));
        let resource = resource();
        if let Some(transport) = transport("TRACES", &mut otlp.problems) {
            let delivery = Delivery::new("traces", 1, Arc::clone(&failing), transport);
            let client = Client(Arc::clone(&delivery));
            match SpanExporter::builder()
                .with_http()
                .with_http_client(client)
                .build()
            {
                Ok(exporter) => {
                    let provider = SdkTracerProvider::builder()
                        .with_batch_exporter(exporter)
                        .with_resource(resource.clone())
                        .build();
                    otlp.traces = Some((provider, delivery));
                }
                Err(error) => otlp.problems.push(error.to_string()),
            }
        }
        if let Some(transport) = transport("METRICS", &mut otlp.problems) {
            let delivery = Delivery::new("metrics", 4, Arc::clone(&failing), transport);
            match Metrics::from_env(delivery, &resource) {
                Ok(metrics) => otlp.metrics = Some(metrics),
                Err(problem) => otlp.problems.push(problem),
            }
        }
        if let Some(transport) = transport("LOGS", &mut otlp.problems) {
            let delivery = Delivery::new("logs", 2, failing, transport);
            let client = Client(Arc::clone(&delivery));
            match LogExporter::builder()
                .with_http()
                .with_http_client(client)
                .build()
            {
                Ok(exporter) => {
                    let provider = SdkLoggerProvider::builder()
                        .with_batch_exporter(exporter)
                        .with_resource(resource)
                        .build();
                    otlp.logs = Some((provider, delivery));
                }
                Err(error) => otlp.problems.push(error.to_string()),
            }
        }
        otlp
    }

    /// Returns what hands spans to the exporter.
    pub(crate) fn spans(&self) -> Option<Box<dyn Layer<Registry> + Send + Sync>> {
        let (provider, _) = self.traces.as_ref()?;
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("parallax"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false);
        // Spans only, because events are logs already. RUST_LOG has no say: a trace with holes is
        // of no use.
        let is_shown =
            filter_fn(|metadata| metadata.is_span() && *metadata.level() <= LevelFilter::INFO);
        Some(
            layer
                .with_filter(is_shown.with_max_level_hint(LevelFilter::INFO))
                .boxed(),
        )
    }

    /// Returns what hands events to the exporter.
    pub(crate) fn events(&self) -> Option<impl Layer<Registry> + Send + Sync + use<>> {
        let (provider, _) = self.logs.as_ref()?;
        Some(OpenTelemetryTracingBridge::new(provider))
    }

    /// Tells whether metrics shall be sent that somebody records.
    pub(crate) fn wants_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// Sends, from now on, what is recorded from now on.
    pub(crate) fn send_metrics(&mut self, prometheus: &Prometheus) {
        let metrics = self.metrics.take();
        self.sending = metrics.and_then(|metrics| metrics.start(prometheus.clone()));
    }
}

impl Drop for Otlp {
    fn drop(&mut self) {
        let traces = self.traces.take().map(|(provider, delivery)| {
            close(delivery, move || {
                provider.shutdown_with_timeout(2 * FLUSH).ok();
            })
        });
        let metrics = self.sending.take().map(|sending| {
            let delivery = Arc::clone(&sending.delivery);
            close(delivery, move || sending.stop())
        });
        let logs = self.logs.take().map(|(provider, delivery)| {
            close(delivery, move || {
                provider.shutdown_with_timeout(2 * FLUSH).ok();
            })
        });
        let deadline = Instant::now() + FLUSH;
        for (delivery, ended) in [traces, metrics, logs].into_iter().flatten() {
            let patience = deadline.saturating_duration_since(Instant::now());
            if ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                delivery.failed(&format!(
                    "no answer within {} s of the end",
                    FLUSH.as_secs()
                ));
            }
        }
    }
}

/// Shuts down on a thread of its own, which may hang as long as the receiver does. What is returned
/// gets a word at the end, and at the first failure: then waiting for more is in vain. `shutdown`
/// must be more patient than [`FLUSH`], or its giving up looks like an end.
fn close(
    delivery: Arc<Delivery>,
    shutdown: impl FnOnce() + Send + 'static,
) -> (Arc<Delivery>, mpsc::Receiver<()>) {
    let (done, ended) = mpsc::channel();
    delivery.closing(done.clone());
    let shutdown = move || {
        // What went wrong has been told by the delivery.
        shutdown();
        done.send(()).ok();
    };
    // Without a thread nothing is waited for: nobody would send the word.
    if thread::Builder::new().spawn(shutdown).is_err() {
        delivery.failed("no thread can be started");
    }
    (delivery, ended)
}

/// Makes the caller's span the parent of spans that this thread opens, until the guard is dropped.
pub(crate) fn join(caller: &TraceParent) -> Option<ContextGuard> {
    let state = variable("TRACESTATE").and_then(|state| state.parse().ok());
    let context = SpanContext::new(
        TraceId::from_hex(&caller.trace_id).ok()?,
        SpanId::from_hex(&caller.span_id).ok()?,
        TraceFlags::default().with_sampled(caller.is_sampled),
        true,
        state.unwrap_or(TraceState::NONE),
    );
    Some(Context::new().with_remote_span_context(context).attach())
}

/// Returns the ids of the trace that this thread is in, and of the span, unless that is the caller's.
pub(crate) fn current_ids() -> Option<(TraceId, Option<SpanId>)> {
    Context::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        let span_id = (!ids.is_remote()).then(|| ids.span_id());
        ids.is_valid().then(|| (ids.trace_id(), span_id))
    })
}

/// Who sends it. What the environment says goes before what is said here.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let name = given.get(&Key::from_static_str("service.name"));
    let name = name.filter(|name| !name.as_str().starts_with("unknown_service"));
    // Of the two variables that can name the service, the SDK takes the wrong one.
    let name = variable("OTEL_SERVICE_NAME").map(Value::from).or(name);
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let given = given
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_attribute(version)
        .with_attributes(given)
        .with_service_name(name.unwrap_or_else(|| "parallax".into()))
        .build()
}

/// Returns how a signal is sent, if it shall be and can be. Notes why it cannot.
fn transport(signal: &str, problems: &mut Vec<String>) -> Option<Transport> {
    let (endpoint, name) = setting(signal, "ENDPOINT")?;
    if variable(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|exporter| exporter == "none") {
        return None;
    }
    let mut found = Vec::new();
    let transport = if endpoint.starts_with("https://") {
        Transport::tls(setting(signal, "CERTIFICATE"))
    } else if endpoint.starts_with("http://") {
        Ok(Transport::InTheClear)
    } else {
        Err(format!("{name} must begin with http:// or https://"))
    };
    let transport = transport.map_err(|problem| found.push(problem)).ok();
    if let Some((protocol, name)) = setting(signal, "PROTOCOL")
        && protocol != "http/protobuf"
    {
        found.push(format!(
            "{name} is {protocol}: only http/protobuf is spoken, most often at port 4318"
        ));
    }
    let is_fine = found.is_empty();
    // The signals have most often the same.
    for problem in found {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    transport.filter(|_| is_fine)
}

/// Returns what the environment says for a signal, or for all of them, and where.
fn setting(signal: &str, what: &str) -> Option<(String, String)> {
    let names = [
        format!("OTEL_EXPORTER_OTLP_{signal}_{what}"),
        format!("OTEL_EXPORTER_OTLP_{what}"),
    ];
    names
        .into_iter()
        .find_map(|name| Some((variable(&name)?, name)))
}

/// Returns a variable of the environment. To OpenTelemetry, an empty one is none.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
