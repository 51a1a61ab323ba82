//! Starts the checks of `tests/browser`: real browsers and foreign clients against the real server.
//!
//! There is one step per engine, and one that installs each reverse proxy. A machine without
//! Firefox or Caddy reports that by name and runs the others.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::Workspace;

/// A foreign reader of event streams, and a function that installs it.
#[derive(Debug)]
struct Engine {
    name: &'static str,
    ready: fn(&Workspace) -> Readiness,
}

const ENGINES: [Engine; 5] = [
    Engine { name: "chromium", ready: |_| setup::program("chromium", "chromium") },
    Engine { name: "firefox", ready: |_| setup::program("firefox-esr", "firefox-esr") },
    Engine { name: "node", ready: |_| Readiness::Ready },
    Engine { name: "python", ready: setup::python },
    Engine { name: "curl", ready: |_| setup::program("curl", "curl") },
];

/// A reverse proxy, by its name in `tests/browser`.
#[derive(Debug)]
struct Proxy {
    name: &'static str,
    program: &'static str,
    package: &'static str,
}

const PROXIES: [Proxy; 4] = [
    Proxy { name: "nginx", program: "nginx", package: "nginx-light" },
    Proxy { name: "haproxy", program: "haproxy", package: "haproxy" },
    Proxy { name: "apache", program: "apache2", package: "apache2-bin" },
    Proxy { name: "caddy", program: "caddy", package: "caddy" },
];

/// The engines and the checks of the long run behind proxies. The other checks have no long
/// version.
const LONG_PROXY_RUN: [&str; 10] = [
    "--engine",
    "node",
    "--engine",
    "chromium",
    "--engine",
    "firefox",
    "--check",
    "proxy-idle",
    "--check",
    "proxy-restart",
];

/// Builds the binaries and installs the proxies, then one step per engine.
pub(crate) fn steps() -> Vec<Step> {
    let mut steps = vec![Step::new("binaries", build)];
    steps.extend(
        PROXIES
            .iter()
            .map(|proxy| Step::new(format!("proxy-{}", proxy.name), |_| Ok(install(proxy)))),
    );
    steps.extend(ENGINES.iter().map(|engine| {
        Step::new(format!("with-{}", engine.name), move |workspace| run(workspace, engine))
    }));
    steps
}

/// Uses the flags of the step `tests`, so that after it nothing is left to compile.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["build", "--workspace", "--all-features", "--bins", "--tests"];
    command::run(&mut workspace.cargo(&words))?;
    Ok(Outcome::Passed)
}

/// Installs a proxy. Without it, the checks run behind the other proxies.
fn install(proxy: &Proxy) -> Outcome {
    match setup::program(proxy.program, proxy.package) {
        Readiness::Ready => Outcome::Passed,
        Readiness::Missing(why) => Outcome::Skipped(format!("no checks behind it: {why}")),
    }
}

/// For `cargo xtask setup`: each proxy, and whether it is ready.
pub(crate) fn proxies() -> impl Iterator<Item = (&'static str, Readiness)> {
    PROXIES.iter().map(|proxy| (proxy.name, setup::program(proxy.program, proxy.package)))
}

/// Restarts behind the proxies, again and again, and streams that are silent for longer than the
/// idle limits of the shipped files.
pub(crate) fn long_proxies(workspace: &Workspace) -> anyhow::Result<Outcome> {
    for engine in ENGINES.iter().filter(|engine| LONG_PROXY_RUN.contains(&engine.name)) {
        if let Readiness::Missing(why) = (engine.ready)(workspace) {
            return Ok(Outcome::Skipped(why));
        }
    }
    if let Readiness::Missing(why) = setup::node(workspace) {
        return Ok(Outcome::Skipped(why));
    }
    command::run(checks(workspace).args(LONG_PROXY_RUN).env("DOWNLINK_PROXY_LONG", "1"))?;
    Ok(Outcome::Passed)
}

fn run(workspace: &Workspace, engine: &Engine) -> anyhow::Result<Outcome> {
    for readiness in [setup::node(workspace), (engine.ready)(workspace)] {
        if let Readiness::Missing(why) = readiness {
            return Ok(Outcome::Skipped(why));
        }
    }
    command::run(checks(workspace).args(["--engine", engine.name]))?;
    Ok(Outcome::Passed)
}

/// The runner of the checks. It leaves out the proxies that are not installed: their own steps
/// report them.
fn checks(workspace: &Workspace) -> Command {
    let binaries = workspace.target.join("debug");
    let proxies: Vec<&str> = PROXIES
        .iter()
        .filter(|proxy| setup::on_path(proxy.program))
        .map(|proxy| proxy.name)
        .collect();
    let mut command = command::command(&folder(&workspace.root), "node", &["run.mjs"]);
    command
        .env("DOWNLINK_BIN", binaries.join("downlink"))
        .env("DOWNLINK_BIN_DIR", &binaries)
        .env("DOWNLINK_PYTHON", setup::virtual_python(workspace))
        .env("DOWNLINK_PROXIES", proxies.join(","));
    command
}

/// The node package with the checks.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("tests/browser")
}
