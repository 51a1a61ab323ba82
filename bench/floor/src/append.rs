//! A loop that appends events to a plain file and flushes the file. It shows the lowest possible
//! cost of a durable log.
//!
//! Each turn appends the same number of events and waits until the disk has them (`fdatasync`).
//! There is no format, no check sum, no index and no HTTP.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

/// The events to write, and the duration of the run.
pub(crate) struct Appending {
    /// The number of events in one flush.
    pub(crate) events: u64,
    pub(crate) event_bytes: u64,
    pub(crate) seconds: u64,
}

/// Appends until the time is over, and returns the report: one line of JSON.
pub(crate) fn run(path: &Path, plan: &Appending) -> io::Result<String> {
    let bytes = usize::try_from(plan.events * plan.event_bytes).map_err(io::Error::other)?;
    let batch = vec![b'.'; bytes];
    let mut file = File::create(path)?;
    let (start, mut flushes) = (Instant::now(), 0_u64);
    while flushes == 0 || start.elapsed() < Duration::from_secs(plan.seconds) {
        file.write_all(&batch)?;
        file.sync_data()?;
        flushes += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let per_s = flushes as f64 / seconds;
    let events_per_s = per_s * plan.events as f64;
    Ok(format!(
        "{{\"events_per_s\":{events_per_s:.1},\"flushes_per_s\":{per_s:.1},\"seconds\":{seconds:.3}}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_appends_all_events_of_a_flush() {
        let path = std::env::temp_dir().join(format!("bench-floor-{}", std::process::id()));
        let plan = Appending { events: 3, event_bytes: 5, seconds: 0 };
        let report = run(&path, &plan).unwrap();
        let written = std::fs::metadata(&path).unwrap().len();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written, 15);
        assert!(report.starts_with("{\"events_per_s\":"), "{report}");
    }
}
