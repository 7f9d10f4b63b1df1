use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use parallax_metrics::Prometheus;

/// How metrics are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposition {
    /// Prometheus's text format.
    Text,
    OpenMetrics,
}

impl Exposition {
    /// Returns what a scrape asks for: OpenMetrics where it prefers that by name, else text, which
    /// everybody reads.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let (mut text, mut openmetrics) = (0.0, 0.0);
        let ranges = headers.get_all(ACCEPT).into_iter();
        let ranges = ranges.filter_map(|value| value.to_str().ok());
        for range in ranges.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0_f32, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match media_type.to_ascii_lowercase().as_str() {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                    openmetrics = quality.max(openmetrics);
                }
                "text/plain" => text = quality.max(text),
                // `*/*` is what is taken where nothing else can be had.
                _ => {}
            }
        }
        match openmetrics > text {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// Returns all metrics, written so.
    pub(super) fn render(self, prometheus: &Prometheus) -> String {
        match self {
            Self::Text => prometheus.render(),
            Self::OpenMetrics => prometheus.render_openmetrics(),
        }
    }

    pub(super) const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text => Prometheus::CONTENT_TYPE,
            Self::OpenMetrics => Prometheus::OPENMETRICS_CONTENT_TYPE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_for(accept: &[&str]) -> Exposition {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Exposition::asked_for(&headers)
    }

    #[test]
    fn openmetrics_is_for_whoever_prefers_it() {
        for accept in [
            // What Prometheus 2.42 and 3 send, and the vendor's agent.
            "application/openmetrics-text;version=1.0.0,\
             application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.1",
            "application/openmetrics-text",
            "Application/OpenMetrics-Text ; Q=0.2 ; VERSION=\"1.0.0\" , */*",
        ] {
            assert_eq!(asked_for(&[accept]), Exposition::OpenMetrics, "{accept}");
        }
        let apart = ["text/plain;q=0.5", "application/openmetrics-text"];
        assert_eq!(asked_for(&apart), Exposition::OpenMetrics);
    }

    #[test]
    fn text_is_for_everybody_else() {
        assert_eq!(asked_for(&[]), Exposition::Text);
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=many",
            "application/openmetrics-text;q=NaN",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-text,text/plain",
            "application/openmetrics-texts;q=1;;;=;,",
            "\u{e9}",
        ] {
            assert_eq!(asked_for(&[accept]), Exposition::Text, "{accept}");
        }
    }
}
