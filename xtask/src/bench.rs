//! `cargo xtask bench`: builds and runs the packages in `bench/` whose binaries are named `bench-*`.
//!
//! What is measured, and how, is said by each of them; nothing is measured here.

use std::fs;

use crate::command;
use crate::steps::{self, Choice, Outcome, Step, Verdict};
use crate::workspace::Workspace;

/// Runs all of them, or one, or lists them.
pub(crate) fn run(workspace: &Workspace, choice: &Choice) -> anyhow::Result<Verdict> {
    let steps = find(workspace)?;
    if steps.is_empty() {
        println!("nothing to measure: no bench/*/Cargo.toml with a binary named bench-*");
        return Ok(Verdict::Good);
    }
    steps::run(&steps, choice, workspace)
}

fn find(workspace: &Workspace) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for manifest in manifests(workspace)? {
        let packages = workspace.outside(&manifest)?;
        let binaries = packages.into_iter().flat_map(|package| package.binaries);
        for binary in binaries.filter(|binary| binary.name.starts_with("bench-")) {
            let manifest = manifest.clone();
            steps.push(Step::new(binary.name.clone(), move |workspace| {
                let words = ["run", "--release", "--manifest-path", &manifest, "--bin"];
                command::run(workspace.cargo(&words).arg(&binary.name))?;
                Ok(Outcome::Passed)
            }));
        }
    }
    Ok(steps)
}

/// The manifests in `bench/`, sorted.
fn manifests(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let folder = workspace.root.join("bench");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            found.push(format!("bench/{}/Cargo.toml", entry.file_name().to_string_lossy()));
        }
    }
    found.sort();
    Ok(found)
}
