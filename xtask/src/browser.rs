//! Starts the checks of `tests/browser`, which connect real browsers and clients of other projects
//! to the real server.
//!
//! The checks are steps of `cargo xtask`. Each engine (a client of another project, such as a
//! browser) has a step. Each reverse proxy has a step that installs the proxy. If a program such as
//! Firefox or Caddy is missing, its step is reported as skipped, and all other steps run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::Workspace;

/// A client of another project that reads event streams, and the function that installs this
/// client.
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

/// The arguments for the long version of the proxy checks: the engines and the checks. Other checks
/// have no long version.
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

/// The steps that build the binaries and install the proxies, and one step for each engine.
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

/// Builds the binaries. The step `tests` uses the same flags, so it has already compiled everything
/// if it ran before.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["build", "--workspace", "--all-features", "--bins", "--tests"];
    command::run(&mut workspace.cargo(&words))?;
    Ok(Outcome::Passed)
}

/// Installs a proxy. If that fails, the checks run behind the other proxies.
fn install(proxy: &Proxy) -> Outcome {
    match setup::program(proxy.program, proxy.package) {
        Readiness::Ready => Outcome::Passed,
        Readiness::Missing(why) => Outcome::Skipped(format!("no checks behind this proxy: {why}")),
    }
}

/// For `cargo xtask setup`: each proxy, and whether it is ready.
pub(crate) fn proxies() -> impl Iterator<Item = (&'static str, Readiness)> {
    PROXIES.iter().map(|proxy| (proxy.name, setup::program(proxy.program, proxy.package)))
}

/// Restarts the server many times behind each proxy, and keeps streams silent for longer than the
/// idle limits in `deploy/proxies`.
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

/// The command that runs the checks behind all installed proxies. If a proxy is missing, its own
/// step reports the reason.
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
