//! The steps of `cargo xtask nightly`, which take too long for `ci` or need the network.

use crate::command::{self, command};
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::Workspace;
use crate::{browser, ci, dist, package, schemathesis};

/// The duration of each torture test in seconds. A torture test drops connections, stalls readers
/// or restarts servers under load. In `ci` each test uses its own default.
const TORTURE_SECONDS: &str = "60";

/// The number of runs for each kind of power cut. All runs together take about five minutes.
const POWER_CUTS: &str = "300";

/// The number of random tests in which readers replay from a store while events are published and
/// evicted. All of them together take about five minutes.
const REPLAYS: &str = "1000";

/// The number of simulated runs of a cluster. All of them together take about five minutes.
const CLUSTER_RUNS: &str = "10000";

/// The number of runs with random faults of NATS servers and nodes. All of them together take about
/// 40 minutes.
const FAULT_RUNS: &str = "300";

/// For how many seconds the engine of a cluster is away, and a node is paused. In `ci` it is 20.
const AWAY_SECONDS: &str = "300";

/// The number of random sequences of operations in the step `model`, which compares the log of
/// events with a simple model. All sequences together take about an hour.
const MODEL_PROGRAMS: &str = "200000";

/// How many times a server is killed while it works. In `ci` it is killed a few times.
const CRASH_ROUNDS: &str = "50";

/// The number of subscribers of the servers that are restarted. In `ci` there are a tenth as many.
const RESTART_CLIENTS: &str = "1000";

/// The number of readers that hop between an upstream and its relays. In `ci` there are 40.
const RELAY_CLIENTS: &str = "200";

/// The number of readers that hop between the nodes of a cluster. In `ci` there are 40.
const CLUSTER_CLIENTS: &str = "200";

/// How many times the browser checks run. If a check fails in one of three runs, three rounds find
/// it with a probability of 70 %.
const BROWSER_ROUNDS: usize = 3;

/// The steps. Each fuzz target runs for `seconds`.
pub(crate) fn steps(workspace: &Workspace, seconds: u64) -> anyhow::Result<Vec<Step>> {
    let mut steps = vec![
        Step::new("nginx", ci::nginx),
        Step::new("torture", torture),
        Step::new("model", model),
        Step::new("power-cut", power_cut),
        Step::new("replay", replay),
        Step::new("cluster", cluster),
        Step::new("cluster-faults", cluster_faults),
        Step::new("loom", ci::loom),
        Step::new("package", package::verify),
        Step::new("dist", dist::check),
        Step::new("schemathesis", schemathesis::check),
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

/// Compares the log of events with a simple model, which keeps every event and searches all of
/// them.
fn model(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "-p", "downlink-log", "--test", "model"];
    command::run(workspace.cargo(&words).env("PROPTEST_CASES", MODEL_PROGRAMS))?;
    Ok(Outcome::Passed)
}

/// Simulates many power cuts of a store. Each night has a new seed.
fn power_cut(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "-p", "downlink-sqlite", "--test", "powercut"];
    let seed = std::process::id().to_string();
    let mut command = workspace.cargo(&words);
    command.env("DOWNLINK_POWERCUT_RUNS", POWER_CUTS).env("DOWNLINK_POWERCUT_SEED", seed);
    command::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// Replays while events are published. Each night has a new seed.
fn replay(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "-p", "downlink-log", "--test", "replay"];
    let seed = std::process::id().to_string();
    let mut command = workspace.cargo(&words);
    command.env("DOWNLINK_REPLAY_RUNS", REPLAYS).env("DOWNLINK_REPLAY_SEED", seed);
    command::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// Simulates clusters whose engine (which puts the entries of all nodes in one order) fails. Each
/// night has new seeds.
fn cluster(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "--release", "-p", "downlink-cluster", "--test", "simulation"];
    let seed = std::process::id().to_string();
    let mut command = workspace.cargo(&words);
    command.env("DOWNLINK_CLUSTER_RUNS", CLUSTER_RUNS).env("DOWNLINK_CLUSTER_SEED", seed);
    command::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// Runs nodes over real NATS servers, and lets both fail. Each night has new seeds.
fn cluster_faults(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let server = match setup::nats_server(workspace) {
        Ok(server) => server,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    let words = ["test", "--release", "-p", "downlink-server", "--all-features", "--test"];
    let mut command = workspace.cargo(&words);
    command.args(["cluster", "--", "--nocapture"]).env("DOWNLINK_NATS_SERVER", server);
    command.env("DOWNLINK_CLUSTER_RUNS", FAULT_RUNS);
    command.env("DOWNLINK_CLUSTER_AWAY_SECONDS", AWAY_SECONDS);
    command::run(&mut command)?;
    Ok(Outcome::Passed)
}

fn torture(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["test", "--workspace", "--all-features", "--release", "--tests", "torture"];
    let mut torture = workspace.cargo(&words);
    torture.env("DOWNLINK_TORTURE_SECONDS", TORTURE_SECONDS);
    torture.env("DOWNLINK_CRASH_ROUNDS", CRASH_ROUNDS);
    torture.env("DOWNLINK_RELAY_CLIENTS", RELAY_CLIENTS);
    torture.env("DOWNLINK_CLUSTER_CLIENTS", CLUSTER_CLIENTS);
    // Without this program, the torture test of a cluster skips itself.
    if let Ok(server) = setup::nats_server(workspace) {
        torture.env("DOWNLINK_NATS_SERVER", server);
    }
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

/// Checks the dependencies for known vulnerabilities. The list of vulnerabilities comes from the
/// network.
fn advisories(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = setup::cargo_tool(workspace, "deny") {
        return Ok(Outcome::Skipped(why));
    }
    let mut fetch = workspace.cargo(&["deny", "fetch", "db"]);
    if let Err(error) = command::run(&mut fetch) {
        return Ok(Outcome::Skipped(format!("cannot fetch the advisories: {error:#}")));
    }
    ci::deny(workspace, &["advisories"])
}
