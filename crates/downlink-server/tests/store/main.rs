//! Tests of the program with a store, over HTTP: its answers if files are damaged or disks are
//! full, and the data that survives restarts, kills and restored backups.
//!
//! Tests wait for events, never for a fixed time. Each test kills its processes at its end.
#![cfg(unix)]

#[path = "../api/answer.rs"]
mod answer;
#[path = "../api/stream.rs"]
#[expect(dead_code, reason = "only the tests of the API use every function")]
mod stream;

mod backups;
mod clock;
mod disk;
mod failing;
mod locks;
mod memory;
mod metrics;
mod persisting;
mod ready;
mod restoring;
mod retaining;
mod server;
mod unread;

use std::{path::PathBuf, time::Duration};

use server::Server;
use tokio::time::timeout;

/// The maximum duration of a wait. Every test takes far less time.
const PATIENCE: Duration = Duration::from_secs(60);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}

/// The folder of one test. Dropping this value removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("downlink-store-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
