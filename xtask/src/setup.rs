//! Installs the tools for the tests, if possible. Debian packages need root. Node packages and the
//! Python environment need no special user.
//!
//! If an installation fails, the run continues. The tool is then [`Readiness::Missing`], and the
//! step that needs the tool is reported as skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::browser;
use crate::command::{self, command};
use crate::schemathesis;
use crate::snippets;
use crate::steps::Verdict;
use crate::workspace::Workspace;

/// The state of a tool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Readiness {
    Ready,
    /// The tool is not installed and cannot be installed. The text is the reason.
    Missing(String),
}

impl Readiness {
    pub(crate) fn and_then(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Ready { next() } else { self }
    }
}

/// `cargo xtask setup`: reports for each tool whether it is ready.
pub(crate) fn run(workspace: &Workspace, all: bool) -> anyhow::Result<Verdict> {
    let mut tools = vec![
        ("node and the packages of tests/browser", node(workspace)),
        ("chromium", program("chromium", "chromium")),
        ("firefox-esr", program("firefox-esr", "firefox-esr")),
        ("curl", program("curl", "curl")),
        ("libfaketime", faketime()),
        ("promtool", promtool()),
        ("systemd-analyze", program("systemd-analyze", "systemd")),
        ("python with httpx-sse", python(workspace)),
    ];
    tools.extend(browser::proxies());
    tools.extend(snippets::frameworks(workspace));
    if all {
        let ready = |program: Result<PathBuf, String>| {
            program.map_or_else(Readiness::Missing, |_| Readiness::Ready)
        };
        tools.push(("kubectl-validate", ready(kubectl_validate(workspace))));
        tools.push(("nats-server", ready(nats_server(workspace))));
        tools.push(("schemathesis", schemathesis::installed(workspace)));
        tools.push(("cargo-deny", cargo_tool(workspace, "deny")));
        tools.push(("cargo-fuzz", fuzzing(workspace)));
    }
    let mut verdict = Verdict::Good;
    for (name, readiness) in tools {
        match readiness {
            Readiness::Ready => println!("ready: {name}"),
            Readiness::Missing(why) => {
                println!("missing: {name} ({why})");
                verdict = Verdict::Bad;
            }
        }
    }
    Ok(verdict)
}

/// A program from a Debian package.
pub(crate) fn program(program: &str, package: &str) -> Readiness {
    if on_path(program) {
        return Readiness::Ready;
    }
    apt(&[package]).and_then(|| match on_path(program) {
        true => Readiness::Ready,
        false => Readiness::Missing(format!("package {package} does not contain {program}")),
    })
}

/// Libraries from Debian packages. The command `find` succeeds if the libraries are installed.
pub(crate) fn libraries(find: &[&str], packages: &[&str]) -> Readiness {
    let is_found = || {
        let (program, words) = find.split_first().expect("the command has a program");
        command::answers(&mut command(Path::new("/"), program, words))
    };
    if is_found() {
        return Readiness::Ready;
    }
    apt(packages).and_then(|| match is_found() {
        true => Readiness::Ready,
        false => Readiness::Missing(format!("not found in the packages: {}", find.join(" "))),
    })
}

/// The proxy in front of the server in the tests of restarts.
pub(crate) fn nginx() -> Readiness {
    program("nginx", "nginx-light")
}

/// The tests of a wrong system clock load this library into the server.
pub(crate) fn faketime() -> Readiness {
    program("faketime", "faketime")
}

/// The tool that checks metrics. Its package also contains Prometheus, which is not started.
pub(crate) fn promtool() -> Readiness {
    program("promtool", "prometheus")
}

/// The program that checks manifests of Kubernetes. It contains the schemas of several versions of
/// Kubernetes, so it needs no cluster and no network. Go compiles it, which takes minutes.
///
/// # Errors
///
/// The program is not installed, and cannot be installed. The text is the reason.
pub(crate) fn kubectl_validate(workspace: &Workspace) -> Result<PathBuf, String> {
    go_program(workspace, "kubectl-validate", "sigs.k8s.io/kubectl-validate@v0.0.4")
}

/// The server of NATS for the tests of `downlink-nats`. Debian's package is some years older. Go
/// compiles it, which takes a minute.
///
/// # Errors
///
/// The program is not installed, and cannot be installed. The text is the reason.
pub(crate) fn nats_server(workspace: &Workspace) -> Result<PathBuf, String> {
    go_program(workspace, "nats-server", "github.com/nats-io/nats-server/v2@v2.15.3")
}

/// A program that Go compiles, in the folder `go` of the target directory.
fn go_program(workspace: &Workspace, name: &str, package: &str) -> Result<PathBuf, String> {
    let folder = workspace.target.join("go");
    let program = folder.join(name);
    if program.is_file() {
        return Ok(program);
    }
    let ready = self::program("go", "golang-go").and_then(|| {
        installed(command(Path::new("/"), "go", &["install", package]).env("GOBIN", &folder))
    });
    match ready {
        Readiness::Ready => Ok(program),
        Readiness::Missing(why) => Err(why),
    }
}

/// The standard library of another target.
pub(crate) fn rust_target(workspace: &Workspace, target: &str) -> Readiness {
    let rustup = |words: &[&str]| command(&workspace.root, "rustup", words);
    let installed_targets = command::output(&mut rustup(&["target", "list", "--installed"]));
    if installed_targets.is_ok_and(|targets| targets.lines().any(|line| line == target)) {
        return Readiness::Ready;
    }
    installed(&mut rustup(&["target", "add", target]))
}

/// Node, and the packages that the lock file of `tests/browser` names.
pub(crate) fn node(workspace: &Workspace) -> Readiness {
    node_packages(&browser::folder(&workspace.root))
}

/// Node, and the packages that the lock file in the folder names.
pub(crate) fn node_packages(folder: &Path) -> Readiness {
    program("node", "nodejs").and_then(|| program("npm", "npm")).and_then(|| {
        let stamp = folder.join("node_modules/installed-lock.json");
        if !is_current(&folder.join("package-lock.json"), &stamp) {
            let words = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
            return installed(&mut command(folder, "npm", &words)).and_then(|| {
                remember(&folder.join("package-lock.json"), &stamp);
                Readiness::Ready
            });
        }
        Readiness::Ready
    })
}

/// A virtual environment with the packages of `tests/browser/requirements.txt`.
pub(crate) fn python(workspace: &Workspace) -> Readiness {
    let wanted = browser::folder(&workspace.root).join("requirements.txt");
    python_packages(&wanted, &python_home(workspace))
}

/// A virtual environment in the folder `home` with the packages of the file `wanted`.
pub(crate) fn python_packages(wanted: &Path, home: &Path) -> Readiness {
    let (stamp, python) = (home.join("installed-requirements.txt"), home.join("bin/python"));
    if is_current(wanted, &stamp) && python.exists() {
        return Readiness::Ready;
    }
    let here = Path::new("/");
    let create = || installed(command(here, "python3", &["-m", "venv", "--clear"]).arg(home));
    let fill = || {
        let words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        installed(command(here, &python, &words).arg(wanted))
    };
    let mut created = program("python3", "python3").and_then(create);
    if created != Readiness::Ready {
        // Debian's python3 needs this package to create environments.
        created = apt(&["python3-venv"]).and_then(create);
    }
    created.and_then(fill).and_then(|| {
        remember(wanted, &stamp);
        Readiness::Ready
    })
}

/// The interpreter of the virtual environment.
pub(crate) fn virtual_python(workspace: &Workspace) -> PathBuf {
    python_home(workspace).join("bin/python")
}

fn python_home(workspace: &Workspace) -> PathBuf {
    workspace.target.join("browser-python")
}

/// A cargo subcommand. If it is missing, it is compiled, which takes minutes and is too slow for
/// `ci`.
pub(crate) fn cargo_tool(workspace: &Workspace, name: &str) -> Readiness {
    if command::answers(&mut workspace.cargo(&[name, "--version"])) {
        return Readiness::Ready;
    }
    let package = format!("cargo-{name}");
    installed(&mut workspace.cargo(&["install", "--locked", &package]))
}

/// cargo-fuzz, and the nightly toolchain, which cargo-fuzz needs for its sanitizers.
pub(crate) fn fuzzing(workspace: &Workspace) -> Readiness {
    let rustup = |words: &[&str]| command(&workspace.root, "rustup", words);
    let toolchain = match command::answers(&mut rustup(&["run", "nightly", "cargo", "--version"])) {
        true => Readiness::Ready,
        false => installed(&mut rustup(&["toolchain", "install", "nightly", "--profile=minimal"])),
    };
    toolchain.and_then(|| cargo_tool(workspace, "fuzz"))
}

/// True if a program is installed.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Installs Debian packages. Needs root and apt.
fn apt(packages: &[&str]) -> Readiness {
    let here = Path::new("/");
    let names = packages.join(" ");
    if !on_path("apt-get") {
        return Readiness::Missing(format!("not installed, and apt-get is missing: {names}"));
    }
    let user = command::output(&mut command(here, "id", &["-u"]));
    if user.ok().as_deref().map(str::trim) != Some("0") {
        return Readiness::Missing(format!("run as root: apt-get install {names}"));
    }
    let apt_get = |words: &[&str]| {
        let mut command = command(here, "apt-get", &["-qq", "-o", "DPkg::Lock::Timeout=300"]);
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        installed(&mut command)
    };
    let _no_services = NoServices::new(Path::new(NoServices::POLICY));
    apt_get(&["update"])
        .and_then(|| apt_get(&[&["install", "-y", "--no-install-recommends"], packages].concat()))
}

/// Prevents newly installed packages from starting their services until this value is dropped. The
/// tests need only the programs of the proxies, but Debian would start them on port 80.
struct NoServices {
    /// The path of the policy file, if this value has created it. A policy file of the system is
    /// kept.
    made: Option<PathBuf>,
}

impl NoServices {
    /// Debian's scripts run this program before they start a service (`invoke-rc.d(8)`).
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn new(path: &Path) -> Self {
        let policy = no_services_while(std::process::id());
        let mut file = fs::OpenOptions::new();
        let Ok(mut file) = file.write(true).create_new(true).open(path) else {
            return Self { made: None };
        };
        let written = io::Write::write_all(&mut file, policy.as_bytes()).is_ok();
        let mut chmod = command(Path::new("/"), "chmod", &["a+x"]);
        if !written || !command::answers(chmod.arg(path)) {
            println!("cannot write {}: installed services may start", path.display());
        }
        Self { made: Some(path.to_owned()) }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let Some(path) = &self.made else { return };
        if let Err(error) = fs::remove_file(path) {
            println!("cannot remove {}: {error}", path.display());
        }
    }
}

/// A policy that forbids services (status 101) while the process with this id exists. If this
/// program is killed, the remaining file has no effect.
fn no_services_while(process: u32) -> String {
    format!("#!/bin/sh\n# Made by cargo xtask.\n[ ! -d /proc/{process} ] || exit 101\n")
}

/// Runs a command that installs a tool.
fn installed(command: &mut Command) -> Readiness {
    match command::run(command) {
        Ok(()) => Readiness::Ready,
        Err(error) => Readiness::Missing(format!("{error:#}")),
    }
}

/// True if `stamp` has the same content as `wanted`, the current list of packages. `stamp` is the
/// copy of the list from the last installation.
fn is_current(wanted: &Path, stamp: &Path) -> bool {
    match (fs::read(wanted), fs::read(stamp)) {
        (Ok(wanted), Ok(installed)) => wanted == installed,
        _ => false,
    }
}

/// Copies the list of installed packages from `wanted` to `stamp`. If that fails, the next run
/// installs everything again.
fn remember(wanted: &Path, stamp: &Path) {
    if let Err(error) = fs::copy(wanted, stamp) {
        println!("cannot write {}: {error}", stamp.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_program_is_ready() {
        assert_eq!(program("sh", "dash"), Readiness::Ready);
    }

    #[test]
    fn the_reason_of_a_failed_installation_contains_the_command() {
        let outcome = installed(&mut command(Path::new("/"), "false", &["--really"]));
        let Readiness::Missing(why) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("false --really"), "{why}");
    }

    #[test]
    fn services_are_forbidden_only_while_xtask_runs() {
        let code = |process| {
            let policy = no_services_while(process);
            command(Path::new("/"), "sh", &["-c", &policy]).status().unwrap().code()
        };
        assert_eq!(code(std::process::id()), Some(101));
        assert_eq!(code(u32::MAX), Some(0));
    }

    #[test]
    fn the_policy_file_exists_only_during_an_installation() {
        let path = std::env::temp_dir().join(format!("xtask-policy-{}", std::process::id()));
        let no_services = NoServices::new(&path);
        let mut run = command(Path::new("/"), &path, &[]);
        // Another test may just have started a process, which has the file open for writing until
        // it runs its program.
        let is_busy = |error: &io::Error| error.kind() == io::ErrorKind::ExecutableFileBusy;
        let code = loop {
            match run.status() {
                Err(error) if is_busy(&error) => {}
                status => break status.unwrap().code(),
            }
        };
        assert_eq!(code, Some(101));
        drop(no_services);
        assert!(!path.exists());
    }

    /// Debian's container images have a policy file of their own.
    #[test]
    fn a_policy_file_of_the_system_is_kept() {
        let path = std::env::temp_dir().join(format!("xtask-own-policy-{}", std::process::id()));
        fs::write(&path, "#!/bin/sh\nexit 101\n").unwrap();
        drop(NoServices::new(&path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "#!/bin/sh\nexit 101\n");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_installation_is_current_until_the_list_of_packages_changes() {
        let folder = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (wanted, stamp) = (folder.join("wanted"), folder.join("stamp"));
        fs::write(&wanted, "a==1\n").unwrap();
        assert!(!is_current(&wanted, &stamp));
        remember(&wanted, &stamp);
        assert!(is_current(&wanted, &stamp));
        fs::write(&wanted, "a==2\n").unwrap();
        assert!(!is_current(&wanted, &stamp));
        fs::remove_dir_all(&folder).unwrap();
    }
}
