//! Rules for whole files: a file parses, has a header, and is not too long.

use crate::tidy::source::{Source, line_of};
use crate::tidy::{Finding, Rule};

/// The maximum number of lines of a file, including its tests. Longer files usually have more than
/// one purpose.
const LINES_MAX: usize = 700;
/// The maximum number of lines of an adapter for a framework, without its tests. Longer adapters
/// contain code that belongs in other modules.
const ADAPTER_LINES_MAX: usize = 300;
const ADAPTERS: &str = "crates/downlink/src/adapters/";

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = &source.tree {
        let advice = format!("the file does not parse: {error}");
        findings.push(source.finding(line_of(error.span()), Rule::Syntax, "file", advice));
    }
    if !source.text.starts_with("//!") {
        let advice = "begin the file with `//!`: say its purpose, its guarantees and its limits";
        findings.push(source.finding(1, Rule::FileHeader, "file", advice));
    }
    findings.extend(length(source));
    findings
}

fn length(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    let code = (1..=lines).filter(|line| !source.is_test_line(*line)).count();
    let is_adapter = source.path.starts_with(ADAPTERS);
    let (counted, max, what) = match () {
        () if is_adapter && code > ADAPTER_LINES_MAX => {
            (code, ADAPTER_LINES_MAX, "lines without tests")
        }
        () if lines > LINES_MAX => (lines, LINES_MAX, "lines"),
        () => return None,
    };
    let advice = format!(
        "{counted} {what}, at most {max}: move a part that owns its own data to another file"
    );
    Some(source.finding(1, Rule::FileLength, "file", advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<Rule> {
        check(&Source::new(path, text)).into_iter().map(|finding| finding.rule).collect()
    }

    fn file(code: usize, tests: usize) -> String {
        let code = "const _: () = ();\n".repeat(code - 1);
        let tests = match tests {
            0 => String::new(),
            n => format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// Fact.\n".repeat(n - 3)),
        };
        format!("//! A file.\n{code}{tests}")
    }

    #[test]
    fn a_file_without_header_is_found() {
        assert_eq!(rules("a.rs", "\n//! Too late.\n"), [Rule::FileHeader]);
        assert_eq!(rules("a.rs", "//! In time.\n"), []);
    }

    #[test]
    fn a_file_that_does_not_parse_is_found() {
        assert_eq!(rules("a.rs", "//! A file.\nfn f( {}\n"), [Rule::Syntax]);
    }

    #[test]
    fn only_a_file_above_the_maximum_length_is_a_finding() {
        assert_eq!(rules("src/a.rs", &file(699, 0)), []);
        assert_eq!(rules("src/a.rs", &file(700, 0)), []);
        assert_eq!(rules("src/a.rs", &file(701, 0)), [Rule::FileLength]);
        assert_eq!(rules("tests/a.rs", &file(700, 0)), []);
        assert_eq!(rules("tests/a.rs", &file(701, 0)), [Rule::FileLength]);
    }

    #[test]
    fn tests_count_towards_the_length_of_a_file() {
        assert_eq!(rules("src/a.rs", &file(400, 300)), []);
        assert_eq!(rules("src/a.rs", &file(400, 301)), [Rule::FileLength]);
    }

    #[test]
    fn adapters_have_a_smaller_limit_without_their_tests() {
        let path = "crates/downlink/src/adapters/axum.rs";
        assert_eq!(rules(path, &file(300, 0)), []);
        assert_eq!(rules(path, &file(300, 400)), []);
        assert_eq!(rules(path, &file(301, 0)), [Rule::FileLength]);
        assert_eq!(rules(path, &file(300, 401)), [Rule::FileLength]);
    }
}
