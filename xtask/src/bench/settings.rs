//! The length and number of runs, and the chosen cells.

use anyhow::bail;

use crate::Options;
use crate::steps::Choice;

/// The number of rounds. It is odd, so the median is the value of one round. With 5 rounds, one or
/// two outliers do not change the median much.
const ROUNDS: u64 = 5;
/// The measured seconds of each load. The system divides the processor time into user and system
/// time with about 100 samples a second. In 30 seconds there are 3,000 samples, so both times are
/// exact to a few percent.
const SECONDS: u64 = 30;
/// The settings of a recorded run.
const FULL: Settings = Settings { rounds: ROUNDS, seconds: SECONDS, is_quick: false };
/// The settings of a quick run, which is too short to record.
const QUICK: Settings = Settings { rounds: 1, seconds: 1, is_quick: true };
/// The name of the quick run in `--only`.
pub(super) const QUICK_NAME: &str = "quick";

/// The length and number of runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Settings {
    pub(super) rounds: u64,
    pub(super) seconds: u64,
    /// True for a quick run, which is not recorded.
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
            bail!("--rounds and --seconds must be at least 1");
        }
        Ok(settings)
    }
}

/// The names in `--only`, separated by commas.
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
    fn options_override_the_usual_settings() {
        assert_eq!(settings(&[]).unwrap(), FULL);
        let seven = settings(&["--seconds", "7", "--only", "idle,rate"]).unwrap();
        assert_eq!(seven, Settings { seconds: 7, ..FULL });
        let three = settings(&["--quick", "--rounds", "3"]).unwrap();
        assert_eq!(three, Settings { rounds: 3, ..QUICK });
        assert_eq!(settings(&["--only", "quick"]).unwrap(), QUICK);
    }

    #[test]
    fn zero_rounds_or_seconds_are_refused() {
        assert!(settings(&["--rounds", "0"]).is_err());
        assert!(settings(&["--seconds", "0"]).is_err());
        assert!(settings(&["--rounds"]).is_err());
    }
}
