//! Reads any text as a settings file. A file is accepted only if it is TOML whose names are flags
//! of the command, and no text makes the program panic. The output of `downlink config show` for an
//! accepted file gives the same settings again.

#![no_main]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches};
use downlink_server::{access::AccessSettings, config};
use downlink_server::config::{Settings, Values};
use libfuzzer_sys::fuzz_target;

fn command() -> Command {
    let serve = Settings::augment_args(Command::new("serve"));
    Command::new("downlink").subcommand(AccessSettings::augment_args(serve))
}

/// The settings that the server reads from a file. `None` if it refuses the file.
fn values(file: &Path) -> Option<Values> {
    let with_file = config::with_file(command(), "serve", file).ok()?;
    let matches = with_file.try_get_matches_from(["downlink", "serve"]).ok()?;
    let serve = matches.subcommand_matches("serve")?;
    Some(Values::new(command().find_subcommand("serve")?, serve, &BTreeSet::new()))
}

fuzz_target!(|text: &str| {
    let file: PathBuf = std::env::temp_dir().join(format!("downlink-{}.toml", std::process::id()));
    std::fs::write(&file, text).expect("the folder for temporary files is writable");
    let Ok(mut with_file) = config::with_file(command(), "serve", &file) else { return };
    let table: toml::Table = text.parse().expect("an accepted file is TOML");
    let known = command();
    let known = known.find_subcommand("serve").expect("the command has it");
    for name in table.keys() {
        let is_known = known.get_arguments().any(|flag| flag.get_long() == Some(name.as_str()));
        assert!(is_known, "{name} is accepted and is no flag");
    }
    let Ok(matches) = with_file.try_get_matches_from_mut(["downlink", "serve"]) else { return };
    let serve = matches.subcommand_matches("serve").expect("the command line names it");
    let read = (Settings::from_arg_matches(serve), AccessSettings::from_arg_matches(serve));
    assert!(read.0.is_ok() && read.1.is_ok(), "{read:?}");
    let first = values(&file).expect("the file is accepted");
    std::fs::write(&file, first.to_toml()).expect("the folder for temporary files is writable");
    let again = values(&file).expect("the output is a settings file");
    assert_eq!(again, first, "{}", first.to_toml());
});
