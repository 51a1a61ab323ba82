//! Samples a server while it is under load: its resident memory, and what the kernel holds for the
//! sending side of its sockets (`ss`).
//!
//! The maxima are kept. Between two samples memory may have been higher; what stays for a second is
//! seen.

use std::fs;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use super::servers::{Programs, Running};
use crate::command;

/// Often enough to see every socket that stalls for seconds; `ss` takes a few milliseconds.
const INTERVAL: Duration = Duration::from_millis(500);

/// The largest values so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Peak {
    resident_bytes: u64,
    /// Of the socket that holds most.
    send_bytes: u64,
}

/// Sampling in progress.
#[derive(Debug)]
pub(super) struct Watch {
    end: Sender<()>,
    thread: JoinHandle<Peak>,
}

impl Watch {
    /// # Errors
    ///
    /// If `ss` cannot be asked.
    pub(super) fn start(programs: &Programs<'_>, running: &Running) -> anyhow::Result<Self> {
        let filter = ["-tmnHO", "state", "established", "sport", "=", running.port()];
        let filter: Vec<String> = filter.map(str::to_owned).to_vec();
        let words: Vec<&str> = filter.iter().map(String::as_str).collect();
        let mut ss = programs.beside_tool("ss", &words);
        if !command::answers(&mut programs.beside_tool("ss", &["-V"])) {
            bail!("`ss` (iproute2) is needed to see the memory of sockets");
        }
        let (end, ended) = mpsc::channel();
        let status = format!("/proc/{}/status", running.pid());
        let thread = thread::spawn(move || {
            let mut peak = Peak::default();
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                peak.look(&status, &mut ss);
            }
            peak
        });
        Ok(Self { end, thread })
    }

    /// The maxima.
    pub(super) fn end(self) -> Value {
        drop(self.end);
        match self.thread.join() {
            Ok(peak) => json!({
                "resident_bytes_max": peak.resident_bytes,
                "send_bytes_max": peak.send_bytes,
            }),
            Err(_) => Value::Null,
        }
    }
}

impl Peak {
    fn look(&mut self, status: &str, ss: &mut Command) {
        if let Some(resident) = fs::read_to_string(status).ok().and_then(|text| resident(&text)) {
            self.resident_bytes = self.resident_bytes.max(resident);
        }
        if let Ok(text) = command::output(ss) {
            let largest = text.lines().filter_map(send_bytes).max();
            self.send_bytes = self.send_bytes.max(largest.unwrap_or_default());
        }
    }
}

/// The resident bytes in `/proc/…/status`.
pub(super) fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// What is queued to send in a line of `ss`, with the kernel's own share: `skmem:(…,w1280,…)`.
fn send_bytes(line: &str) -> Option<u64> {
    let memory = line.split_once("skmem:(")?.1.split_once(')')?.0;
    memory.split(',').find_map(|field| field.strip_prefix('w')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_the_system_says() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12 << 10));
        assert_eq!(resident("Name:\tx\n"), None);
        let line = "0 0 127.0.0.1:1 127.0.0.1:2 skmem:(r0,rb131072,t0,tb46080,f0,w1280,o0,bl0,d0)";
        assert_eq!(send_bytes(line), Some(1_280));
        assert_eq!(send_bytes("0 0 127.0.0.1:1 127.0.0.1:2"), None);
    }
}
