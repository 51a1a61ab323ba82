//! Samples a server under load: its resident memory, and the kernel's memory for the unsent data of
//! its sockets (`ss`).
//!
//! There are two figures for sockets: the maximum of all sockets, and the maximum of the stalled
//! sockets. A socket has stalled if its peer has taken no bytes since the last sample. The server
//! limits the unsent data of a stalled socket. The maximum of all sockets does not show whether
//! this limit works, because it includes the bytes on the way to an active reader.
//!
//! Only the maxima are kept. Memory may have been higher between two samples, but a value that
//! lasts for a second is always seen.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use super::servers::{Programs, Running};
use crate::command;

/// The time between two samples. It is short enough to see every socket that stalls for seconds. A
/// sample with `ss` takes a few milliseconds.
const INTERVAL: Duration = Duration::from_millis(500);

/// The largest values so far, and the last sample for comparison.
#[derive(Debug, Default, Eq, PartialEq)]
struct Peak {
    resident_bytes: u64,
    /// The largest number of queued bytes of any socket.
    send_bytes: u64,
    /// The largest number of queued bytes of a stalled socket. `None` if no socket has stalled.
    stalled_send_bytes: Option<u64>,
    /// For each peer with queued bytes in the last sample, the number of bytes that the peer had
    /// acknowledged.
    acked: HashMap<String, u64>,
}

/// A socket in a sample.
#[derive(Debug, Eq, PartialEq)]
struct Sampled<'a> {
    peer: &'a str,
    /// The bytes queued to send, with the kernel's overhead.
    send_bytes: u64,
    acked_bytes: u64,
}

/// The sampling thread of a run.
#[derive(Debug)]
pub(super) struct Watch {
    end: Sender<()>,
    thread: JoinHandle<Peak>,
}

impl Watch {
    /// Starts the sampling.
    ///
    /// # Errors
    ///
    /// If `ss` cannot be started.
    pub(super) fn start(programs: &Programs<'_>, running: &Running) -> anyhow::Result<Self> {
        let filter = ["-timnHO", "state", "established", "sport", "=", running.port()];
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

    /// Ends the sampling and returns the maxima.
    pub(super) fn end(self) -> Value {
        drop(self.end);
        match self.thread.join() {
            Ok(peak) => json!({
                "resident_bytes_max": peak.resident_bytes,
                "send_bytes_max": peak.send_bytes,
                "stalled_send_bytes_max": peak.stalled_send_bytes,
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
            self.add(text.lines().filter_map(sampled));
        }
    }

    fn add<'a>(&mut self, sockets: impl Iterator<Item = Sampled<'a>>) {
        let before = std::mem::take(&mut self.acked);
        for Sampled { peer, send_bytes, acked_bytes } in sockets {
            self.send_bytes = self.send_bytes.max(send_bytes);
            if send_bytes == 0 {
                continue;
            }
            if before.get(peer) == Some(&acked_bytes) {
                self.stalled_send_bytes = self.stalled_send_bytes.max(Some(send_bytes));
            }
            self.acked.insert(peer.to_owned(), acked_bytes);
        }
    }
}

/// The resident bytes from `/proc/…/status`.
pub(super) fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Parses a line of `ss`: two queues, two addresses, `skmem:(…,w1280,…)`, and TCP's figures. Until
/// the peer has acknowledged bytes, `ss` omits the figure `bytes_acked`.
fn sampled(line: &str) -> Option<Sampled<'_>> {
    let peer = line.split_whitespace().nth(3)?;
    let memory = line.split_once("skmem:(")?.1.split_once(')')?.0;
    let send_bytes = memory.split(',').find_map(|field| field.strip_prefix('w')?.parse().ok())?;
    let acked = line.split_whitespace().find_map(|word| word.strip_prefix("bytes_acked:"));
    let acked_bytes = acked.map_or(Some(0), |bytes| bytes.parse().ok())?;
    Some(Sampled { peer, send_bytes, acked_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_output_of_the_system() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12 << 10));
        assert_eq!(resident("Name:\tx\n"), None);
        let memory = "skmem:(r0,rb131072,t0,tb46080,f0,w1280,o0,bl0,d0)";
        let line = format!("0 0 127.0.0.1:1 127.0.0.1:2 {memory} cubic");
        let mut socket = Sampled { peer: "127.0.0.1:2", send_bytes: 1_280, acked_bytes: 0 };
        assert_eq!(sampled(&line).as_ref(), Some(&socket));
        socket.acked_bytes = 77;
        assert_eq!(sampled(&format!("{line} rto:204 bytes_sent:99 bytes_acked:77")), Some(socket));
        assert_eq!(sampled("0 0 127.0.0.1:1 127.0.0.1:2"), None);
    }

    #[test]
    fn a_socket_has_stalled_if_its_peer_takes_no_bytes_between_two_samples() {
        let mut peak = Peak::default();
        let socket = |send_bytes, acked_bytes| Sampled { peer: "a", send_bytes, acked_bytes };
        peak.add([socket(900, 5)].into_iter());
        peak.add([socket(800, 6)].into_iter());
        assert_eq!((peak.send_bytes, peak.stalled_send_bytes), (900, None));
        peak.add([socket(700, 6)].into_iter());
        assert_eq!((peak.send_bytes, peak.stalled_send_bytes), (900, Some(700)));
        peak.add([].into_iter());
        peak.add([socket(800, 6)].into_iter());
        assert_eq!(
            peak.stalled_send_bytes,
            Some(700),
            "a new socket with the same address has not stalled"
        );
    }
}
