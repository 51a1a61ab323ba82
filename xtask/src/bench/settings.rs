//! How long and how often, and which cells.

use anyhow::bail;

use crate::Options;
use crate::steps::Choice;

/// Rounds of a run: an odd number has a median of its own, and one strange round does not move it.
const ROUNDS: u64 = 5;
/// Measured seconds of each load: user time is told from the system's by some 100 samples a second, and
/// a few thousand of them are good to a few per cent.
const SECONDS: u64 = 30;
/// What goes into the record.
const FULL: Settings = Settings { rounds: ROUNDS, seconds: SECONDS, is_quick: false };
/// For a first look: too short to record.
const QUICK: Settings = Settings { rounds: 1, seconds: 1, is_quick: true };
/// How `--only` asks for the short run.
pub(super) const QUICK_NAME: &str = "quick";

/// How long and how often.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Settings {
    pub(super) rounds: u64,
    pub(super) seconds: u64,
    /// Whether it is for a first look, not for the record.
    pub(super) is_quick: bool,
}

impl Settings {
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let is_quick = options.is_quick || names(&options.choice).contains(&QUICK_NAME);
        let usual = if is_quick { QUICK } else { FULL };
        let settings = Self {
            rounds: options.rounds.unwrap_or(usual.rounds),
            seconds: options.seconds.unwrap_or(usual.seconds),
            is_quick,
        };
        if settings.rounds == 0 || settings.seconds == 0 {
            bail!("--rounds and --seconds are at least 1");
        }
        Ok(settings)
    }
}

/// What `--only` names, with commas between.
pub(super) fn names(choice: &Choice) -> Vec<&str> {
    match choice {
        Choice::Only(names) => names.split(',').collect(),
        Choice::All | Choice::List => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(words: &[&str]) -> anyhow::Result<Settings> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        Settings::new(&Options::parse(&words)?)
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        assert_eq!(settings(&[]).unwrap(), FULL);
        let seven = settings(&["--seconds", "7", "--only", "idle,rate"]).unwrap();
        assert_eq!(seven, Settings { seconds: 7, ..FULL });
        let three = settings(&["--quick", "--rounds", "3"]).unwrap();
        assert_eq!(three, Settings { rounds: 3, ..QUICK });
        assert_eq!(settings(&["--only", "quick"]).unwrap(), QUICK);
    }

    #[test]
    fn nothing_is_measured_in_no_time() {
        assert!(settings(&["--rounds", "0"]).is_err());
        assert!(settings(&["--seconds", "0"]).is_err());
        assert!(settings(&["--rounds"]).is_err());
    }
}
