//! The results of a cell's rounds as a Markdown table: the values, their median, the bar and the
//! verdict. A cell is one measurement, and a bar is the limit for the median.
//!
//! The table also shows how busy the load tool was, and which flaws the runs had. A figure may be
//! wrong if events were lost or if the load tool was too busy.

use std::fmt::Write as _;

use serde_json::Value;

use super::round::{is_flawed, remarks};

/// A figure of a run: the label of the run, and the JSON pointer of the figure in the run's report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure(pub(super) &'static str, pub(super) &'static str);

/// A row in the table of a cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    title: &'static str,
    over: Figure,
    under: Option<Figure>,
    bar: Option<Bar>,
}

/// The limit for the median.
#[derive(Clone, Copy, Debug)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    /// A figure without a ratio.
    pub(super) const fn value(title: &'static str, label: &'static str, at: &'static str) -> Self {
        Self { title, over: Figure(label, at), under: None, bar: None }
    }

    /// The ratio of two figures from the same round.
    pub(super) const fn ratio(title: &'static str, over: Figure, under: Figure) -> Self {
        Self { title, over, under: Some(under), bar: None }
    }

    pub(super) const fn at_most(self, most: f64) -> Self {
        Self { bar: Some(Bar::AtMost(most)), ..self }
    }

    pub(super) const fn at_least(self, least: f64) -> Self {
        Self { bar: Some(Bar::AtLeast(least)), ..self }
    }

    /// True if the row has a bar.
    pub(super) const fn is_judged(&self) -> bool {
        self.bar.is_some()
    }

    fn of(&self, round: &Reports) -> Option<f64> {
        let over = round.figure(self.over)?;
        let Some(under) = self.under else { return Some(over) };
        let under = round.figure(under)?;
        (under > 0.0).then_some(over / under)
    }
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {}", number(most)),
            Self::AtLeast(least) => format!("≥ {}", number(least)),
        }
    }
}

/// The reports of a round by label, and the load of the machine before the round.
#[derive(Debug)]
pub(super) struct Reports {
    pub(super) load_before: Option<f64>,
    pub(super) runs: Vec<(String, Value)>,
}

impl Reports {
    fn figure(&self, Figure(label, at): Figure) -> Option<f64> {
        let (_, report) = self.runs.iter().find(|(name, _)| name == label)?;
        report.pointer(at)?.as_f64()
    }
}

/// The result of a cell.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) text: String,
    /// The number of missed bars. All flawed runs of our server together count as one more missed
    /// bar.
    pub(super) missed: usize,
}

/// Makes the table and the remarks about the runs.
pub(super) fn judge(rows: &[Row], rounds: &[Reports]) -> Judged {
    let mut judged = Judged { text: String::new(), missed: 0 };
    judged.head(rounds.len());
    judged.line("load average before", rounds.iter().map(|round| round.load_before), None);
    for row in rows {
        judged.line(row.title, rounds.iter().map(|round| row.of(round)), row.bar);
    }
    judged.tool(rounds);
    judged.text.push('\n');
    judged.remarks(rounds);
    judged
}

impl Judged {
    fn head(&mut self, rounds: usize) {
        self.text.push_str("| |");
        for round in 1..=rounds {
            let _ = write!(self.text, " round {round} |");
        }
        self.text.push_str(" median | bar | verdict |\n|---|");
        self.text.push_str(&"---:|".repeat(rounds + 2));
        self.text.push_str("---|\n");
    }

    fn line(&mut self, title: &str, values: impl Iterator<Item = Option<f64>>, bar: Option<Bar>) {
        let values: Vec<Option<f64>> = values.collect();
        let median = median(values.iter().copied().flatten());
        let cells: Vec<String> = values.into_iter().map(shown).collect();
        let verdict = match (bar, median) {
            (Some(bar), Some(median)) if bar.holds(median) => "pass",
            (Some(_), Some(_)) => "**FAIL**",
            (Some(_), None) => "not measured",
            (None, _) => "",
        };
        self.missed += usize::from(verdict == "**FAIL**" || verdict == "not measured");
        let bar = bar.map(Bar::shown).unwrap_or_default();
        let (cells, median) = (cells.join(" | "), shown(median));
        let _ = writeln!(self.text, "| {title} | {cells} | {median} | {bar} | {verdict} |");
    }

    /// Adds a row for each label with the share of time in which the load tool was busy.
    fn tool(&mut self, rounds: &[Reports]) {
        let Some(first) = rounds.first() else { return };
        for (label, _) in &first.runs {
            let busy = |round: &Reports| {
                let (_, report) = round.runs.iter().find(|(name, _)| name == label)?;
                Some(report.pointer("/generator_busy_share")?.as_f64()? * 100.0)
            };
            let shares: Vec<Option<f64>> = rounds.iter().map(busy).collect();
            if shares.iter().any(Option::is_some) {
                let title = format!("load tool busy with {label}, %");
                self.line(&title, shares.into_iter(), None);
            }
        }
    }

    fn remarks(&mut self, rounds: &[Reports]) {
        let mut flawed = 0;
        for (number, round) in (1..).zip(rounds) {
            for (label, report) in &round.runs {
                flawed += usize::from(label.starts_with("downlink") && is_flawed(report));
                let remarks = remarks(report);
                if !remarks.is_empty() {
                    let _ = writeln!(self.text, "- {label}, round {number}{remarks}");
                }
            }
        }
        if flawed > 0 {
            let _ = writeln!(self.text, "- accounts: **FAIL** in {flawed} of our runs\n");
            self.missed += 1;
        } else {
            self.text.push_str(
                "- accounts: pass, our server delivered every event once and in order\n\n",
            );
        }
    }
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

/// Formats a number with a few significant digits.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size == 0.0 || size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The middle value, or the mean of the middle two. `None` without values.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SPEED: &str = "/speed";

    fn round(ours: f64, theirs: f64) -> Reports {
        let report = |speed: f64| json!({ "speed": speed, "flawless": true });
        let runs = vec![("downlink".to_owned(), report(ours)), ("axum".to_owned(), report(theirs))];
        Reports { load_before: Some(0.25), runs }
    }

    const RATIO: Row = Row::ratio("ratio", Figure("downlink", SPEED), Figure("axum", SPEED));

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_the_middle_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_ratio_uses_figures_of_the_same_round() {
        let rounds = [round(10.0, 5.0), round(90.0, 9.0), round(8.0, 1.0)];
        let judged = judge(&[RATIO], &rounds);
        let row = "| ratio | 2.00 | 10.00 | 8.00 | 8.00 |  |  |\n";
        assert!(judged.text.contains(row), "{}", judged.text);
        assert_eq!(judged.missed, 0);
    }

    #[test]
    fn a_figure_at_its_bar_passes_and_a_figure_beyond_its_bar_fails() {
        let missed = |row: Row| judge(&[row], &[round(10.0, 5.0)]).missed;
        assert_eq!(missed(RATIO.at_most(2.0)), 0);
        assert_eq!(missed(RATIO.at_most(1.99)), 1);
        assert_eq!(missed(RATIO.at_least(2.0)), 0);
        assert_eq!(missed(RATIO.at_least(2.01)), 1);
    }

    #[test]
    fn a_missing_figure_does_not_pass_its_bar() {
        let judged =
            judge(&[Row::value("x", "downlink", "/gone").at_most(1.0)], &[round(1.0, 1.0)]);
        assert_eq!(judged.missed, 1);
        assert!(judged.text.contains("| x | – | – | ≤ 1.00 | not measured |"), "{}", judged.text);
    }

    #[test]
    fn the_table_shows_how_busy_the_load_tool_was() {
        let mut round = round(1.0, 1.0);
        round.runs.truncate(1);
        round.runs[0].1["generator_busy_share"] = json!(0.5);
        let judged = judge(&[], &[round]);
        let row = "| load tool busy with downlink, % | 50.00 | 50.00 |  |  |\n";
        assert!(judged.text.contains(row), "{}", judged.text);
    }

    #[test]
    fn only_flaws_of_our_server_are_a_failure_but_all_flaws_are_named() {
        let with = |label: &str| {
            let mut round = round(1.0, 1.0);
            let lossy = json!({ "flawless": false, "lost": 3 });
            round.runs.iter_mut().find(|(name, _)| name == label).unwrap().1 = lossy;
            judge(&[], &[round])
        };
        let theirs = with("axum");
        assert!(theirs.text.contains("- axum, round 1; flawed: 3 lost\n"), "{}", theirs.text);
        assert_eq!(theirs.missed, 0);
        let ours = with("downlink");
        assert!(ours.text.contains("accounts: **FAIL** in 1 of our runs"), "{}", ours.text);
        assert_eq!(ours.missed, 1);
    }
}
