//! The rule for the size of the crates: each crate has a budget of code lines.
//!
//! A code line contains more than white space and comments. Lines of test-only code and files
//! outside `src/` do not count. If a crate needs a larger budget, a decision record (a file in
//! `docs/adr`) gives the reason, and the limit in the table changes.

use std::fmt::Write as _;

use crate::tidy::comments;
use crate::tidy::source::Source;
use crate::tidy::{Finding, Rule};

/// The budgets. Each has a name, a maximum number of code lines, and the folders below `crates/`
/// that it covers. `tidy` prints the counts in this order.
const BUDGETS: &[(&str, usize, &[&str])] = &[
    ("downlink-proto", 1_100, &["downlink-proto"]),
    ("downlink-log", 9_220, &["downlink-log"]),
    ("downlink-sqlite", 2_980, &["downlink-sqlite"]),
    ("downlink-cluster", 3_450, &["downlink-cluster"]),
    ("downlink-nats", 1_800, &["downlink-nats"]),
    ("downlink: hub", 3_250, &["downlink/src/hub"]),
    ("downlink: http, adapters", 1_690, &["downlink/src/http", "downlink/src/adapters"]),
    ("downlink: serve", 3_850, &["downlink/src/serve"]),
    ("downlink: access", 700, &["downlink/src/access"]),
    ("downlink: relay", 990, &["downlink/src/relay"]),
    ("downlink", 11_450, &["downlink"]),
    ("downlink-client", 1_550, &["downlink-client"]),
    ("downlink-access", 2_800, &["downlink-access"]),
    ("downlink-server", 9_950, &["downlink-server"]),
    ("downlink-bench", 3_300, &["downlink-bench"]),
    ("the five libraries", 26_250, LIBRARIES),
];

const LIBRARIES: &[&str] =
    &["downlink-proto", "downlink-log", "downlink-sqlite", "downlink", "downlink-client"];

/// The number of code lines in the folders of a budget.
#[derive(Debug)]
pub(super) struct Count {
    name: &'static str,
    /// The first folder of the budget, relative to the root.
    path: String,
    lines: usize,
    lines_max: usize,
}

/// Counts the code lines of every budget that has sources.
pub(super) fn counts(sources: &[Source]) -> Vec<Count> {
    let is_counted = |source: &&Source| source.path.contains("/src/");
    let files: Vec<(&str, usize)> = { sources.iter().filter(is_counted) }
        .map(|source| (source.path.as_str(), code_lines(source)))
        .collect();
    BUDGETS.iter().filter_map(|budget| count(&files, *budget)).collect()
}

/// Returns a finding for each exceeded budget.
pub(super) fn check(counts: &[Count]) -> Vec<Finding> {
    counts.iter().filter(|count| count.lines > count.lines_max).map(Count::finding).collect()
}

/// The counts as a table.
pub(super) fn table(counts: &[Count]) -> String {
    let mut table = format!("{:26}{:>7}{:>8}\n", "code lines", "now", "budget");
    for Count { name, lines, lines_max, .. } in counts {
        let mark = if lines > lines_max { "  above" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(table, "{name:26}{lines:>7}{lines_max:>8}{mark}");
    }
    table
}

/// The count of one budget. `None` if its folders have no sources.
fn count(
    files: &[(&str, usize)],
    (name, lines_max, folders): (&'static str, usize, &[&str]),
) -> Option<Count> {
    let folders: Vec<String> = folders.iter().map(|folder| format!("crates/{folder}/")).collect();
    let is_covered = |path: &str| folders.iter().any(|folder| path.starts_with(folder));
    let mut covered = files.iter().filter(|(path, _)| is_covered(path)).peekable();
    covered.peek()?;
    let lines = covered.map(|(_, lines)| lines).sum();
    Some(Count { name, path: folders.first()?.clone(), lines, lines_max })
}

/// The code lines of one file.
fn code_lines(source: &Source) -> usize {
    let lines = comments::code_lines(&source.text);
    lines.into_iter().filter(|line| !source.is_test_line(*line)).count()
}

impl Count {
    fn finding(&self) -> Finding {
        let Self { name, path, lines, lines_max } = self;
        let advice = format!(
            "{name} has {lines} code lines, at most {lines_max}: remove some, or change the \
             budget with a decision record"
        );
        Finding { path: path.clone(), line: 1, rule: Rule::Budget, subject: (*name).into(), advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, lines: usize) -> Source {
        Source::new(path, &"const _: () = ();\n".repeat(lines))
    }

    /// The exceeded budgets.
    fn exceeded(sources: &[Source]) -> Vec<String> {
        check(&counts(sources)).into_iter().map(|finding| finding.subject).collect()
    }

    #[test]
    fn comments_blank_lines_and_tests_are_not_code_lines() {
        let text = "//! A file.\n\n/// A function.\nfn f() { // Nothing.\n}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
        assert_eq!(code_lines(&Source::new("crates/downlink/src/a.rs", text)), 2);
        assert_eq!(code_lines(&Source::new("crates/downlink/src/tests/a.rs", text)), 0);
    }

    #[test]
    fn a_budget_is_exceeded_only_above_its_maximum() {
        let path = "crates/downlink-proto/src/a.rs";
        assert_eq!(exceeded(&[file(path, 1_099)]), [""; 0]);
        assert_eq!(exceeded(&[file(path, 1_100)]), [""; 0]);
        assert_eq!(exceeded(&[file(path, 1_101)]), ["downlink-proto"]);
    }

    #[test]
    fn files_outside_src_do_not_count() {
        let folders = ["tests", "benches", "examples"];
        let paths = folders.map(|folder| format!("crates/downlink-proto/{folder}/a.rs"));
        assert_eq!(counts(&paths.map(|path| file(&path, 2_000))).len(), 0);
    }

    #[test]
    fn the_folders_of_a_budget_are_counted_together() {
        let sources = [
            file("crates/downlink/src/adapters/a.rs", 880),
            file("crates/downlink/src/http/a.rs", 811),
        ];
        assert_eq!(exceeded(&sources), ["downlink: http, adapters"]);
    }

    #[test]
    fn the_libraries_share_a_budget() {
        let sources = [
            file("crates/downlink-client/src/a.rs", 1_300),
            file("crates/downlink-log/src/a.rs", 9_100),
            file("crates/downlink-proto/src/a.rs", 1_000),
            file("crates/downlink-sqlite/src/a.rs", 2_940),
            file("crates/downlink/src/lib.rs", 12_000),
        ];
        assert_eq!(exceeded(&sources), ["downlink", "the five libraries"]);
        assert_eq!(exceeded(&sources[..4]), [""; 0]);
    }

    #[test]
    fn the_table_has_no_row_for_a_budget_without_sources() {
        let max = |of: &str| BUDGETS.iter().find(|(name, ..)| *name == of).unwrap().1;
        let (log, libraries) = (max("downlink-log"), max("the five libraries"));
        let lines = log + 1;
        let counts = counts(&[file("crates/downlink-log/src/a.rs", lines)]);
        let table = table(&counts);
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1], format!("downlink-log {lines:>20}{log:>8}  above"));
        assert_eq!(rows[2], format!("the five libraries {lines:>14}{libraries:>8}"));
    }
}
