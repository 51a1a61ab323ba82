//! The page `docs/SETTINGS.md`, made from the definitions of the arguments.

use clap::{Arg, Command};

use crate::values::settings;

const HEAD: &str = "\
# Settings

This page lists every setting of `downlink serve` and `downlink dev`. A test makes the page from the definitions in the code, so do not edit it by hand.

Each setting has one name. The setting `keep-alive` is the flag `--keep-alive`, the environment variable `DOWNLINK_KEEP_ALIVE`, and the key `keep-alive` in the settings file. A flag overrides the environment, and the environment overrides the file. The file is TOML, and `--config FILE` or `DOWNLINK_CONFIG` gives its path. `downlink config show` prints all values with their sources, and `downlink config check` checks them.

At `SIGHUP`, and within ten seconds after its settings file or a key file has changed, `downlink serve` reads these files again. The column *reload* says which settings it then applies. The server logs a warning if another setting has changed, because this setting needs a restart. If the settings or a file cannot be used, nothing changes, and the log says why. A reload keeps the flags and the environment variables of the start.
";

const TABLE: &str = "
| setting | variable | default | reload | meaning |
|---|---|---|---|---|
";

/// The page for the settings of `serve`. Those of `dev` are the first part.
pub(super) fn page(serve: &Command, dev: &Command, reloaded: &[&str]) -> String {
    let of_dev: Vec<_> = settings(dev).map(Arg::get_id).collect();
    let (both, of_serve): (Vec<&Arg>, Vec<&Arg>) =
        settings(serve).partition(|arg| of_dev.contains(&arg.get_id()));
    let rows = |args: Vec<&Arg>| -> String { args.iter().map(|arg| row(arg, reloaded)).collect() };
    format!(
        "{HEAD}\n## Settings of serve and dev\n{TABLE}{}\n## Settings of serve only\n{TABLE}{}",
        rows(both),
        rows(of_serve)
    )
}

fn row(arg: &Arg, reloaded: &[&str]) -> String {
    let name = arg.get_long().unwrap();
    let values = arg.get_value_names().unwrap()[0].replace('|', "\\|");
    let variable = arg.get_env().unwrap().to_str().unwrap();
    let default: Vec<_> =
        arg.get_default_values().iter().map(|text| text.to_str().unwrap()).collect();
    let default =
        if default.is_empty() { "–".to_owned() } else { format!("`{}`", default.join(",")) };
    let reload = if reloaded.contains(&name) { "yes" } else { "no" };
    let help = arg.get_help().unwrap().to_string().replace('|', "\\|");
    format!("| `{name}` `{values}` | `{variable}` | {default} | {reload} | {help}. |\n")
}
