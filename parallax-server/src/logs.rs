use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use indicatif::MultiProgress;
use parallax_core::{Escaped, excerpt};
use parallax_metrics::Prometheus;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::format::{
    Format, FormatEvent, FormatFields, Json, JsonFields, Writer,
};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::LogFormat;
use crate::json;
#[cfg(feature = "otlp")]
use crate::otlp::{self, Otlp};
use crate::text::{FAINT, GOOD, ODD, WRONG, panic_message};
use crate::trace_parent::TraceParent;

/// What goes on until the process ends, or this is dropped: spans are part of the caller's trace,
/// and what is logged and traced is exported. The drop sends what is left.
#[derive(Default)]
#[must_use]
pub(crate) struct Installed {
    #[cfg(feature = "otlp")]
    _joined: Option<opentelemetry::ContextGuard>,
    #[cfg(feature = "otlp")]
    otlp: Otlp,
}

#[cfg(feature = "otlp")]
impl Installed {
    /// Tells whether metrics shall be sent that somebody records.
    pub(crate) fn wants_metrics(&self) -> bool {
        self.otlp.wants_metrics()
    }

    /// Sends what is recorded from now on, if that is wanted: again and again, and once more when
    /// this is dropped.
    pub(crate) fn send_metrics(&mut self, prometheus: &Prometheus) {
        self.otlp.send_metrics(prometheus);
    }
}

#[cfg(not(feature = "otlp"))]
impl Installed {
    pub(crate) fn wants_metrics(&self) -> bool {
        false
    }

    pub(crate) fn send_metrics(&mut self, _: &Prometheus) {}
}

/// Logs to the standard error from now on, beside `bars`, and has panics logged too. Joins the trace
/// that TRACEPARENT names.
///
/// RUST_LOG says what is logged. Without it that is warnings, and more for each `-v`.
pub(crate) fn install(verbose: u8, format: Option<LogFormat>, bars: &MultiProgress) -> Installed {
    let format = format.unwrap_or(LogFormat::Text);
    // Nobody reads objects for what the summary says.
    let on_terminal = io::stderr().is_terminal() && format == LogFormat::Text;
    let writer = BesideBars(bars.clone());
    let wish = env::var_os("TRACEPARENT").filter(|wish| !wish.is_empty());
    let wish = wish.map(|wish| wish.to_string_lossy().into_owned());
    let caller = wish.as_deref().map(TraceParent::parse);
    let log = Log {
        format,
        caller: caller.clone().flatten(),
    };
    let installed = install_layers(verbose, log, |log, wish| match wish {
        Some(filter) => log.layer(writer).with_filter(filter).boxed(),
        None => by_verbosity(log.layer(writer), verbose, on_terminal),
    });
    if caller == Some(None) {
        tracing::warn!(
            value = %excerpt(&wish.unwrap_or_default(), 80),
            "TRACEPARENT is not valid and does not count"
        );
    }
    installed
}

/// As [`install`], for a process that stays: without RUST_LOG it logs what happens, and details
/// with `-v`. By default a terminal gets text, and everything else an object a line. It joins no
/// trace, since it outlives whoever started it.
pub(crate) fn install_for_daemon(verbose: u8, format: Option<LogFormat>) -> Installed {
    let format = format.unwrap_or(if io::stderr().is_terminal() {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let verbose = verbose.saturating_add(1);
    let caller = None;
    install_layers(verbose, Log { format, caller }, |log, wish| match wish {
        Some(filter) => log.layer(io::stderr).with_filter(filter).boxed(),
        None => by_verbosity(log.layer(io::stderr), verbose, false),
    })
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// How the log is written.
struct Log {
    format: LogFormat,
    caller: Option<TraceParent>,
}

impl Log {
    fn layer<W>(&self, writer: W) -> Boxed
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        // A write that fails is not told on the standard error, which is what fails: that would
        // panic.
        match self.format {
            LogFormat::Text => tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .event_format(LineFormat::of_stderr())
                .with_writer(writer)
                .log_internal_errors(false)
                .boxed(),
            LogFormat::Json => tracing_subscriber::fmt::layer()
                .fmt_fields(JsonFields::new())
                .event_format(JsonFormat::new(self.caller.as_ref()))
                .with_writer(writer)
                .log_internal_errors(false)
                .boxed(),
        }
    }
}

fn install_layers(
    #[cfg_attr(not(feature = "otlp"), allow(unused_variables))] verbose: u8,
    log: Log,
    make: impl FnOnce(&Log, Option<EnvFilter>) -> Boxed,
) -> Installed {
    let wish = env::var("RUST_LOG").ok().filter(|wish| !wish.is_empty());
    let filter = wish.as_deref().map(EnvFilter::try_new).transpose();
    let (filter, problem) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (None, Some(error)),
    };
    #[cfg(feature = "otlp")]
    let mut otlp = Otlp::from_env();
    #[cfg(feature = "otlp")]
    let exporting = exporting(&otlp, verbose, wish.as_deref());
    #[cfg(not(feature = "otlp"))]
    let exporting = Vec::new();
    let mut layers: Vec<Boxed> = vec![make(&log, filter)];
    layers.extend(exporting);
    // An error means that there is a subscriber: the program's own, and so its choice.
    tracing_subscriber::registry().with(layers).try_init().ok();
    if let Some(error) = problem {
        tracing::warn!(error = %Escaped(error), "RUST_LOG is not valid and does not count");
    }
    #[cfg(feature = "otlp")]
    for error in std::mem::take(&mut otlp.problems) {
        tracing::warn!(error = %Escaped(error), "Telemetry not exported");
    }
    std::panic::set_hook(Box::new(|panic| {
        let error = panic_message(panic.payload());
        match panic.location() {
            Some(location) => tracing::error!(%location, %error, "Panicked"),
            None => tracing::error!(%error, "Panicked"),
        }
    }));
    Installed {
        #[cfg(feature = "otlp")]
        _joined: log.caller.as_ref().and_then(otlp::join),
        #[cfg(feature = "otlp")]
        otlp,
    }
}

/// Returns what is exported. Of the log that is what RUST_LOG says. Without it that is what happens,
/// also where the terminal shows warnings only, and details with `-vv`.
#[cfg(feature = "otlp")]
fn exporting(otlp: &Otlp, verbose: u8, wish: Option<&str>) -> Vec<Boxed> {
    let filter = wish.and_then(|wish| EnvFilter::try_new(wish).ok());
    let events = otlp.events().map(|events| match filter {
        Some(filter) => events.with_filter(filter).boxed(),
        None => by_verbosity(events, verbose.max(1), false),
    });
    [otlp.spans(), events].into_iter().flatten().collect()
}

/// Writes whole lines to the standard error, without tearing the bars there.
pub(crate) fn write_stderr(bars: &MultiProgress, text: &[u8]) {
    if !thread::panicking() {
        return make_room_and_write(bars, text);
    }
    // In a thread that panics indicatif clears nothing. If it is indicatif that panicked, its lock
    // may be taken for ever: so this waits, but not for long.
    let (bars, text) = (bars.clone(), text.to_owned());
    let (done, written) = mpsc::channel();
    thread::spawn(move || {
        make_room_and_write(&bars, &text);
        done.send(()).ok();
    });
    written.recv_timeout(Duration::from_secs(1)).ok();
}

fn make_room_and_write(bars: &MultiProgress, text: &[u8]) {
    // `suspend` panics where `clear` fails, as on a terminal that has gone away. Then there is
    // nowhere to write to.
    if bars.clear().is_ok() {
        bars.suspend(|| io::stderr().write_all(text)).ok();
    }
}

fn by_verbosity<L: Layer<Registry> + Send + Sync>(
    layer: L,
    verbose: u8,
    on_terminal: bool,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let is_shown = move |metadata: &Metadata<'_>| {
        if metadata.is_span() {
            // Whatever is logged, the step that it comes from is worth knowing.
            return *metadata.level() <= level.max(LevelFilter::INFO);
        }
        *metadata.level() <= level && !(verbose == 0 && on_terminal && is_in_summary(metadata))
    };
    let filter = filter_fn(is_shown).with_max_level_hint(level.max(LevelFilter::INFO));
    layer.with_filter(filter).boxed()
}

/// Tells whether the summary says it as well: how the steps ended, the run, and the commit. Of the
/// runner's warnings, only those of single records are nowhere else.
fn is_in_summary(metadata: &Metadata<'_>) -> bool {
    ["parallax_connect::", "parallax_scheduler::"]
        .iter()
        .any(|crate_name| metadata.target().starts_with(crate_name))
        && metadata.fields().field("rule").is_none()
}

#[derive(Clone)]
struct BesideBars(MultiProgress);

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &BesideBars {
    /// Takes one event at a time: the subscriber writes each in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_stderr(&self.0, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event, one line: an object.
struct JsonFormat {
    bare: Format<Json, SystemTime>,
    with_spans: Format<Json, SystemTime>,
    /// Of the caller.
    trace_id: Option<String>,
}

impl JsonFormat {
    fn new(caller: Option<&TraceParent>) -> Self {
        let bare = tracing_subscriber::fmt::format()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        let with_spans = bare.clone().with_span_list(true);
        let trace_id = caller.map(|caller| caller.trace_id.clone());
        Self {
            bare,
            with_spans,
            trace_id,
        }
    }
}

impl<S> FormatEvent<S, JsonFields> for JsonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = String::new();
        let buffer = Writer::new(&mut object);
        if names_its_sync(event) {
            self.bare.format_event(ctx, buffer, event)?;
        } else {
            self.with_spans.format_event(ctx, buffer, event)?;
        }
        // The libraries around us log what they like.
        let object = json::escaped(object.trim_end());
        let object = object.trim_end();
        let open = object.strip_suffix('}').unwrap_or(object);
        writer.write_str(open)?;
        #[cfg(feature = "otlp")]
        if let Some((trace_id, span_id)) = otlp::current_ids() {
            write!(writer, r#","trace_id":"{trace_id}""#)?;
            if let Some(span_id) = span_id {
                write!(writer, r#","span_id":"{span_id}""#)?;
            }
            return writer.write_str("}\n");
        }
        match &self.trace_id {
            Some(trace_id) => writeln!(writer, r#","trace_id":"{trace_id}"}}"#),
            None => writer.write_str("}\n"),
        }
    }
}

/// Our own events name their sync and step; others are told by the spans they are in.
fn names_its_sync(event: &Event<'_>) -> bool {
    event.metadata().fields().field("sync_id").is_some()
}

/// One event, one line: time, level, message, fields.
struct LineFormat {
    with_time: bool,
    with_colour: bool,
}

impl LineFormat {
    fn of_stderr() -> Self {
        Self {
            with_time: !io::stderr().is_terminal(),
            with_colour: anstream::AutoStream::choice(&io::stderr())
                != anstream::ColorChoice::Never,
        }
    }
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.with_time {
            SystemTime.format_time(&mut writer)?;
            writer.write_char(' ')?;
        }
        let level = *event.metadata().level();
        let style = match level {
            _ if !self.with_colour => Default::default(),
            Level::ERROR => WRONG,
            Level::WARN => ODD,
            Level::INFO => GOOD,
            _ => FAINT,
        };
        write!(writer, "{style}{level:>5}{style:#} ")?;

        let mut fields = String::new();
        ctx.format_fields(Writer::new(&mut fields), event)?;
        if !names_its_sync(event)
            && let Some(scope) = ctx.event_scope()
        {
            for span in scope.from_root() {
                if let Some(of_span) = span.extensions().get::<FormattedFields<N>>()
                    && !of_span.is_empty()
                {
                    write!(fields, " {of_span}")?;
                }
            }
        }
        // The libraries around us log what they like.
        writeln!(writer, "{}", Escaped(fields))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what is logged of a story about a step.
    fn logged(verbose: u8, on_terminal: bool) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(LineFormat {
                with_time: false,
                with_colour: false,
            })
            .with_writer(move || writer.clone());
        let layer = by_verbosity(layer, verbose, on_terminal);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _step = tracing::info_span!("step", step_id = "users").entered();
            tracing::warn!("foreign\nlog \u{1b}[31m");
            tracing::info!(sync_id = "s-1", "Step started");
            tracing::warn!(target: "parallax_connect::telemetry", sync_id = "s-1", "Step failed");
            tracing::warn!(target: "parallax_connect::telemetry", sync_id = "s-1", rule = "x", "Records rejected");
        });
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn daemon_logs_an_object_a_line() {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(JsonFormat::new(None))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _step = tracing::info_span!("step", step_id = "users").entered();
            tracing::warn!(target: "foreign", "new\nline \u{1b}[31m \u{202e}");
            tracing::info!(target: "ours", sync_id = "s-1", entities = 2, "Step completed");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let untimed: Vec<&str> = text
            .lines()
            .map(|line| line.split_once(",").unwrap().1)
            .collect();
        insta::assert_snapshot!(untimed.join("\n"), @r#"
        "level":"WARN","message":"new\nline \u001b[31m \u202e","target":"foreign","spans":[{"step_id":"users","name":"step"}]}
        "level":"INFO","message":"Step completed","sync_id":"s-1","entities":2,"target":"ours"}
        "#);
    }

    #[test]
    fn terminal_gets_what_the_summary_does_not_say() {
        insta::assert_snapshot!(logged(0, true), @r#"
        WARN foreign\nlog \x1b[31m step_id="users"
        WARN Records rejected sync_id="s-1" rule="x"
        "#);
    }

    #[test]
    fn file_gets_every_warning() {
        insta::assert_snapshot!(logged(0, false), @r#"
        WARN foreign\nlog \x1b[31m step_id="users"
        WARN Step failed sync_id="s-1"
        WARN Records rejected sync_id="s-1" rule="x"
        "#);
    }

    #[test]
    fn verbose_log_has_all() {
        insta::assert_snapshot!(logged(1, true), @r#"
        WARN foreign\nlog \x1b[31m step_id="users"
        INFO Step started sync_id="s-1"
        WARN Step failed sync_id="s-1"
        WARN Records rejected sync_id="s-1" rule="x"
        "#);
    }
}
