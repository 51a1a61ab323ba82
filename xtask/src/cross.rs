//! Compiles the crates for systems on which the tests do not run. Warnings are errors.
//!
//! The crates are compiled with Clippy. Clippy does not link, so no compiled C code is needed. The
//! build scripts of SQLite, mimalloc and TLS libraries get a C compiler that does nothing. This
//! step does not run tests, since they need the system itself.

use crate::command;
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::Workspace;

/// A system, and the packages and features that are compiled for it.
#[derive(Debug)]
struct System {
    target: &'static str,
    words: &'static [&'static str],
}

const SYSTEMS: [System; 2] = [
    // All packages, including their tests. The code does not depend on the processor of a Mac, so
    // one kind of Mac is enough.
    System {
        target: "aarch64-apple-darwin",
        words: &["--workspace", "--all-targets", "--all-features"],
    },
    // Only the libraries. The server, its load tool and many tests need a Unix system.
    System {
        target: "x86_64-pc-windows-gnu",
        words: &[
            "-p=downlink-proto",
            "-p=downlink-log",
            "-p=downlink-cluster",
            "-p=downlink-sqlite",
            "-p=downlink-nats",
            "-p=downlink",
            "-p=downlink-client",
            "--all-features",
        ],
    },
];

/// One step per system.
pub(crate) fn steps() -> impl Iterator<Item = Step> {
    SYSTEMS.iter().map(|system| {
        Step::new(format!("cross-{}", system.target), |workspace| check(workspace, system))
    })
}

fn check(workspace: &Workspace, system: &System) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = setup::rust_target(workspace, system.target) {
        return Ok(Outcome::Skipped(why));
    }
    let mut clippy = workspace.cargo(&["clippy", "--target", system.target]);
    clippy.args(system.words).args(["--", "-D", "warnings"]);
    for (name, value) in no_c_compiler(system.target) {
        clippy.env(name, value);
    }
    command::run(&mut clippy)?;
    Ok(Outcome::Passed)
}

/// Environment variables that set the C compiler for this target to a program that does nothing.
/// Build scripts for the host keep their compiler.
fn no_c_compiler(target: &str) -> [(String, &'static str); 3] {
    let target = target.replace('-', "_");
    ["CC", "CXX", "AR"].map(|tool| (format!("{tool}_{target}"), "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_target_gets_a_c_compiler_that_does_nothing() {
        let names = no_c_compiler("aarch64-apple-darwin").map(|(name, _)| name);
        let expected =
            ["CC_aarch64_apple_darwin", "CXX_aarch64_apple_darwin", "AR_aarch64_apple_darwin"];
        assert_eq!(names, expected);
    }
}
