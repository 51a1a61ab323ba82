//! Checks the packages that a registry would get. They have to compile without this repository.
//!
//! A package contains only files from the folder of its manifest. If the code includes another
//! file, it compiles in this repository, but not in the package. `ci` unpacks the packages into a
//! separate workspace and documents them as docs.rs does, with dependencies that are already
//! compiled. `nightly` lets cargo verify each package, which compiles all dependencies again for
//! each package.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::command::{self, command};
use crate::steps::Outcome;
use crate::workspace::{Package, Workspace};

/// The files that each package has to contain.
const FILES: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// The library with the guide, and the folder of the chapters in its package.
const LIBRARY: &str = "downlink";
const GUIDE: &str = "guide";

/// The step `package` of `cargo xtask ci`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let packages = published(workspace);
    command::run(package(workspace, &packages).arg("--no-verify"))?;
    let folder = workspace.target.join("package/unpacked");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder)?;
    for package in &packages {
        let archive = workspace.target.join(format!("package/{}.crate", folder_name(package)));
        command::run(command(&folder, "tar", &["-xzf"]).arg(archive))?;
        for file in FILES {
            let path = folder.join(folder_name(package)).join(file);
            ensure!(path.is_file(), "{} has no {file}", package.name);
        }
    }
    let root = fs::read_to_string(workspace.root.join("Cargo.toml"))?;
    fs::write(folder.join("Cargo.toml"), manifest(&packages, &root))?;
    fs::copy(workspace.root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    document(workspace, &folder, &packages)?;
    Ok(Outcome::Passed)
}

/// The step `package` of `cargo xtask nightly`.
pub(crate) fn verify(workspace: &Workspace) -> anyhow::Result<Outcome> {
    command::run(&mut package(workspace, &published(workspace)))?;
    Ok(Outcome::Passed)
}

fn published(workspace: &Workspace) -> Vec<&Package> {
    workspace.packages.iter().filter(|package| package.is_published).collect()
}

/// The command that packages all packages together. The packages depend on each other, and no
/// registry has them. So cargo can find a dependency only among the packages of the same command.
/// The command also packages changes that are not committed, because `ci` checks these changes.
fn package(workspace: &Workspace, packages: &[&Package]) -> Command {
    let mut cargo = workspace.cargo(&["package", "--allow-dirty"]);
    cargo.args(packages.iter().map(|package| format!("-p={}", package.name)));
    cargo
}

/// Documents the unpacked libraries. The guide must have a page for each chapter.
fn document(workspace: &Workspace, folder: &Path, packages: &[&Package]) -> anyhow::Result<()> {
    let pages = workspace.target.join("doc").join(LIBRARY).join(GUIDE);
    if pages.exists() {
        fs::remove_dir_all(&pages)?;
    }
    let words = ["doc", "--workspace", "--lib", "--all-features", "--no-deps"];
    let mut cargo = command(folder, "cargo", &words);
    cargo.arg("--target-dir").arg(&workspace.target).env("RUSTDOCFLAGS", "-D warnings");
    command::run(&mut cargo)?;
    let library = packages.iter().find(|package| package.name == LIBRARY).context(LIBRARY)?;
    // The name of a chapter's file begins with a number. The documentation of a chapter is a
    // folder.
    let is_chapter = |path: &Path| path.file_name().is_some_and(begins_with_digit);
    let chapters = count(&folder.join(folder_name(library)).join(GUIDE), is_chapter)?;
    let documented = count(&pages, Path::is_dir)?;
    ensure!(
        chapters > 0 && documented == chapters,
        "the package has {chapters} chapters, but its documentation has {documented}: {}",
        pages.display()
    );
    Ok(())
}

fn begins_with_digit(name: &OsStr) -> bool {
    name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit)
}

/// The number of entries of a folder for which `is_counted` is true.
fn count(folder: &Path, is_counted: impl Fn(&Path) -> bool) -> anyhow::Result<usize> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().filter(|entry| is_counted(&entry.path())).count())
}

/// The name of a package's archive and of the folder in it.
fn folder_name(package: &Package) -> String {
    format!("{}-{}", package.name, package.version)
}

/// The manifest of a workspace with the unpacked packages. It has the same profiles as this
/// workspace, so cargo can use the compiled dependencies again.
fn manifest(packages: &[&Package], root: &str) -> String {
    let folders: Vec<String> = packages.iter().map(|package| folder_name(package)).collect();
    let patch = |package: &&Package| {
        format!("{} = {{ path = \"{}\" }}\n", package.name, folder_name(package))
    };
    let patches: String = packages.iter().map(patch).collect();
    let profiles = root.find("[profile.").map_or("", |from| &root[from..]);
    format!(
        "[workspace]\nresolver = \"3\"\nmembers = {folders:?}\n\n[patch.crates-io]\n{patches}\n{profiles}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_the_server_and_the_load_tool_are_published() {
        let workspace = Workspace::load().unwrap();
        let names: Vec<&str> = published(&workspace).iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), 10, "{names:?}");
        assert!(names.contains(&"downlink") && names.contains(&"downlink-server"));
        assert!(!names.contains(&"xtask"));
    }

    #[test]
    fn the_manifest_lists_the_unpacked_packages_and_keeps_the_profiles() {
        let workspace = Workspace::load().unwrap();
        let library = workspace.packages.iter().find(|p| p.name == "downlink-log").unwrap();
        let root = "[workspace]\n\n[profile.dev]\ndebug = false\n";
        let folder = folder_name(library);
        assert_eq!(
            manifest(&[library], root),
            format!(
                "[workspace]\nresolver = \"3\"\nmembers = [\"{folder}\"]\n\n[patch.crates-io]\n\
                 downlink-log = {{ path = \"{folder}\" }}\n\n[profile.dev]\ndebug = false\n"
            )
        );
    }
}
