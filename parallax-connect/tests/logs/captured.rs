//! What is logged, as text.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry, Scope};

/// Collects log lines: the names of the spans, level, message and fields of each.
///
/// Numbers are shown bare, texts in quotes, and what was given with `%` or `?` after a tilde.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured {
    lines: Arc<Mutex<Vec<String>>>,
    marks: Arc<Mutex<Vec<String>>>,
}

impl Captured {
    pub(crate) fn dispatch(&self) -> Dispatch {
        Dispatch::new(Registry::default().with(self.clone()))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Returns the fields that spans got after they were opened.
    pub(crate) fn marks(&self) -> Vec<String> {
        self.marks.lock().unwrap().clone()
    }
}

/// The fields of a span, kept with it.
struct SpanFields(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Captured {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let span = ctx.span(id).unwrap();
        let text = format!("{}{{{}}}", span.name(), fields.text.trim());
        span.extensions_mut().insert(SpanFields(text));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        let span = ctx.span(id).unwrap();
        let line = format!(
            "{}{}",
            span.extensions().get::<SpanFields>().unwrap().0,
            fields.text
        );
        self.marks.lock().unwrap().push(line);
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut line = String::new();
        for span in ctx
            .event_scope(event)
            .into_iter()
            .flat_map(Scope::from_root)
        {
            write!(
                line,
                "{} > ",
                span.extensions().get::<SpanFields>().unwrap().0
            )
            .unwrap();
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, text } = fields;
        write!(line, "{} {message}{text}", event.metadata().level()).unwrap();
        self.lines.lock().unwrap().push(line);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    text: String,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        write!(self.text, " {}={value}", field.name()).unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.text, " {}={value:?}", field.name()).unwrap();
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => write!(self.text, " {name}=~{value:?}").unwrap(),
        }
    }
}
