//! What Prometheus reads, sent: there is one recorder, and this is another way to read it.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Text,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use parallax_metrics::{Family, Prometheus, Series, Value};
use prost::Message;

use super::delivery::Delivery;
use super::{setting, variable};

/// How often metrics are sent if nobody says: the specification's default.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sends metrics, once somebody records some.
#[derive(Debug)]
pub(super) struct Metrics {
    endpoint: Uri,
    headers: HeaderMap,
    interval: Duration,
    resource: Resource,
    delivery: Arc<Delivery>,
}

/// Metrics that are being sent.
#[derive(Debug)]
pub(super) struct Sending {
    stop: Sender<()>,
    thread: JoinHandle<()>,
    pub(super) delivery: Arc<Delivery>,
}

impl Metrics {
    /// Makes what sends, as the environment says.
    ///
    /// # Errors
    ///
    /// What the environment says wrongly.
    pub(super) fn from_env(
        delivery: Arc<Delivery>,
        resource: &opentelemetry_sdk::Resource,
    ) -> Result<Self, String> {
        let attributes = resource.iter().map(|(key, value)| KeyValue {
            key: key.as_str().to_owned(),
            value: Some(value.clone().into()),
            ..KeyValue::default()
        });
        let interval = variable("OTEL_METRIC_EXPORT_INTERVAL");
        let interval = interval.and_then(|millis| millis.parse().ok());
        let interval = interval.filter(|millis| *millis > 0);
        Ok(Self {
            endpoint: endpoint()?,
            headers: headers()?,
            interval: interval.map_or(INTERVAL, Duration::from_millis),
            resource: Resource {
                attributes: attributes.collect(),
                ..Resource::default()
            },
            delivery,
        })
    }

    /// Sends what was recorded since now, every interval and once more at the end. Nothing is sent
    /// if no thread can be started.
    pub(super) fn start(self, prometheus: Prometheus) -> Option<Sending> {
        let start = SystemTime::now();
        let delivery = Arc::clone(&self.delivery);
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name("metrics".to_owned());
        let sending = move || {
            let mut goes_on = true;
            while goes_on {
                goes_on = stopped.recv_timeout(self.interval) == Err(RecvTimeoutError::Timeout);
                self.send(&prometheus, start);
            }
        };
        match thread.spawn(sending) {
            Ok(thread) => Some(Sending {
                stop,
                thread,
                delivery,
            }),
            Err(_) => {
                delivery.failed("no thread can be started");
                None
            }
        }
    }

    fn send(&self, prometheus: &Prometheus, start: SystemTime) {
        let times = Times {
            start: nanoseconds(start),
            now: nanoseconds(SystemTime::now()),
        };
        let families = prometheus.families();
        let metrics = families
            .into_iter()
            .filter_map(|family| times.metric(family));
        let message = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: "parallax".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    metrics: metrics.collect(),
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        let mut request = Request::new(message.encode_to_vec().into());
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.headers.clone();
        let Ok(response) = self.delivery.send(request) else {
            return;
        };
        let answer = ExportMetricsServiceResponse::decode(response.into_body()).ok();
        if let Some(rejected) = answer.and_then(|answer| answer.partial_success)
            && rejected.rejected_data_points > 0
        {
            self.delivery.failed(&format!(
                "{} series were rejected: {}",
                rejected.rejected_data_points, rejected.error_message
            ));
        }
    }
}

impl Sending {
    /// Sends for the last time, and waits for that.
    pub(super) fn stop(self) {
        drop(self.stop);
        self.thread.join().ok();
    }
}

/// When what is sent was counted, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

impl Times {
    /// Returns a metric as OpenTelemetry has it, if there is any series of it. Names stay.
    fn metric(self, family: Family) -> Option<Metric> {
        let cumulative = AggregationTemporality::Cumulative.into();
        let (mut sums, mut gauges) = (Vec::new(), Vec::new());
        let (mut histograms, mut summaries) = (Vec::new(), Vec::new());
        for Series { labels, value } in family.series {
            let attributes = attributes(labels);
            match value {
                Value::Counter(count) => sums.push(self.number(attributes, whole(count))),
                Value::Gauge(value) => {
                    let value = number_data_point::Value::AsDouble(value);
                    gauges.push(NumberDataPoint {
                        // A gauge has no beginning.
                        start_time_unix_nano: 0,
                        ..self.number(attributes, value)
                    });
                }
                Value::Histogram { buckets, sum } => {
                    histograms.push(self.histogram(attributes, &buckets, sum));
                }
                Value::Summary {
                    quantiles,
                    count,
                    sum,
                } => summaries.push(SummaryDataPoint {
                    attributes,
                    start_time_unix_nano: self.start,
                    time_unix_nano: self.now,
                    count,
                    sum,
                    quantile_values: quantiles
                        .into_iter()
                        .map(|(quantile, value)| ValueAtQuantile { quantile, value })
                        .collect(),
                    ..SummaryDataPoint::default()
                }),
            }
        }
        let data = if !sums.is_empty() {
            Data::Sum(Sum {
                data_points: sums,
                aggregation_temporality: cumulative,
                is_monotonic: true,
            })
        } else if !gauges.is_empty() {
            Data::Gauge(Gauge {
                data_points: gauges,
            })
        } else if !histograms.is_empty() {
            Data::Histogram(Histogram {
                data_points: histograms,
                aggregation_temporality: cumulative,
            })
        } else if !summaries.is_empty() {
            Data::Summary(Summary {
                data_points: summaries,
            })
        } else {
            return None;
        };
        Some(Metric {
            name: family.name,
            description: family.help,
            unit: family.unit.map(|_| "s".to_owned()).unwrap_or_default(),
            data: Some(data),
            ..Metric::default()
        })
    }

    fn number(self, attributes: Vec<KeyValue>, value: number_data_point::Value) -> NumberDataPoint {
        NumberDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn histogram(
        self,
        attributes: Vec<KeyValue>,
        buckets: &[(f64, u64)],
        sum: f64,
    ) -> HistogramDataPoint {
        // Of each bucket alone: Prometheus adds up those below it.
        let below = [0]
            .into_iter()
            .chain(buckets.iter().map(|(_, up_to)| *up_to));
        let counts = buckets.iter().zip(below);
        let bounds = buckets.iter().map(|(bound, _)| *bound);
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            count: buckets.last().map_or(0, |(_, up_to)| *up_to),
            sum: Some(sum),
            bucket_counts: counts
                .map(|((_, up_to), below)| up_to.saturating_sub(below))
                .collect(),
            explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
            ..HistogramDataPoint::default()
        }
    }
}

/// Returns a count as a number of a message, which has no larger ones.
fn whole(count: u64) -> number_data_point::Value {
    number_data_point::Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX))
}

fn attributes(labels: Vec<(String, String)>) -> Vec<KeyValue> {
    let attribute = |(key, value)| KeyValue {
        key,
        value: Some(AnyValue {
            value: Some(Text::StringValue(value)),
        }),
        ..KeyValue::default()
    };
    labels.into_iter().map(attribute).collect()
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns where metrics are sent: the signal's own address as it is, or the path below the one of
/// all.
fn endpoint() -> Result<Uri, String> {
    let (address, name) = setting("METRICS", "ENDPOINT").unwrap_or_default();
    let address = match name.contains("_METRICS_") {
        true => address,
        false => format!("{}/v1/metrics", address.trim_end_matches('/')),
    };
    Uri::from_str(&address).map_err(|error| format!("{name} is no URL: {error}"))
}

/// Returns what else is sent in the head of each request, such as who may send.
fn headers() -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for name in [
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    ] {
        let given = variable(name).unwrap_or_default();
        for pair in given.split(',').filter(|pair| !pair.trim().is_empty()) {
            let parsed = pair.split_once('=').and_then(|(key, value)| {
                let key = HeaderName::from_str(key.trim()).ok()?;
                let mut value = HeaderValue::from_bytes(&percent_decoded(value.trim())).ok()?;
                value.set_sensitive(true);
                Some((key, value))
            });
            // Not what it is: it may be a secret.
            let (key, value) =
                parsed.ok_or_else(|| format!("{name} is not of the form NAME=VALUE,…"))?;
            headers.insert(key, value);
        }
    }
    let protobuf = HeaderValue::from_static("application/x-protobuf");
    headers.insert(CONTENT_TYPE, protobuf);
    Ok(headers)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let escaped = others.get(..2).filter(|_| first == b'%');
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = others.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_percent_decoded() {
        for (text, decoded) in [
            ("Basic%20YTpi", "Basic YTpi"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%C3%A9", "é"),
        ] {
            assert_eq!(percent_decoded(text), decoded.as_bytes());
        }
    }

    #[test]
    fn buckets_are_told_one_by_one() {
        let times = Times { start: 1, now: 2 };
        let family = Family {
            name: "a_seconds".to_owned(),
            help: "A.".to_owned(),
            unit: Some("seconds"),
            series: vec![Series {
                labels: vec![("step_id".to_owned(), "b".to_owned())],
                value: Value::Histogram {
                    buckets: vec![(0.1, 2), (1.0, 2), (f64::INFINITY, 7)],
                    sum: 12.5,
                },
            }],
        };
        let metric = times.metric(family).unwrap();
        assert_eq!((&*metric.name, &*metric.unit), ("a_seconds", "s"));
        let Some(Data::Histogram(histogram)) = metric.data else {
            panic!("{metric:?}");
        };
        assert_eq!(histogram.aggregation_temporality, 2);
        let point = &histogram.data_points[0];
        assert_eq!(point.bucket_counts, [2, 0, 5]);
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!((point.count, point.sum), (7, Some(12.5)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        assert_eq!(point.attributes[0].key, "step_id");
    }
}
