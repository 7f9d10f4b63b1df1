mod families;
mod openmetrics;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use self::openmetrics::openmetrics;
use crate::names::{self, COMMIT_DURATION, Metric, STEP_DURATION, SYNC_DURATION};

pub use self::families::{Family, Series, Value};

/// The recorder whose metrics Prometheus reads.
///
/// It serves nothing: the program answers a scrape with [`render`](Self::render), and calls
/// [`upkeep`](Self::upkeep) every 5 seconds.
///
/// ```
/// use parallax_metrics::{ParallaxMetrics, Prometheus};
///
/// let prometheus = Prometheus::install()?;
/// let metrics = ParallaxMetrics::new();
/// metrics.register("okta", &["users"]);
/// assert!(prometheus.render().contains(r#"parallax_syncs_in_progress{connector_id="okta"} 0"#));
/// # Ok::<(), parallax_metrics::InstallError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Prometheus {
    handle: PrometheusHandle,
}

/// Why there is no recorder for Prometheus.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the recorder for Prometheus cannot be installed: {reason}")]
pub struct InstallError {
    reason: String,
}

impl Prometheus {
    /// What the answer to a scrape says its `Content-Type` is.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// The same for [`render_openmetrics`](Self::render_openmetrics).
    pub const OPENMETRICS_CONTENT_TYPE: &str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Installs the recorder of the whole program.
    ///
    /// A program does that once, before anything is recorded. A library never does.
    ///
    /// # Errors
    ///
    /// Returns [`InstallError`] if a recorder is installed already.
    pub fn install() -> Result<Self, InstallError> {
        builder()
            .and_then(PrometheusBuilder::install_recorder)
            .map(|handle| Self { handle })
            .map_err(|error| InstallError {
                reason: error.to_string(),
            })
    }

    /// Returns all metrics in Prometheus's text format.
    ///
    /// It costs as much as there are series, never as much as there are entities.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Returns all metrics in the format of OpenMetrics, for whoever asks for it, as Prometheus
    /// does by default.
    ///
    /// A counter of the program's own whose name does not end in `_total` has no type there. There
    /// are no exemplars.
    pub fn render_openmetrics(&self) -> String {
        openmetrics(&self.render())
    }

    /// Returns all metrics as values, for whoever sends them on: what [`render`](Self::render)
    /// writes at the same moment.
    pub fn families(&self) -> Vec<Family> {
        families::families(&self.render())
    }

    /// Puts the durations that were recorded since the last time into their buckets.
    ///
    /// A recorded duration is kept as it is, 24 bytes, until this or a scrape comes. Where no scrape
    /// comes, because Prometheus is down or was never set up, they pile up without end; and the more
    /// there are, the longer the next scrape takes. So the program calls it every 5 seconds, for as
    /// long as it runs. It costs as much as there are histograms and new samples.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Buckets of syncs and steps: from a file that is read to a tenant that takes all night.
const UP_TO_1_H: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1_800.0, 3_600.0,
];

/// Buckets of commits.
const UP_TO_5_MIN: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0,
];

/// Every histogram: one without buckets would be rendered as a summary, which cannot be added up
/// over instances.
const BUCKETS: [(Metric, &[f64]); 3] = [
    (SYNC_DURATION, UP_TO_1_H),
    (STEP_DURATION, UP_TO_1_H),
    (COMMIT_DURATION, UP_TO_5_MIN),
];

/// Returns the unit of one of Parallax's metrics whose name says it.
fn unit(name: &str) -> Option<&'static str> {
    let family = name.strip_suffix("_total").unwrap_or(name);
    let is_ours = |metric: &&Metric| metric.name == name && metric.is_in_seconds();
    (family.ends_with("_seconds") && names::all().any(|metric| is_ours(&metric)))
        .then_some("seconds")
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (Metric { name, .. }, buckets) in BUCKETS {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
    }
    Ok(builder)
}

#[cfg(test)]
mod tests;
