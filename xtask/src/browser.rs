//! Starts the checks of `tests/browser`: real browsers and foreign clients against the real server.
//!
//! There is one step per engine. A machine without Firefox reports that by name and runs the
//! others.

use std::path::{Path, PathBuf};

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

/// Builds the binaries, then one step per engine.
pub(crate) fn steps() -> Vec<Step> {
    let mut steps = vec![Step::new("binaries", build)];
    steps.extend(ENGINES.iter().map(|engine| {
        Step::new(format!("with-{}", engine.name), move |workspace| run(workspace, engine))
    }));
    steps
}

/// Uses the flags of the step `tests`, so that after it nothing is left to compile.
fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let words = ["build", "--workspace", "--all-features", "--bins", "--tests"];
    command::run(&mut workspace.cargo(&words))?;
    Ok(Outcome::Passed)
}

fn run(workspace: &Workspace, engine: &Engine) -> anyhow::Result<Outcome> {
    for readiness in [setup::node(workspace), (engine.ready)(workspace)] {
        if let Readiness::Missing(why) = readiness {
            return Ok(Outcome::Skipped(why));
        }
    }
    let binaries = workspace.target.join("debug");
    let folder = folder(&workspace.root);
    command::run(
        command::command(&folder, "node", &["run.mjs", "--engine", engine.name])
            .env("DOWNLINK_BIN", binaries.join("downlink"))
            .env("DOWNLINK_BIN_DIR", &binaries)
            .env("DOWNLINK_PYTHON", setup::virtual_python(workspace)),
    )?;
    Ok(Outcome::Passed)
}

/// The node package with the checks.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("tests/browser")
}
