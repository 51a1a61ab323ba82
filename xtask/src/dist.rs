//! `cargo xtask dist`: the archive for a Linux machine, with a program that needs no libraries of
//! the system.
//!
//! The program is linked statically against musl. The archive also contains the files of `deploy`
//! that an operator installs, and the licences of everything in the program. The step of `nightly`
//! installs the archive into an empty folder, and runs the server there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::command::{self, command};
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Verdict};
use crate::workspace::Workspace;

const TARGET: &str = "x86_64-unknown-linux-musl";

/// The name of the system in the name of the archive.
const SYSTEM: &str = "x86_64-linux-musl";

/// The maximum size of the program without symbols. A larger program is a sign of a dependency that
/// is not worth its size, or of settings that no longer apply: the levels of optimisation in
/// `Cargo.toml`, or the C code that `.cargo/config.toml` leaves out.
const PROGRAM_BYTES_MAX: u64 = 15_500_000;

/// The files and folders of the archive, besides the program and the licences of its parts.
const CONTENTS: [&str; 10] = [
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "CHANGELOG.md",
    "deploy/cluster",
    "deploy/grafana",
    "deploy/prometheus",
    "deploy/proxies",
    "deploy/relays",
    "deploy/systemd",
];

/// The file with the licences of the libraries in the program.
const LICENCES: &str = "THIRD-PARTY-LICENSES.txt";

/// The certificates that the system trusts, in Debian and in the image of the Dockerfile.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How long the installed server may take to become ready. It takes less than a second.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The command: makes the archive.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Verdict> {
    Ok(match archive(workspace)? {
        Ok(archive) => {
            println!("{}", archive.display());
            Verdict::Good
        }
        Err(why) => {
            println!("missing: {why}");
            Verdict::Bad
        }
    })
}

/// The step of `nightly`: makes the archive, installs it and runs it.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    match archive(workspace)? {
        Ok(archive) => try_out(&archive).map(|()| Outcome::Passed),
        Err(why) => Ok(Outcome::Skipped(why)),
    }
}

/// Builds the program and packs the archive. The inner error is the reason why this machine cannot
/// build the program.
fn archive(workspace: &Workspace) -> anyhow::Result<Result<PathBuf, String>> {
    let ready = setup::rust_target(workspace, TARGET)
        .and_then(|| setup::program("musl-gcc", "musl-tools"))
        .and_then(|| setup::program("strip", "binutils"));
    if let Readiness::Missing(why) = ready {
        return Ok(Err(why));
    }
    let words = ["build", "--release", "--locked", "-p", "downlink-server", "--target", TARGET];
    command::run(&mut workspace.cargo(&words))?;
    let folder = workspace.target.join("dist");
    let name = format!("downlink-{}-{SYSTEM}", version(workspace)?);
    let contents = folder.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&contents)?;
    let built = workspace.target.join(TARGET).join("release/downlink");
    let program = contents.join("downlink");
    command::run(command(&folder, "strip", &["-o"]).arg(&program).arg(built))?;
    let bytes = program.metadata()?.len();
    println!("the program has {bytes} bytes");
    check_size(bytes)?;
    command::run(command(&workspace.root, "cp", &["-r"]).args(CONTENTS).arg(&contents))?;
    fs::write(contents.join(LICENCES), licences(workspace)?)?;
    let file = format!("{name}.tar.gz");
    // The same commit gives the same archive: nothing depends on the user and the time of the build.
    let time = git_time(workspace)?;
    let words =
        ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-I", "gzip -n", "-cf", &file];
    let mut tar = command(&folder, "tar", &words);
    command::run(tar.args([format!("--mtime=@{time}"), name]))?;
    let sums = command::output(&mut command(&folder, "sha256sum", &[&file]))?;
    fs::write(folder.join("SHA256SUMS"), sums)?;
    Ok(Ok(folder.join(file)))
}

/// Fails if the program without symbols has more than [`PROGRAM_BYTES_MAX`] bytes.
fn check_size(bytes: u64) -> anyhow::Result<()> {
    ensure!(
        bytes <= PROGRAM_BYTES_MAX,
        "the program has {bytes} bytes without symbols, and at most {PROGRAM_BYTES_MAX} are \
         allowed. `nm --size-sort -S -C` of the program with symbols shows its largest functions. \
         Remove a dependency, or compile a crate for size in [profile.release.package] if events \
         do not pass through it"
    );
    Ok(())
}

fn version(workspace: &Workspace) -> anyhow::Result<&str> {
    let server = workspace.packages.iter().find(|package| package.name == "downlink-server");
    Ok(&server.context("there is no package downlink-server")?.version)
}

/// The time of the newest commit, in seconds since 1970.
fn git_time(workspace: &Workspace) -> anyhow::Result<String> {
    let words = ["log", "-1", "--format=%ct"];
    let time = command::output(&mut command(&workspace.root, "git", &words))?;
    Ok(time.trim().to_owned())
}

/// The licences of all libraries in the program. A text that several libraries share appears once.
fn licences(workspace: &Workspace) -> anyhow::Result<String> {
    let words = ["tree", "-p", "downlink-server", "-e", "normal", "--prefix", "none"];
    let tree = command::output(workspace.cargo(&words).args(["--target", TARGET, "-f", "{p}"]))?;
    let linked: BTreeSet<&str> = tree.lines().filter_map(name_and_version).collect();
    let words = ["metadata", "--format-version", "1", "--filter-platform", TARGET];
    let metadata: Value = serde_json::from_str(&command::output(&mut workspace.cargo(&words))?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} v{}", field("name"), field("version"));
        if !linked.contains(name.as_str()) {
            continue;
        }
        let folder = Path::new(field("manifest_path")).parent().context("no folder")?;
        let mut files = licence_files(folder)?;
        // The C code of this package has its own licence.
        files.extend(licence_files(&folder.join("aws-lc"))?);
        let of_package = format!("{name} ({})", field("license"));
        if files.is_empty() {
            texts.entry(String::new()).or_default().push(of_package.clone());
        }
        for file in files {
            let text = fs::read(&file).with_context(|| file.display().to_string())?;
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            texts.entry(text).or_default().push(of_package.clone());
        }
    }
    ensure!(texts.len() > 1, "no licences found: {}", linked.len());
    let sections = texts.iter().map(|(text, packages)| match text.as_str() {
        "" => format!("{}\n\n(The package has no file with its licence.)\n", packages.join("\n")),
        text => format!("{}\n\n{text}\n", packages.join("\n")),
    });
    Ok(sections.collect::<Vec<_>>().join("\n----------------------------------------\n\n"))
}

/// The name and the version at the beginning of a line of `cargo tree`.
fn name_and_version(line: &str) -> Option<&str> {
    let (name, rest) = line.split_once(' ')?;
    let version = rest.split(' ').next()?;
    line.get(..name.len() + 1 + version.len())
}

/// The files with licences in a folder. None if there is no such folder.
fn licence_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let is_licence = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start));
        if is_licence && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Unpacks the archive and runs the server there. If root runs this step, the server sees only this
/// folder, like in a container that has no system. Other users cannot hide the system from the
/// server, so their server sees all files of the machine.
fn try_out(archive: &Path) -> anyhow::Result<()> {
    let folder = archive.parent().context("the archive has no folder")?;
    command::run(&mut command(folder, "sha256sum", &["-c", "SHA256SUMS"]))?;
    let installed = folder.join("installed");
    fs::create_dir_all(installed.join("data"))?;
    let words = ["-xzf", &archive.display().to_string(), "--strip-components=1", "-C"];
    command::run(command(folder, "tar", &words).arg(&installed))?;
    for file in ["LICENSE-MIT", LICENCES, "systemd/downlink.service", "prometheus/alerts.yml"] {
        ensure!(installed.join(file).is_file(), "the archive has no {file}");
    }
    // The client of the program needs the certificates of the system, even without TLS. The image of
    // the Dockerfile has the same file.
    if Path::new(CERTIFICATES).is_file() {
        let copy = installed.join(CERTIFICATES.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().context("the file has a folder")?)?;
        fs::copy(CERTIFICATES, copy)?;
    }
    let user = command::output(&mut command(folder, "id", &["-u"]))?;
    let inside = Inside { folder: installed, is_root: user.trim() == "0" };
    println!("{}", command::output(&mut inside.downlink(&["--version"]))?.trim_end());
    let socket = inside.path("data/downlink.sock");
    let (url, store) = (format!("unix:{socket}"), inside.path("data/downlink.db"));
    let words = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", &url, "--store", &store];
    let _server = Server::start(inside.downlink(&words))?;
    command::run(&mut inside.downlink(&["health", &url]))?;
    command::run(&mut inside.downlink(&["publish", "--url", &url, "-t", "a", "hello"]))?;
    let words = ["subscribe", "--url", &url, "--start", "earliest", "--count", "1", "a"];
    let read = command::output(&mut inside.downlink(&words))?;
    ensure!(read == "hello\n", "the subscriber got {read:?}");
    command::run(&mut inside.downlink(&[
        "backup",
        &inside.path("data/copy.db"),
        "--store",
        &store,
    ]))?;
    Ok(())
}

/// The folder in which the archive is installed.
struct Inside {
    folder: PathBuf,
    is_root: bool,
}

impl Inside {
    /// The path of a file, as the program sees it.
    fn path(&self, name: &str) -> String {
        if self.is_root { format!("/{name}") } else { self.folder.join(name).display().to_string() }
    }

    /// A command of the installed program.
    fn downlink(&self, words: &[&str]) -> Command {
        let mut command = if self.is_root {
            let mut chroot = command(Path::new("/"), "chroot", &[]);
            chroot.arg(&self.folder).arg("/downlink");
            chroot
        } else {
            command(&self.folder, self.folder.join("downlink"), &[])
        };
        // No variable of this machine reaches the program. `chroot` is found by the path.
        command.args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

/// A running server. Dropping it ends the server.
struct Server(Child);

impl Server {
    /// Starts the server, and waits until it prints its address.
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let line = command::line(&command);
        println!("$ {line}");
        let child = command.stdout(Stdio::piped()).spawn().context(line.clone())?;
        let mut server = Self(child);
        let output = server.0.stdout.take().context("the output of the server is not piped")?;
        let (found, first) = mpsc::channel();
        // Reads to the end, so that the server can continue to print.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Only the first line has a receiver.
                let _ = found.send(line);
            }
        });
        let first = first.recv_timeout(READY_WITHIN).context(line)?;
        ensure!(first.contains("listening on"), "the server prints: {first}");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_cargo_tree_begins_with_name_and_version() {
        for line in ["a-b v1.2.3", "a-b v1.2.3 (proc-macro)", "a-b v1.2.3 (*)"] {
            assert_eq!(name_and_version(line), Some("a-b v1.2.3"));
        }
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn the_size_of_the_program_has_a_maximum() {
        assert!(check_size(PROGRAM_BYTES_MAX).is_ok());
        let error = check_size(PROGRAM_BYTES_MAX + 1).unwrap_err().to_string();
        assert!(error.starts_with("the program has 15500001 bytes"), "{error}");
    }

    #[test]
    fn the_contents_of_the_archive_exist() {
        let workspace = Workspace::load().unwrap();
        assert!(CONTENTS.iter().all(|name| workspace.root.join(name).exists()));
    }
}
