//! The workspace: packages, features, dependencies, targets.
//!
//! All of this comes from `cargo metadata`, so this program has no list of crates or features.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::command;

/// The workspace and its packages.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory of the root manifest.
    pub(crate) root: PathBuf,
    /// The target directory of cargo.
    pub(crate) target: PathBuf,
    /// The members, in cargo's order.
    pub(crate) packages: Vec<Package>,
}

/// One package.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The manifest, relative to the root.
    pub(crate) manifest: String,
    /// False if the manifest says `publish = false`.
    pub(crate) is_published: bool,
    /// The names of the features, including `default`.
    pub(crate) features: Vec<String>,
    /// The names of the direct dependencies of every kind.
    pub(crate) dependencies: Vec<String>,
    /// The binaries.
    pub(crate) binaries: Vec<Binary>,
}

/// One binary target.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) name: String,
    pub(crate) source: PathBuf,
}

impl Workspace {
    /// Asks cargo about the workspace in which this program was built.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the directory of xtask has no parent")?;
        let metadata = metadata(root, &root.join("Cargo.toml"))?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata names no target directory")?;
        Ok(Self {
            root: root.to_owned(),
            target: target.into(),
            packages: packages(root, &metadata),
        })
    }

    /// A cargo command that runs at the root.
    pub(crate) fn cargo(&self, words: &[&str]) -> Command {
        command::command(&self.root, "cargo", words)
    }

    /// The packages of a manifest outside the workspace, such as `fuzz/Cargo.toml`. Empty if the
    /// manifest does not exist.
    pub(crate) fn outside(&self, manifest: &str) -> anyhow::Result<Vec<Package>> {
        let path = self.root.join(manifest);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let mut found = packages(&self.root, &metadata(&self.root, &path)?);
        found.retain(|package| package.manifest == manifest);
        Ok(found)
    }

    /// The names of the fuzz targets, as `fuzz/Cargo.toml` lists them.
    pub(crate) fn fuzz_targets(&self) -> anyhow::Result<Vec<Binary>> {
        Ok(self.outside("fuzz/Cargo.toml")?.into_iter().flat_map(|p| p.binaries).collect())
    }
}

fn metadata(root: &Path, manifest: &Path) -> anyhow::Result<Value> {
    let mut command =
        command::command(root, "cargo", &["metadata", "--format-version", "1", "--no-deps"]);
    command.arg("--manifest-path").arg(manifest);
    let text = command::output(&mut command)?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}

fn packages(root: &Path, metadata: &Value) -> Vec<Package> {
    list(&metadata["packages"]).map(|package| read_package(root, package)).collect()
}

fn read_package(root: &Path, package: &Value) -> Package {
    let manifest = Path::new(text(&package["manifest_path"]));
    let manifest = manifest.strip_prefix(root).unwrap_or(manifest);
    let features = package["features"].as_object();
    let is_binary = |target: &&Value| list(&target["kind"]).any(|kind| kind == "bin");
    Package {
        name: text(&package["name"]).to_owned(),
        version: text(&package["version"]).to_owned(),
        is_published: package["publish"].is_null(),
        manifest: manifest.to_string_lossy().into_owned(),
        features: features.into_iter().flat_map(|map| map.keys().cloned()).collect(),
        dependencies: list(&package["dependencies"]).map(|d| text(&d["name"]).into()).collect(),
        binaries: list(&package["targets"])
            .filter(is_binary)
            .map(|target| Binary {
                name: text(&target["name"]).to_owned(),
                source: text(&target["src_path"]).into(),
            })
            .collect(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtask_is_found_with_its_dependencies() {
        let workspace = Workspace::load().unwrap();
        let own = workspace.packages.iter().find(|package| package.name == "xtask").unwrap();
        assert_eq!(own.manifest, "xtask/Cargo.toml");
        assert!(!own.is_published);
        assert!(own.dependencies.iter().any(|name| name == "syn"));
        assert_eq!(own.binaries[0].name, "xtask");
    }

    #[test]
    fn the_library_is_published_and_has_features() {
        let workspace = Workspace::load().unwrap();
        let library = workspace.packages.iter().find(|p| p.name == "downlink").unwrap();
        assert!(library.features.iter().any(|name| name == "axum"));
        assert!(library.is_published && !library.version.is_empty());
    }

    #[test]
    fn a_missing_manifest_has_no_packages() {
        let workspace = Workspace::load().unwrap();
        assert!(workspace.outside("no-such-directory/Cargo.toml").unwrap().is_empty());
    }
}
