//! Draws the distribution of latency as an SVG. The horizontal axis is the share of deliveries. It
//! is stretched at its right end, so that the slowest deliveries are visible.
//!
//! The SVG needs no script, font or style sheet, so every viewer can show it. The colours have
//! medium brightness, so they are legible on white and on black.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// The size of the picture, and the position of the chart in it.
const SIZE: (f64, f64) = (720.0, 400.0);
const FIELD: Field = Field { left: 80.0, right: 690.0, top: 50.0, bottom: 340.0 };
/// The number of points of the curve: one every few pixels.
const POINTS: u32 = 150;
/// A grey that is legible on white and on black: its contrast to both is above 4.
const TEXT: &str = "#7d7d7d";
const GRID: &str = "#7d7d7d";
const CURVE: &str = "#2f81f7";

#[derive(Clone, Copy)]
struct Field {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// The scales of both axes.
struct Scales {
    /// The right end of the horizontal axis, as a number of nines. With 3, the axis ends at 99.9 %
    /// of the deliveries.
    nines: f64,
    /// The latencies at the lower and the upper end of the chart, as exponents: 3 stands for 10^3
    /// nanoseconds.
    low: f64,
    high: f64,
}

impl Scales {
    fn new(latency_ns: &Histogram<u64>) -> Self {
        let nines = (latency_ns.len().max(10) as f64).log10().floor().clamp(1.0, 7.0);
        let low = (latency_ns.min().max(1) as f64).log10().floor();
        let high = (latency_ns.max().max(1) as f64).log10().ceil().max(low + 1.0);
        Self { nines, low, high }
    }

    /// The horizontal position of a share of the deliveries. The share contains all deliveries
    /// except the slowest one of every `10^rarity`. With the rarity 2, the share is 99 %.
    fn x(&self, rarity: f64) -> f64 {
        FIELD.left + (FIELD.right - FIELD.left) * rarity / self.nines
    }

    fn y(&self, ns: f64) -> f64 {
        let share = (ns.max(1.0).log10() - self.low) / (self.high - self.low);
        FIELD.bottom - (FIELD.bottom - FIELD.top) * share
    }
}

/// Returns the picture.
pub(super) fn svg(latency_ns: &Histogram<u64>, title: &str) -> String {
    let scales = Scales::new(latency_ns);
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"{TEXT}\">\n<title>{0}</title>\n\
         <text x=\"{1}\" y=\"28\" font-size=\"15\">{0}</text>\n",
        escape(title),
        FIELD.left,
    );
    shares(&mut svg, &scales);
    latencies(&mut svg, &scales);
    curve(&mut svg, &scales, latency_ns);
    svg.push_str("</svg>\n");
    svg
}

/// The vertical lines: 0 %, 90 %, 99 % and so on.
fn shares(svg: &mut String, scales: &Scales) {
    for nines in 0..=scales.nines as usize {
        let x = scales.x(nines as f64);
        line(svg, (x, FIELD.top), (x, FIELD.bottom));
        let name = match nines {
            0 => "0 %".to_owned(),
            1 => "90 %".to_owned(),
            2 => "99 %".to_owned(),
            more => format!("99.{} %", "9".repeat(more - 2)),
        };
        text(svg, (x, FIELD.bottom + 20.0), "middle", &name);
    }
    let middle = f64::midpoint(FIELD.left, FIELD.right);
    text(svg, (middle, FIELD.bottom + 44.0), "middle", "share of deliveries that were as fast");
}

/// The horizontal lines: powers of ten.
fn latencies(svg: &mut String, scales: &Scales) {
    for power in scales.low as i32..=scales.high as i32 {
        let ns = 10f64.powi(power);
        let y = scales.y(ns);
        line(svg, (FIELD.left, y), (FIELD.right, y));
        text(svg, (FIELD.left - 8.0, y + 4.0), "end", &time(ns));
    }
}

fn curve(svg: &mut String, scales: &Scales, latency_ns: &Histogram<u64>) {
    let mut points = String::new();
    for point in 0..=POINTS {
        let rarity = scales.nines * f64::from(point) / f64::from(POINTS);
        let ns = latency_ns.value_at_quantile(1.0 - 10f64.powf(-rarity)) as f64;
        // Writing to a string does not fail.
        let _ = write!(points, "{:.1},{:.1} ", scales.x(rarity), scales.y(ns));
    }
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{CURVE}\" stroke-width=\"2.5\"/>",
        points.trim_end()
    );
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{GRID}\" \
         stroke-opacity=\"0.35\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let (x, y, text) = (at.0, at.1, escape(text));
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// Formats a number of nanoseconds in s, ms, µs or ns. The number is a power of ten.
fn time(ns: f64) -> String {
    match ns {
        ns if ns >= 1e9 => format!("{} s", ns / 1e9),
        ns if ns >= 1e6 => format!("{} ms", ns / 1e6),
        ns if ns >= 1e3 => format!("{} µs", ns / 1e3),
        ns => format!("{ns} ns"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        histogram
    }

    #[test]
    fn the_curve_rises_from_the_minimum_to_the_maximum() {
        let values: Vec<u64> = (1..1_000).map(|n| n * 1_000).collect();
        let svg = svg(&histogram(&values), "a & b < c");
        assert!(svg.contains("<title>a &amp; b &lt; c</title>"), "{svg}");
        for name in ["0 %", "90 %", "99 %", "1 µs", "1 ms"] {
            assert!(svg.contains(&format!(">{name}</text>")), "{name} is not in {svg}");
        }
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let heights: Vec<f64> = points
            .split(' ')
            .map(|point| point.split_once(',').unwrap().1.parse().unwrap())
            .collect();
        assert!(heights.is_sorted_by(|left, right| left >= right), "{points}");
        assert_eq!(heights[0], FIELD.bottom);
        assert!(heights[heights.len() - 1] < FIELD.top + 1.0, "{points}");
    }

    #[test]
    fn the_picture_of_an_empty_histogram_is_valid() {
        let svg = svg(&histogram(&[]), "nothing");
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
