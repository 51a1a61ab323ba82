//! The project's own rules: `cargo xtask tidy`, also run as a test.
//!
//! A rule reads sources or manifests and returns findings, and never prints. The table in
//! `allow.rs` has all exceptions with their reasons. An unused exception is a finding too.

mod allow;
mod budget;
mod comments;
mod cycles;
mod file_names;
mod files;
mod functions;
mod imports;
mod layers;
mod manifests;
mod modules;
mod names;
mod prose;
mod quotes;
mod references;
mod sans_io;
mod source;
mod test_code;
mod token_paths;
mod tokens;

use std::fmt;

use anyhow::bail;

use crate::steps::{Outcome, Verdict};
use crate::tidy::budget::Count;
use crate::tidy::prose::Prose;
use crate::tidy::source::Source;
use crate::workspace::Workspace;

/// A place that breaks a rule.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Finding {
    /// The file, relative to the root, with `/`.
    path: String,
    /// The line, counted from 1.
    line: usize,
    rule: Rule,
    /// The function, name or other thing that breaks the rule. An exception has the same subject.
    subject: String,
    /// The problem, and how to correct it.
    advice: String,
}

/// The rules, named as they are printed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Rule {
    AdrStatus,
    Budget,
    CommentedOutCode,
    Cycles,
    Dependencies,
    FileHeader,
    FileLength,
    FileNames,
    FunctionLength,
    FuzzTargets,
    Layers,
    Msrv,
    Names,
    Nesting,
    NotAllowed,
    Prose,
    Quotes,
    SansIo,
    Syntax,
    UnfinishedWork,
    UnusedException,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdrStatus => "adr-status",
            Self::Budget => "budget",
            Self::CommentedOutCode => "commented-out-code",
            Self::Cycles => "cycles",
            Self::Dependencies => "dependencies",
            Self::FileHeader => "file-header",
            Self::FileLength => "file-length",
            Self::FileNames => "file-names",
            Self::FunctionLength => "function-length",
            Self::FuzzTargets => "fuzz-targets",
            Self::Layers => "layers",
            Self::Msrv => "msrv",
            Self::Names => "names",
            Self::Nesting => "nesting",
            Self::NotAllowed => "not-allowed",
            Self::Prose => "prose",
            Self::Quotes => "quotes",
            Self::SansIo => "sans-io",
            Self::Syntax => "syntax",
            Self::UnfinishedWork => "unfinished-work",
            Self::UnusedException => "unused-exception",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.advice)
    }
}

/// The result of all rules.
#[derive(Debug)]
struct Report {
    /// Sorted by path and line.
    findings: Vec<Finding>,
    counts: Vec<Count>,
    prose: Prose,
}

/// `cargo xtask tidy`.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Verdict> {
    let Report { findings, counts, prose } = report(workspace)?;
    findings.iter().for_each(|finding| println!("{finding}"));
    println!("tidy: {} findings\n\n{}\n{prose}", findings.len(), budget::table(&counts));
    Ok(if findings.is_empty() { Verdict::Good } else { Verdict::Bad })
}

/// The step `tidy` of `cargo xtask ci`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    match run(workspace)? {
        Verdict::Good => Ok(Outcome::Passed),
        Verdict::Bad => {
            bail!("the findings above break rules; `cargo xtask tidy` prints them again")
        }
    }
}

/// Applies all rules.
fn report(workspace: &Workspace) -> anyhow::Result<Report> {
    let sources = source::load_all(&workspace.root)?;
    let mut findings: Vec<Finding> = sources.iter().flat_map(check_source).collect();
    findings.extend(manifests::check(workspace)?);
    findings.extend(quotes::check(&workspace.root)?);
    findings.extend(file_names::check(&workspace.root)?);
    let prose = prose::read(&workspace.root)?;
    findings.extend(prose.check());
    let crates = imports::crates(&sources);
    findings.extend(layers::check(&crates));
    findings.extend(crates.iter().flat_map(cycles::check));
    let counts = budget::counts(&sources);
    findings.extend(budget::check(&counts));
    let mut findings = allow::apply(allow::EXCEPTIONS, findings);
    findings.sort();
    Ok(Report { findings, counts, prose })
}

/// Applies all rules for a single source file.
fn check_source(source: &Source) -> Vec<Finding> {
    let rules = [
        files::check,
        functions::check,
        names::check,
        tokens::check,
        comments::check,
        sans_io::check,
    ];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_tidy() {
        let findings = report(&Workspace::load().unwrap()).unwrap().findings;
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
    }

    #[test]
    fn a_finding_is_printed_like_a_compiler_message() {
        let source = Source::new("crates/x/src/a.rs", "fn f() {}\n");
        let found = check_source(&source);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("crates/x/src/a.rs:1: file-header: "));
    }
}
