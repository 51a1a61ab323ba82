//! The steps of `cargo xtask nightly`, which take too long or need the network.

use crate::command::{self, command};
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::Workspace;
use crate::{browser, ci, package};

/// How long each torture test runs. In `ci` each test uses its own default.
const TORTURE_SECONDS: &str = "60";

/// The runs of each kind: some five minutes.
const POWER_CUTS: &str = "300";

/// The programs of publishers and readers over a store that evicts: some five minutes.
const REPLAYS: &str = "1000";

/// The programs on which the log and its model must agree: about an hour.
const MODEL_PROGRAMS: &str = "200000";

/// How often a server is killed while it works. In `ci` it is a few times.
const CRASH_ROUNDS: &str = "50";

/// The subscribers of servers that are restarted. In `ci` it is a tenth.
const RESTART_CLIENTS: &str = "1000";

/// This finds a browser check that fails once in three runs. More rounds would find little more.
const BROWSER_ROUNDS: usize = 3;

/// The steps; each fuzz target runs for `seconds`.
pub(crate) fn steps(workspace: &Workspace, seconds: u64) -> anyhow::Result<Vec<Step>> {
    let mut steps = vec![
        Step::new("nginx", ci::nginx),
        Step::new("torture", torture),
        Step::new("model", model),
        Step::new("power-cut", power_cut),
        Step::new("replay", replay),
        Step::new("loom", ci::loom),
        Step::new("package", package::verify),
    ];
    for target in workspace.fuzz_targets()? {
        let name = format!("fuzz-{}", target.name);
        steps.push(Step::new(name, move |workspace| fuzz(workspace, &target.name, seconds)));
    }
    for _ in 0..BROWSER_ROUNDS {
        steps.extend(browser::steps());
    }
    steps.push(Step::new("proxies-long", browser::long_proxies));
    steps.push(Step::new("advisories", advisories));
    Ok(steps)
}

/// Compares the log with its model, which keeps every event and searches all of them.
fn model(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "-p", "downlink-log", "--test", "model"];
    command::run(workspace.cargo(&words).env("PROPTEST_CASES", MODEL_PROGRAMS))?;
    Ok(Outcome::Passed)
}

/// Cuts the power of a store many times, with a new seed each time.
fn power_cut(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "-p", "downlink-sqlite", "--test", "powercut"];
    let seed = std::process::id().to_string();
    let mut command = workspace.cargo(&words);
    command.env("DOWNLINK_POWERCUT_RUNS", POWER_CUTS).env("DOWNLINK_POWERCUT_SEED", seed);
    command::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// Replays while publishers publish, with a new seed each time.
fn replay(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "-p", "downlink-log", "--test", "replay"];
    let seed = std::process::id().to_string();
    let mut command = workspace.cargo(&words);
    command.env("DOWNLINK_REPLAY_RUNS", REPLAYS).env("DOWNLINK_REPLAY_SEED", seed);
    command::run(&mut command)?;
    Ok(Outcome::Passed)
}

fn torture(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "--workspace", "--all-features", "--release", "--tests", "torture"];
    let mut torture = workspace.cargo(&words);
    torture.env("DOWNLINK_TORTURE_SECONDS", TORTURE_SECONDS);
    torture.env("DOWNLINK_CRASH_ROUNDS", CRASH_ROUNDS);
    command::run(torture.env("DOWNLINK_RESTART_CLIENTS", RESTART_CLIENTS))?;
    Ok(Outcome::Passed)
}

fn fuzz(workspace: &Workspace, target: &str, seconds: u64) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = setup::fuzzing(workspace) {
        return Ok(Outcome::Skipped(why));
    }
    let limit = format!("-max_total_time={seconds}");
    let words = ["run", "nightly", "cargo", "fuzz", "run", target, "--", &limit];
    command::run(&mut command(&workspace.root, "rustup", &words))?;
    Ok(Outcome::Passed)
}

/// Checks for known vulnerabilities. The list comes from the network.
fn advisories(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = setup::cargo_tool(workspace, "deny") {
        return Ok(Outcome::Skipped(why));
    }
    let mut fetch = workspace.cargo(&["deny", "fetch", "db"]);
    if let Err(error) = command::run(&mut fetch) {
        return Ok(Outcome::Skipped(format!("the advisories are out of reach: {error:#}")));
    }
    ci::deny(workspace, &["advisories"])
}
