//! Compiles the crates for systems that no test runs on, with warnings denied.
//!
//! Clippy links nothing, so the build scripts of C libraries get a compiler that does nothing. This
//! way the crates over SQLite, mimalloc and TLS are compiled too. Not here: tests, which need the
//! system itself.

use crate::command;
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::Workspace;

/// A system, and the packages and features that it has.
#[derive(Debug)]
struct System {
    target: &'static str,
    words: &'static [&'static str],
}

const SYSTEMS: [System; 2] = [
    // Everything, the tests included. The two processors of macOS differ in nothing here.
    System {
        target: "aarch64-apple-darwin",
        words: &["--workspace", "--all-targets", "--all-features"],
    },
    // The libraries. The server and its load tool need a Unix system, and so do many tests.
    System {
        target: "x86_64-pc-windows-gnu",
        words: &[
            "-p=downlink-proto",
            "-p=downlink-log",
            "-p=downlink-sqlite",
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

/// Variables by which the build scripts for this target "compile" C code without any output. Those
/// for the host keep their compiler.
fn no_c_compiler(target: &str) -> [(String, &'static str); 3] {
    let target = target.replace('-', "_");
    ["CC", "CXX", "AR"].map(|tool| (format!("{tool}_{target}"), "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_for_the_target_has_no_c_compiler() {
        let names = no_c_compiler("aarch64-apple-darwin").map(|(name, _)| name);
        let expected =
            ["CC_aarch64_apple_darwin", "CXX_aarch64_apple_darwin", "AR_aarch64_apple_darwin"];
        assert_eq!(names, expected);
    }
}
