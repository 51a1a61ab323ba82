//! Runs a list of named steps in order, and prints a summary.
//!
//! The first failure ends the run. The summary names each step that did not run, and the reason, so
//! such a step cannot look like a passed step.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::workspace::Workspace;

/// The result of a step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Passed,
    /// The step could not run on this machine. The text is the reason.
    Skipped(String),
}

/// The result of a whole run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Good,
    Bad,
}

/// The steps to run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Choice {
    All,
    Only(String),
    /// No step. Only the names are printed.
    List,
}

type Work = Box<dyn Fn(&Workspace) -> anyhow::Result<Outcome>>;

/// A named step of a run.
pub(crate) struct Step {
    name: String,
    work: Work,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Step {
    pub(crate) fn new(
        name: impl Into<String>,
        work: impl Fn(&Workspace) -> anyhow::Result<Outcome> + 'static,
    ) -> Self {
        Self { name: name.into(), work: Box::new(work) }
    }

    /// A step that runs one cargo command.
    pub(crate) fn cargo(name: &str, words: &'static [&'static str]) -> Self {
        Self::new(name, |workspace| {
            crate::command::run(&mut workspace.cargo(words))?;
            Ok(Outcome::Passed)
        })
    }
}

/// Runs the chosen steps, and prints a headline for each and a final summary.
///
/// # Errors
///
/// If the choice names an unknown step.
pub(crate) fn run(
    steps: &[Step],
    choice: &Choice,
    workspace: &Workspace,
) -> anyhow::Result<Verdict> {
    let chosen: Vec<&Step> = match choice {
        Choice::All => steps.iter().collect(),
        Choice::List => {
            steps.iter().for_each(|step| println!("{}", step.name));
            return Ok(Verdict::Good);
        }
        Choice::Only(name) => steps.iter().filter(|step| step.name == *name).collect(),
    };
    if let (Choice::Only(name), true) = (choice, chosen.is_empty()) {
        bail!("there is no step `{name}`; --list prints all steps");
    }
    let summary = run_in_order(&chosen, workspace);
    print!("{summary}");
    Ok(summary.verdict())
}

fn run_in_order(steps: &[&Step], workspace: &Workspace) -> Summary {
    let mut summary = Summary::default();
    let started = Instant::now();
    for (position, step) in steps.iter().enumerate() {
        println!("\n=== {} ({} of {})", step.name, position + 1, steps.len());
        let step_started = Instant::now();
        let result = (step.work)(workspace);
        let took = step_started.elapsed();
        match result {
            Ok(Outcome::Passed) => {
                println!("=== {}: passed in {}", step.name, seconds(took));
                summary.passed += 1;
            }
            Ok(Outcome::Skipped(why)) => {
                println!("=== {}: skipped in {} ({why})", step.name, seconds(took));
                summary.skipped.push((step.name.clone(), why));
            }
            Err(error) => {
                println!("=== {}: FAILED in {}\n{error:#}", step.name, seconds(took));
                summary.failed.push((step.name.clone(), format!("{error:#}")));
                let rest = &steps[position + 1..];
                let why = format!("not reached: {} failed", step.name);
                summary.skipped.extend(rest.iter().map(|step| (step.name.clone(), why.clone())));
                break;
            }
        }
    }
    summary.took = started.elapsed();
    summary
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The results of a run.
#[derive(Debug, Default)]
struct Summary {
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
    took: Duration,
}

impl Summary {
    fn verdict(&self) -> Verdict {
        if self.failed.is_empty() { Verdict::Good } else { Verdict::Bad }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n=== summary after {}", seconds(self.took))?;
        for (name, why) in &self.skipped {
            writeln!(f, "skipped: {name} ({why})")?;
        }
        for (name, why) in &self.failed {
            writeln!(f, "failed: {name} ({why})")?;
        }
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        writeln!(f, "{} passed, {failed} failed, {skipped} skipped", self.passed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::anyhow;

    use super::*;

    fn nowhere() -> Workspace {
        Workspace { root: PathBuf::new(), target: PathBuf::new(), packages: Vec::new() }
    }

    fn steps() -> Vec<Step> {
        vec![
            Step::new("good", |_| Ok(Outcome::Passed)),
            Step::new("absent", |_| Ok(Outcome::Skipped("no tool".into()))),
            Step::new("bad", |_| Err(anyhow!("exit status: 1: false"))),
            Step::new("never", |_| unreachable!("a step after a failure does not run")),
        ]
    }

    #[test]
    fn the_first_failure_ends_the_run_and_the_summary_names_all_other_steps() {
        let steps = steps();
        let summary = run_in_order(&steps.iter().collect::<Vec<_>>(), &nowhere());
        assert_eq!(summary.verdict(), Verdict::Bad);
        let text = summary.to_string();
        assert!(text.contains("skipped: absent (no tool)\n"), "{text}");
        assert!(text.contains("skipped: never (not reached: bad failed)\n"), "{text}");
        assert!(text.contains("failed: bad (exit status: 1: false)\n"), "{text}");
        assert!(text.ends_with("\n1 passed, 1 failed, 2 skipped\n"), "{text}");
    }

    #[test]
    fn one_step_can_be_chosen() {
        let verdict = run(&steps(), &Choice::Only("absent".into()), &nowhere()).unwrap();
        assert_eq!(verdict, Verdict::Good);
    }

    #[test]
    fn an_unknown_step_is_refused_and_the_list_runs_nothing() {
        assert!(run(&steps(), &Choice::Only("godo".into()), &nowhere()).is_err());
        assert_eq!(run(&steps(), &Choice::List, &nowhere()).unwrap(), Verdict::Good);
    }
}
