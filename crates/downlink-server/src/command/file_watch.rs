//! Watches the settings file and the key files of a running server for changes.
//!
//! The server looks at the files every [`LOOK_EVERY`]. It uses no notification of the operating
//! system, because network drives and the volumes of containers do not send them reliably. A file
//! may be half written at one look, so a change counts only if the next look finds the same state.

use std::{fs, path::PathBuf, time::Duration, time::SystemTime};

use tokio::{task::spawn_blocking, time::sleep};

/// The time between two looks. Two looks have to find the same state, so a change applies 5 to 10 s
/// after the last write. With a tenth of this time, a file that an editor or a deploy writes slowly
/// could be read half written.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The state of each file. `None` for a file that cannot be found.
type States = Vec<Option<State>>;

/// The attributes of a file that change if the file is written or replaced. The number of the inode
/// is not one of them, because some network drives give a file another number now and then.
#[derive(Clone, Debug, Eq, PartialEq)]
struct State {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// The files, and their state at the last reload.
#[derive(Debug)]
pub(super) struct FileWatch {
    files: Vec<PathBuf>,
    reloaded: States,
}

impl FileWatch {
    /// Watches these files from now on. Call this right before the files are read.
    pub(super) fn begin(files: Vec<PathBuf>) -> Self {
        Self { reloaded: states(&files), files }
    }

    /// Watches these files from now on, if the list of files has changed.
    pub(super) fn follow(&mut self, files: Vec<PathBuf>) {
        if files != self.files {
            *self = Self::begin(files);
        }
    }

    /// Completes when a file has changed since the watch began, and the change is complete.
    pub(super) async fn changed(&self) {
        let mut last = None;
        loop {
            sleep(LOOK_EVERY).await;
            let files = self.files.clone();
            // A network drive may be slow.
            let Ok(now) = spawn_blocking(move || states(&files)).await else { continue };
            if is_changed(&self.reloaded, last.as_ref(), &now) {
                return;
            }
            last = Some(now);
        }
    }
}

/// Whether the files differ from those of the last reload, and are the same as at the last look.
fn is_changed(reloaded: &States, last: Option<&States>, now: &States) -> bool {
    now != reloaded && last == Some(now)
}

fn states(files: &[PathBuf]) -> States {
    let state = |file: &PathBuf| {
        let found = fs::metadata(file).ok()?;
        Some(State { modified: found.modified().ok(), bytes: found.len() })
    };
    files.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bytes(bytes: u64) -> States {
        let modified = Some(SystemTime::UNIX_EPOCH);
        vec![Some(State { modified, bytes }), None]
    }

    #[test]
    fn a_change_counts_when_two_looks_find_the_same_state() {
        let (old, half, new) = (of_bytes(1), of_bytes(2), of_bytes(3));
        assert!(!is_changed(&old, None, &old));
        assert!(!is_changed(&old, Some(&old), &old));
        assert!(!is_changed(&old, Some(&old), &half));
        assert!(!is_changed(&old, Some(&half), &new));
        assert!(is_changed(&old, Some(&new), &new));
    }

    #[test]
    fn a_file_that_is_written_or_removed_has_another_state() {
        let folder = std::env::temp_dir().join(format!("downlink-watch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = [folder.join("a"), folder.join("b")];
        let none = states(&files);
        fs::write(&files[0], "1").unwrap();
        let one = states(&files);
        fs::write(&files[0], "12").unwrap();
        let two = states(&files);
        assert!(none != one && one != two);
        assert_eq!(two, states(&files));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(none, states(&files));
    }
}
