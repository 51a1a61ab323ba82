//! Measures the opening of a store: the time until the server's first answer, the server's memory,
//! and the bytes that the server reads.
//!
//! The bytes are those that the process requests from the system (`rchar` of `/proc`). They count
//! even if they come from the system's cache, so a warm cache does not change the number.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::servers::{DOWNLINK, Programs, Running};
use super::watch::resident;

/// The maximum wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Starts our server with a store, and reports the resources that it used until its first answer.
///
/// # Errors
///
/// If the server does not answer, or the system does not report the server's resources.
pub(super) fn open(
    programs: &Programs<'_>,
    store: Option<&Path>,
    flags: &[String],
) -> anyhow::Result<(Running, Value)> {
    let file_bytes = match store {
        Some(file) => size(file)? + size(&file.with_extension("db-wal")).unwrap_or_default(),
        None => 0,
    };
    let started = Instant::now();
    let running = programs.start(&DOWNLINK, flags)?;
    let status = ask(&running)?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status.starts_with("HTTP/1.1 200"), "the first answer was {status:?}");
    let read = |name: &str| {
        let path = format!("/proc/{}/{name}", running.pid());
        fs::read_to_string(&path).with_context(|| path.clone())
    };
    let io = read("io")?;
    let read_bytes =
        counter(&io, "rchar:").context("the system does not report the number of bytes read")?;
    let from_disk = counter(&io, "read_bytes:").unwrap_or_default();
    let report = json!({
        "seconds": seconds,
        "resident_bytes": resident(&read("status")?),
        "file_bytes": file_bytes,
        "read_bytes": read_bytes,
        "read_from_disk_bytes": from_disk,
        "read_share": read_bytes as f64 / (file_bytes as f64).max(1.0),
    });
    Ok((running, report))
}

fn size(file: &Path) -> anyhow::Result<u64> {
    let metadata = fs::metadata(file).with_context(|| file.display().to_string())?;
    Ok(metadata.len())
}

/// The status line of the answer from `/readyz`.
fn ask(running: &Running) -> anyhow::Result<String> {
    let address = format!("127.0.0.1:{}", running.port());
    let mut stream = TcpStream::connect(&address).with_context(|| address.clone())?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The value of a line in `/proc/…/io`.
fn counter(io: &str, name: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let io = "rchar: 12\nwchar: 3\nread_bytes: 4096\n";
        assert_eq!(counter(io, "rchar:"), Some(12));
        assert_eq!(counter(io, "read_bytes:"), Some(4_096));
        assert_eq!(counter(io, "gone:"), None);
    }
}
