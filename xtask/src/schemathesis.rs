//! The step `schemathesis` of `cargo xtask nightly`: a program makes up requests from
//! `docs/openapi.json`, sends them to real servers, and compares the answers with the document.
//!
//! These are faults: a server error; a status, content type, header or body that is not in the
//! document; and a good answer to a request that the document forbids. The server may refuse a
//! request that the document allows, because the document cannot say everything: a publish needs a
//! topic or a client, and a name has at most 256 bytes, not characters.
//!
//! An event stream does not end by itself, so the servers end each stream after a second.

use std::path::PathBuf;
use std::{env, fs, process};

use anyhow::Context as _;

use crate::browser;
use crate::command::{self, command};
use crate::promtool::Server;
use crate::setup::{self, Readiness};
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// The admin key of the server with keys. It is not secret.
const ADMIN_KEY: &str = "the-admin-key-of-the-made-up-requests-00";

/// Tests a development server, a server with keys and an admin key, and the same server without a
/// credential.
///
/// # Errors
///
/// If a server cannot be started, or an answer does not conform to the document.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = installed(workspace) {
        return Ok(Outcome::Skipped(why));
    }
    browser::build(workspace)?;
    let files = Files::new()?;
    let store = files.path("dev.db");
    let of_all = ["--listen", "127.0.0.1:0", "--max-age", "1s", "--store"];
    let dev = [&["dev"], &of_all[..], &[&store]].concat();
    requests(workspace, &Server::start(workspace, &dev)?, None)?;
    let (store, key) = (files.path("serve.db"), files.path("admin.key"));
    fs::write(&key, ADMIN_KEY).with_context(|| key.clone())?;
    let serve = [&["serve"], &of_all[..], &[&store, "--admin-key-file", &key]].concat();
    let server = Server::start(workspace, &serve)?;
    requests(workspace, &server, Some(ADMIN_KEY))?;
    requests(workspace, &server, None)?;
    Ok(Outcome::Passed)
}

/// A virtual environment with Schemathesis.
pub(crate) fn installed(workspace: &Workspace) -> Readiness {
    setup::python_packages(&folder(workspace).join("requirements.txt"), &home(workspace))
}

/// The folder of the virtual environment.
fn home(workspace: &Workspace) -> PathBuf {
    workspace.target.join("schemathesis-python")
}

/// The folder with the version of Schemathesis, and with its extension for this API.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("tests/schemathesis")
}

/// Sends the requests of one run to a server.
fn requests(workspace: &Workspace, server: &Server, key: Option<&str>) -> anyhow::Result<()> {
    let url = format!("http://{}", server.address);
    let document = workspace.root.join("docs/openapi.json");
    // The program writes its database of examples into the current folder.
    let mut run = command(&workspace.target, home(workspace).join("bin/schemathesis"), &["run"]);
    run.arg(document).args(["--url", &url, "--request-timeout", "10", "--continue-on-failure"]);
    run.args(["--exclude-checks", "positive_data_acceptance"]);
    if let Some(key) = key {
        run.args(["--header", &format!("Authorization: Bearer {key}")]);
    }
    run.env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", folder(workspace));
    command::run(&mut run)
}

/// A folder for the files of the servers. When this value is dropped, the folder is removed.
struct Files(PathBuf);

impl Files {
    fn new() -> anyhow::Result<Self> {
        let path = env::temp_dir().join(format!("downlink-schemathesis-{}", process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("cannot remove {}: {error}", self.0.display());
        }
    }
}
