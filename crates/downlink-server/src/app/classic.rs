//! Writes metrics in the classic text format of Prometheus, for programs that cannot read
//! OpenMetrics.
//!
//! The input is OpenMetrics text. The classic format differs in these points:
//!
//! - The help and type lines of a counter use the name of its samples, which ends with `_total`.
//! - There are no lines for units, and no line that marks the end.
//! - There is no type `info`, so a metric of this type becomes a gauge.
//! - The type `unknown` has the name `untyped`.

use std::fmt::Write as _;

/// The media type of the classic format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a request wants the classic format: it accepts plain text, but not OpenMetrics.
pub(super) fn is_preferred(accept: &str) -> bool {
    accept.contains("text/plain") && !accept.contains("application/openmetrics-text")
}

/// Turns OpenMetrics text into the classic format.
pub(super) fn from_openmetrics(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            // The help line comes before the type line, but the name in the help line depends on
            // the type. So the help text is written when the type is known.
            (Some("#"), Some("HELP"), Some(_), text) => help = text.unwrap_or_default(),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    _ => ("", kind),
                };
                let _ = writeln!(classic, "# HELP {name}{suffix} {help}");
                let _ = writeln!(classic, "# TYPE {name}{suffix} {kind}");
            }
            (Some("#"), ..) => {}
            _ => {
                classic.push_str(line);
                classic.push('\n');
            }
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_infos_and_units_get_their_classic_form() {
        let text = "# HELP a_b Counts things.\n# TYPE a_b counter\na_b_total{x=\"y z\"} 1\n\
                    # HELP c_seconds Time.\n# TYPE c_seconds gauge\n# UNIT c_seconds seconds\n\
                    c_seconds 2.5\n# HELP d What it is.\n# TYPE d info\nd_info{v=\"1\"} 1\n# EOF\n";
        let classic = "# HELP a_b_total Counts things.\n# TYPE a_b_total counter\n\
                       a_b_total{x=\"y z\"} 1\n# HELP c_seconds Time.\n# TYPE c_seconds gauge\n\
                       c_seconds 2.5\n# HELP d_info What it is.\n# TYPE d_info gauge\n\
                       d_info{v=\"1\"} 1\n";
        assert_eq!(from_openmetrics(text), classic);
    }

    #[test]
    fn a_program_that_accepts_openmetrics_gets_openmetrics() {
        assert!(is_preferred("text/plain"));
        assert!(is_preferred("text/plain;version=0.0.4;q=0.5, */*;q=0.1"));
        assert!(!is_preferred("") && !is_preferred("*/*"));
        assert!(!is_preferred("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"));
    }
}
