//! The text format, as OpenMetrics has it.
//!
//! The exporter writes the older format alone. What differs is little: the family's name of a
//! counter, units, numbers in labels, and an end that shows that nothing was cut off.

use super::unit;

/// Returns a rendering in Prometheus's text format as OpenMetrics 1.0.
pub(super) fn openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut help = "";
    // The label of the family's samples that holds a number.
    let mut bound = None;
    for line in text.split('\n') {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // It comes before the type, which says what the family is called.
            help = described;
        } else if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.rsplit_once(' ').unwrap_or((declared, "unknown"));
            // A counter must end so, and Parallax's do. One of a connector's own keeps its name
            // and loses its type.
            let (family, kind) = match (kind, name.strip_suffix("_total")) {
                ("counter", Some(family)) => (family, kind),
                ("counter", None) => (name, "unknown"),
                _ => (name, kind),
            };
            out.extend(["# TYPE ", family, " ", kind, "\n"]);
            if let Some(unit) = unit(name) {
                out.extend(["# UNIT ", family, " ", unit, "\n"]);
            }
            let described = help
                .strip_prefix(name)
                .and_then(|text| text.strip_prefix(' '));
            if let Some(text) = described {
                out.extend(["# HELP ", family, " ", &text.replace('"', "\\\""), "\n"]);
            }
            help = "";
            bound = match kind {
                "histogram" => Some("le=\""),
                "summary" => Some("quantile=\""),
                _ => None,
            };
        } else if !line.is_empty() {
            push_sample(&mut out, line, bound);
        }
    }
    out.push_str("# EOF\n");
    out
}

/// Appends a sample, whose bound is written as a number with decimals, if it has one: it is the
/// last of its labels.
fn push_sample(out: &mut String, line: &str, bound: Option<&str>) {
    let parts = bound.and_then(|bound| {
        let (start, rest) = line.split_at(line.rfind(bound)? + bound.len());
        let (number, rest) = rest.split_at(rest.find('"')?);
        let is_whole = number.bytes().all(|byte| byte.is_ascii_digit());
        is_whole.then_some([start, number, ".0", rest])
    });
    match parts {
        Some(parts) => out.extend(parts),
        None => out.push_str(line),
    }
    out.push('\n');
}
