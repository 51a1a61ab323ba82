//! `downlink completions` and `downlink man`: texts that are made from the table of arguments.

use std::io::{self, Write as _};

use anyhow::anyhow;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{exit, output::printed};

#[derive(Args, Debug)]
pub(super) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArguments {
    /// The command whose page to print, such as serve; without it, the page of the program.
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
    // Gives the subcommands their whole names.
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
