//! The steps of `cargo xtask ci`, in order.
//!
//! The steps use the same target directory and the same flags, so each dependency is compiled once.
//! The loom tests are an exception: they need a different flag, and therefore a directory of their
//! own.

use crate::command;
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::{Package, Workspace};
use crate::{browser, cross, deploy, package, promtool, snippets, tidy};

/// All checks for a change.
pub(crate) fn steps(workspace: &Workspace) -> Vec<Step> {
    let mut steps = vec![
        Step::cargo("fmt", &["fmt", "--all", "--check"]),
        Step::cargo("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        Step::cargo(
            "clippy-all-features",
            &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"],
        ),
        Step::new("docs", docs),
        Step::new("tidy", tidy::check),
        Step::new("nginx", nginx),
        Step::new("faketime", faketime),
        Step::cargo("tests", &["test", "--workspace", "--all-features"]),
        Step::new("nats", nats),
    ];
    steps.extend(workspace.packages.iter().filter_map(features));
    steps.extend(cross::steps());
    steps.push(Step::new("package", package::check));
    steps.push(Step::new("loom", loom));
    steps.push(Step::new("deny", |workspace| deny(workspace, &["licenses", "bans", "sources"])));
    steps.push(Step::new("promtool", promtool::check));
    steps.extend(deploy::steps());
    steps.extend(browser::steps());
    steps.extend(snippets::steps());
    steps
}

fn docs(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["doc", "--workspace", "--all-features", "--no-deps", "--document-private-items"];
    command::run(workspace.cargo(&words).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Outcome::Passed)
}

/// Installs nginx for the tests of restarts. Without nginx, these tests skip themselves.
pub(crate) fn nginx(_: &Workspace) -> anyhow::Result<Outcome> {
    Ok(match setup::nginx() {
        Readiness::Ready => Outcome::Passed,
        Readiness::Missing(why) => {
            Outcome::Skipped(format!("restarts behind nginx not tested: {why}"))
        }
    })
}

/// Installs libfaketime for the tests of a wrong clock. Without libfaketime, these tests skip
/// themselves.
fn faketime(_: &Workspace) -> anyhow::Result<Outcome> {
    Ok(match setup::faketime() {
        Readiness::Ready => Outcome::Passed,
        Readiness::Missing(why) => Outcome::Skipped(format!("wrong clocks not tested: {why}")),
    })
}

/// The number of runs with random faults of servers and nodes. In `nightly` there are 300.
const FAULT_RUNS: &str = "20";

/// Runs the tests of `downlink-nats` and the tests of clusters with real servers. In the step `tests`
/// they skip themselves. The tests mostly wait for elections and heartbeats, so more of them run at
/// once than there are processors.
fn nats(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let server = match setup::nats_server(workspace) {
        Ok(server) => server,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    // One test makes a certificate.
    if let Readiness::Missing(why) = setup::program("openssl", "openssl") {
        return Ok(Outcome::Skipped(why));
    }
    let words = ["test", "-p", "downlink-nats", "--test", "jetstream", "--", "--test-threads=4"];
    command::run(workspace.cargo(&words).env("DOWNLINK_NATS_SERVER", &server))?;
    let words = ["test", "-p", "downlink", "--all-features", "--test", "cluster"];
    command::run(workspace.cargo(&words).env("DOWNLINK_NATS_SERVER", &server))?;
    let words = ["test", "-p", "downlink-server", "--all-features", "--test", "cluster"];
    let mut cluster = workspace.cargo(&words);
    cluster.env("DOWNLINK_NATS_SERVER", server).env("DOWNLINK_CLUSTER_RUNS", FAULT_RUNS);
    command::run(&mut cluster)?;
    Ok(Outcome::Passed)
}

/// Compiles a library without features, and once with each single feature. Warnings are errors. No
/// other check finds a feature that needs a second feature but does not enable it.
fn features(package: &Package) -> Option<Step> {
    if !package.manifest.starts_with("crates/") || package.features.is_empty() {
        return None;
    }
    let name = package.name.clone();
    let alone: Vec<String> =
        package.features.iter().filter(|feature| *feature != "default").cloned().collect();
    Some(Step::new(format!("features-{name}"), move |workspace| {
        let bare = ["clippy", "-p", &name, "--no-default-features"];
        let denied = ["--", "-D", "warnings"];
        command::run(workspace.cargo(&bare).args(denied))?;
        for feature in &alone {
            command::run(workspace.cargo(&bare).args(["--features", feature]).args(denied))?;
        }
        Ok(Outcome::Passed)
    }))
}

/// Runs the loom tests of `downlink-log`, the log of events. They try all interleavings of append,
/// wake and register.
pub(crate) fn loom(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let test = "crates/downlink-log/tests/loom.rs";
    if !workspace.root.join(test).exists() {
        return Ok(Outcome::Skipped(format!("there is no {test}")));
    }
    let words = ["test", "-p", "downlink-log", "--test", "loom", "--release"];
    command::run(
        workspace
            .cargo(&words)
            .env("RUSTFLAGS", "--cfg downlink_loom")
            .env("CARGO_TARGET_DIR", workspace.target.join("loom")),
    )?;
    Ok(Outcome::Passed)
}

/// Runs these checks of cargo-deny. The check `advisories` needs the network.
pub(crate) fn deny(workspace: &Workspace, checks: &[&str]) -> anyhow::Result<Outcome> {
    if !command::answers(&mut workspace.cargo(&["deny", "--version"])) {
        let why = "cargo-deny is not installed; `cargo xtask setup --all` installs it";
        return Ok(Outcome::Skipped(why.into()));
    }
    command::run(
        workspace
            .cargo(&["deny", "--all-features", "check", "--hide-inclusion-graph"])
            .args(checks),
    )?;
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_with_features_has_a_step() {
        let workspace = Workspace::load().unwrap();
        let names: Vec<String> = steps(&workspace).iter().map(|step| format!("{step:?}")).collect();
        assert!(names.iter().any(|name| name.contains("\"features-downlink\"")), "{names:?}");
        assert!(names.iter().any(|name| name.contains("\"features-downlink-proto\"")));
        assert!(!names.iter().any(|name| name.contains("features-xtask")));
    }
}
