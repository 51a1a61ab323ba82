//! `downlink completions` and `downlink man`: texts generated from the definitions of the
//! arguments.

use std::io::{self, Write as _};

use anyhow::anyhow;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{exit, output::printed};

#[derive(Args, Debug)]
pub(super) struct CompletionsArguments {
    /// The shell to print completions for.
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArguments {
    /// The command whose page to print, such as serve. Without it, the page of the program is
    /// printed.
    command: Option<String>,
}

pub(super) fn completions(
    mut command: Command,
    wanted: &CompletionsArguments,
) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(wanted.shell, &mut command, name, &mut script);
    printed(io::stdout().write_all(&script))
}

pub(super) fn man(mut command: Command, wanted: &ManArguments) -> anyhow::Result<()> {
    // This call sets the full names of the subcommands, such as `downlink serve`.
    command.build();
    let described = match &wanted.command {
        None => command,
        Some(name) => { command.find_subcommand(name).cloned() }.ok_or_else(|| {
            exit::usage(anyhow!("there is no command {name:?}; see downlink --help"))
        })?,
    };
    let mut page = Vec::new();
    Man::new(described).render(&mut page)?;
    printed(io::stdout().write_all(&page))
}
