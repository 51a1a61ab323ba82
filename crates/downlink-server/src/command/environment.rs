//! Checks the environment variables of the program. An unknown variable is an error, like an
//! unknown key in the settings file.

use std::ffi::OsString;

use anyhow::bail;
use clap::Command;

use crate::config::perhaps;

/// The prefix of all variables of the program.
const PREFIX: &str = "DOWNLINK_";

/// Checks the names of the variables.
///
/// # Errors
///
/// The first variable that begins with [`PREFIX`] and is unknown.
pub(super) fn check(
    command: &Command,
    names: impl Iterator<Item = OsString>,
) -> anyhow::Result<()> {
    let flags = command.get_subcommands().flat_map(Command::get_arguments);
    let variables = flags.filter_map(|flag| flag.get_env()?.to_str());
    let known: Vec<&str> = variables.collect();
    for name in names {
        let name = name.to_string_lossy();
        let is_ours = name.starts_with(PREFIX) && !is_service(&name);
        if is_ours && !known.contains(&&*name) {
            let perhaps = perhaps(&name, known.into_iter());
            bail!("there is no environment variable {name}; {perhaps}see downlink serve --help");
        }
    }
    Ok(())
}

/// Checks that no variable sets a setting that only `downlink serve` has. A development server
/// would ignore this setting and allow every request.
///
/// # Errors
///
/// The first variable of a setting of `serve` that `dev` does not have.
pub(super) fn check_dev(
    command: &Command,
    names: impl Iterator<Item = OsString>,
) -> anyhow::Result<()> {
    let variables_of = |name: &str| -> Vec<String> {
        let arguments = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
        arguments.filter_map(|flag| Some(flag.get_env()?.to_str()?.to_owned())).collect()
    };
    let (dev, serve) = (variables_of("dev"), variables_of("serve"));
    for name in names.filter_map(|name| name.into_string().ok()) {
        if serve.contains(&name) && !dev.contains(&name) {
            bail!(
                "{name} is a setting of downlink serve, and this is downlink dev, which allows \
                 everything to the programs of this machine: start downlink serve"
            );
        }
    }
    Ok(())
}

/// Whether the name is one that Kubernetes or Docker sets. For a service with the name `downlink`
/// or `downlink-…`, they set variables such as `DOWNLINK_SERVICE_HOST` in other containers. These
/// variables have the address of the service.
fn is_service(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| name.ends_with(end))
        || ["_SERVICE_PORT_", "_PORT_"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> Option<String> {
        let flag = clap::Arg::new("a").long("a").env("DOWNLINK_RETAIN_AGE");
        let command = Command::new("downlink").subcommand(Command::new("serve").arg(flag));
        check(&command, [name.into()].into_iter()).err().map(|error| error.to_string())
    }

    #[test]
    fn unknown_variables_with_the_prefix_are_errors() {
        let near = refused("DOWNLINK_RETAIN_AGES").unwrap();
        assert!(near.contains("DOWNLINK_RETAIN_AGES; perhaps DOWNLINK_RETAIN_AGE is meant"));
        assert!(refused("DOWNLINK_").is_some() && refused("DOWNLINK_SOMETHING").is_some());
        for name in ["DOWNLINK_RETAIN_AGE", "PATH", "DOWNLINKS", "LISTEN_FDS"] {
            assert_eq!(refused(name), None);
        }
    }

    #[test]
    fn variables_that_kubernetes_sets_are_ignored() {
        for name in [
            "DOWNLINK_SERVICE_HOST",
            "DOWNLINK_SERVICE_PORT",
            "DOWNLINK_SERVICE_PORT_HTTP",
            "DOWNLINK_PORT",
            "DOWNLINK_PORT_8080_TCP_ADDR",
            "DOWNLINK_EVENTS_SERVICE_HOST",
            "DOWNLINK_EVENTS_PORT_80_TCP",
        ] {
            assert_eq!(refused(name), None);
        }
    }
}
