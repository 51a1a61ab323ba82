//! Rules for files other than Rust sources: dependencies, the list of fuzz targets, decision
//! records, and the minimum Rust version.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::tidy::{Finding, Rule};
use crate::workspace::{Package, Workspace};

/// The server. No package may depend on it.
const PROGRAM: &str = "downlink-server";
/// Crates that use no clock, no sockets and no tasks.
const SANS_IO: [&str; 4] =
    ["downlink-proto", "downlink-log", "downlink-cluster", "downlink-access"];
/// Crates with clocks, sockets or tasks. Each name also stands for the names that begin with it and
/// a hyphen. For example, `tokio` also stands for `tokio-util`.
const IO: [&str; 12] = [
    "actix", "async", "axum", "futures", "http", "hyper", "mio", "reqwest", "rustix", "socket2",
    "tokio", "tower",
];

pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings: Vec<Finding> = workspace.packages.iter().flat_map(dependencies).collect();
    for package in &workspace.packages {
        let path = workspace.root.join(&package.manifest);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        findings.extend(msrv(&package.manifest, &text));
    }
    findings.extend(fuzz_targets(workspace)?);
    findings.extend(decision_records(&workspace.root)?);
    Ok(findings)
}

fn finding(path: &str, rule: Rule, subject: &str, advice: String) -> Finding {
    Finding { path: path.to_owned(), line: 1, rule, subject: subject.to_owned(), advice }
}

fn dependencies(package: &Package) -> Vec<Finding> {
    let advice = |name: &String| match name {
        name if name == PROGRAM => {
            Some(format!("no package may depend on {PROGRAM}: move the code into the library"))
        }
        name if SANS_IO.contains(&package.name.as_str()) && is_io(name) => {
            Some(format!("{} is sans-IO, so it must not depend on {name}", package.name))
        }
        _ => None,
    };
    package
        .dependencies
        .iter()
        .filter_map(|name| {
            Some(finding(&package.manifest, Rule::Dependencies, name, advice(name)?))
        })
        .collect()
}

/// Only the root manifest may contain the minimum Rust version.
fn msrv(manifest: &str, text: &str) -> Option<Finding> {
    let inherited = |line: &str| line.replace(' ', "") == "rust-version.workspace=true";
    let advice = "write `rust-version.workspace = true`: the version is stated in one place only";
    let missing = !text.lines().any(inherited);
    missing.then(|| finding(manifest, Rule::Msrv, "rust-version", advice.to_owned()))
}

fn is_io(name: &str) -> bool {
    IO.iter().any(|io| {
        name.strip_prefix(io).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// Checks that `fuzz/Cargo.toml` lists every fuzz target, because `nightly` runs only the listed
/// targets.
fn fuzz_targets(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let listed: Vec<_> =
        workspace.fuzz_targets()?.into_iter().map(|target| target.source).collect();
    let files = files(&workspace.root.join("fuzz/fuzz_targets"), ".rs")?;
    let missing = files.iter().filter(|name| {
        !listed.iter().any(|source| source.ends_with(Path::new("fuzz_targets").join(name)))
    });
    Ok(missing
        .map(|name| {
            let path = format!("fuzz/fuzz_targets/{name}");
            let advice =
                "add a [[bin]] for it to fuzz/Cargo.toml: `nightly` runs only listed fuzz targets"
                    .to_owned();
            finding(&path, Rule::FuzzTargets, name, advice)
        })
        .collect())
}

/// A decision record is a file in `docs/adr` whose name begins with its number.
fn decision_records(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let folder = root.join("docs/adr");
    let mut findings = Vec::new();
    for name in files(&folder, ".md")? {
        let path = folder.join(&name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if name.starts_with(|c: char| c.is_ascii_digit()) && !has_status(&text) {
            let advice = "add a line `Status: proposed|accepted|superseded by …`".to_owned();
            findings.push(finding(&format!("docs/adr/{name}"), Rule::AdrStatus, &name, advice));
        }
    }
    Ok(findings)
}

/// True if a line contains the status. The line may be bold or part of a list.
fn has_status(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start_matches(['-', '*', ' ']).replace("**", "");
        line.strip_prefix("Status:").is_some_and(|status| !status.trim().is_empty())
    })
}

/// The sorted names in a folder that end with `end`. Empty if the folder does not exist.
fn files(folder: &Path, end: &str) -> anyhow::Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(end) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.into(),
            version: "0.1.0".into(),
            is_published: true,
            manifest: format!("crates/{name}/Cargo.toml"),
            features: Vec::new(),
            dependencies: dependencies.iter().map(ToString::to_string).collect(),
            binaries: Vec::new(),
        }
    }

    /// The directory of one test. Dropping this value removes the directory.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let id = std::process::id();
            let path = std::env::temp_dir().join(format!("xtask-{name}-{id}"));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_dependency_on_the_program_is_found() {
        let found = dependencies(&package("downlink", &["bytes", "downlink-server"]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].subject, "downlink-server");
    }

    #[test]
    fn an_io_dependency_of_a_sans_io_crate_is_found() {
        let names = ["tokio", "tokio-util", "http-body", "memchr", "httparse"];
        let found = dependencies(&package("downlink-proto", &names));
        let subjects: Vec<_> = found.iter().map(|finding| finding.subject.as_str()).collect();
        assert_eq!(subjects, ["tokio", "tokio-util", "http-body"]);
        assert!(dependencies(&package("downlink", &names)).is_empty());
    }

    #[test]
    fn a_manifest_without_an_inherited_rust_version_is_found() {
        assert_eq!(msrv("a", "[package]\nrust-version.workspace = true\n"), None);
        assert!(msrv("a", "[package]\nrust-version = \"1.95\"\n").is_some());
        assert!(msrv("a", "[package]\n").is_some());
    }

    #[test]
    fn a_decision_record_without_status_is_found() {
        let folder = Folder::new("adr");
        folder.write("docs/adr/0001-ids.md", "# Ids\n\nStatus: accepted\n");
        folder.write("docs/adr/0002-gaps.md", "# Gaps\n\n- **Status:** accepted\n");
        folder.write("docs/adr/0003-lag.md", "# Lag\n\nStatus:\n");
        folder.write("docs/adr/README.md", "# Index\n");
        let found = decision_records(&folder.0).unwrap();
        let paths: Vec<_> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["docs/adr/0003-lag.md"]);
    }

    #[test]
    fn a_fuzz_target_that_is_not_listed_is_found() {
        let folder = Folder::new("fuzz");
        let listed = "[[bin]]\nname = \"decode\"\npath = \"fuzz_targets/decode.rs\"\n";
        let package = "[package]\nname = \"fuzz\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";
        folder.write("fuzz/Cargo.toml", &format!("{package}{listed}[workspace]\n"));
        folder.write("fuzz/fuzz_targets/decode.rs", "fn main() {}\n");
        folder.write("fuzz/fuzz_targets/encode.rs", "fn main() {}\n");
        let root = folder.0.clone();
        let workspace = Workspace { root, target: PathBuf::new(), packages: Vec::new() };
        let found = fuzz_targets(&workspace).unwrap();
        let paths: Vec<_> = found.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["fuzz/fuzz_targets/encode.rs"]);
    }
}
