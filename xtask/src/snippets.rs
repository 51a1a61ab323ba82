//! Runs the snippets of `deploy/snippets` in small apps, against the real server.
//!
//! Each framework has a step of `cargo xtask ci`, which installs the framework if it is missing.
//! The apps and the checks are in `tests/snippets`. If a framework cannot be installed, its step is
//! reported as skipped. One more step runs the commands of the guide.

use std::path::PathBuf;

use crate::command;
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::Workspace;

/// A framework: the name of its app in `tests/snippets`, and a function that installs the
/// framework. The guide is not a framework, but is treated like one.
#[derive(Debug)]
struct Framework {
    name: &'static str,
    ready: fn(&Workspace) -> Readiness,
}

const FRAMEWORKS: [Framework; 6] = [
    Framework { name: "django", ready: python },
    Framework { name: "fastapi", ready: python },
    Framework {
        name: "node",
        ready: |workspace| setup::node_packages(&folder(workspace).join("node")),
    },
    Framework { name: "rails", ready: |_| rails() },
    Framework { name: "laravel", ready: |_| laravel() },
    // The commands of the guide.
    Framework { name: "guide", ready: |_| setup::program("curl", "curl") },
];

/// A step for each framework. The step `binaries` builds the server before them.
pub(crate) fn steps() -> Vec<Step> {
    let step = |framework: &'static Framework| {
        let name = format!("snippet-{}", framework.name);
        Step::new(name, move |workspace| run(workspace, framework))
    };
    FRAMEWORKS.iter().map(step).collect()
}

/// For `cargo xtask setup`: each framework, and whether it is ready.
pub(crate) fn frameworks(
    workspace: &Workspace,
) -> impl Iterator<Item = (&'static str, Readiness)> + '_ {
    FRAMEWORKS.iter().map(|framework| (framework.name, (framework.ready)(workspace)))
}

fn run(workspace: &Workspace, framework: &Framework) -> anyhow::Result<Outcome> {
    // The checks themselves run in Node.
    for readiness in [setup::program("node", "nodejs"), (framework.ready)(workspace)] {
        if let Readiness::Missing(why) = readiness {
            return Ok(Outcome::Skipped(why));
        }
    }
    let words = ["run.mjs", framework.name];
    command::run(
        command::command(&folder(workspace), "node", &words)
            .env("DOWNLINK_BIN", workspace.target.join("debug/downlink"))
            .env("DOWNLINK_PYTHON", python_home(workspace).join("bin/python")),
    )?;
    Ok(Outcome::Passed)
}

fn python(workspace: &Workspace) -> Readiness {
    let wanted = folder(workspace).join("python/requirements.txt");
    setup::python_packages(&wanted, &python_home(workspace))
}

/// Rails from Debian, with only the parts that the app uses.
fn rails() -> Readiness {
    let find = ["ruby", "-e", "require \"rails\"; require \"action_controller/railtie\""];
    setup::libraries(&find, &["ruby-railties", "puma"]).and_then(|| setup::program("puma", "puma"))
}

/// Laravel from Debian, with the HTTP client that Laravel uses.
fn laravel() -> Readiness {
    let find =
        ["php", "-r", "require \"Illuminate/autoload.php\"; require \"GuzzleHttp/autoload.php\";"];
    let packages = ["php-cli", "php-curl", "php-guzzlehttp-guzzle", "php-laravel-framework"];
    setup::libraries(&find, &packages)
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("tests/snippets")
}

fn python_home(workspace: &Workspace) -> PathBuf {
    workspace.target.join("snippets-python")
}
