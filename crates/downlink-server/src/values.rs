//! The settings of a server as texts, and where each comes from.
//!
//! [`Values`] has every setting of a command, in the order of its help. As TOML, it is a settings
//! file from which the server reads the same settings. A password in a URL is not shown.

use std::{collections::BTreeSet, fmt::Write as _};

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

/// The text in place of the password of a URL.
const MASK: &str = "***";

/// Where a value comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// A flag of the command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
    /// No source sets it.
    Default,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// One setting.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Value {
    name: String,
    /// The texts of the value. Empty if the setting has no value.
    texts: Vec<String>,
    is_list: bool,
    source: Source,
}

/// The settings of a command.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Values(Vec<Value>);

impl Values {
    /// The settings of a subcommand, with their values in `matches`. They are in the order of
    /// `subcommand`. The caller passes the subcommand as it was before
    /// [`with_file`](crate::config::with_file) changed it, because that function changes the order.
    /// `in_file` has the names of the settings in the settings file. It is needed because the
    /// values of the file are the defaults of the flags, so `matches` does not show which of them
    /// come from the file. A path that is not valid UTF-8 is shown with replacement characters.
    pub fn new(subcommand: &Command, matches: &ArgMatches, in_file: &BTreeSet<String>) -> Self {
        Self(settings(subcommand).filter_map(|arg| Value::of(arg, matches, in_file)).collect())
    }

    /// The settings as a settings file. A comment after each value names its source.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for value in &self.0 {
            // Writing to a string does not fail.
            let _ = match value.toml() {
                Some(toml) => {
                    writeln!(text, "{} = {toml} # {}", value.name, value.source.name())
                }
                None => writeln!(text, "# {} is not set", value.name),
            };
        }
        text
    }

    /// The settings as JSON: an object with the value and the source of each setting.
    pub fn to_json(&self) -> serde_json::Value {
        let entry = |value: &Value| {
            let shown = serde_json::to_value(value.toml()).unwrap_or_default();
            let source = value.source.name();
            (value.name.clone(), serde_json::json!({ "value": shown, "source": source }))
        };
        serde_json::Value::Object(self.0.iter().map(entry).collect())
    }

    /// The names of the settings whose values differ in `other`, with both values as texts.
    pub(crate) fn differences<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a str, String, String)> {
        let differ = |(a, b): &(&Value, &Value)| a.texts != b.texts;
        let text = |value: &Value| value.toml().map_or("not set".to_owned(), |it| it.to_string());
        let pairs = self.0.iter().zip(&other.0).filter(differ);
        pairs.map(move |(a, b)| (&*a.name, text(a), text(b)))
    }

    /// These settings, but with the values of `other` for the settings that have one of these
    /// names.
    pub(crate) fn updated(&self, other: &Self, names: &[&str]) -> Self {
        let pick = |(ours, theirs): (&Value, &Value)| {
            let is_named = names.contains(&&*ours.name);
            if is_named { theirs.clone() } else { ours.clone() }
        };
        Self(self.0.iter().zip(&other.0).map(pick).collect())
    }
}

impl Value {
    fn of(arg: &Arg, matches: &ArgMatches, in_file: &BTreeSet<String>) -> Option<Self> {
        let (id, name) = (arg.get_id().as_str(), arg.get_long()?.to_owned());
        let texts = matches.get_raw(id).into_iter().flatten();
        let texts = texts.map(|text| masked(&text.to_string_lossy())).collect();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Source::Flag,
            Some(ValueSource::EnvVariable) => Source::Environment,
            _ if in_file.contains(&name) => Source::File,
            _ => Source::Default,
        };
        let is_list = matches!(arg.get_action(), ArgAction::Append);
        Some(Self { name, texts, is_list, source })
    }

    /// The value in a settings file. `None` if there is no value.
    fn toml(&self) -> Option<toml::Value> {
        match (&*self.texts, self.is_list) {
            ([], false) => None,
            ([text], false) => Some(scalar(text)),
            (texts, _) => Some(toml::Value::from(texts.to_vec())),
        }
    }
}

/// The settings of a subcommand. The path of the settings file is not a setting.
pub(crate) fn settings(subcommand: &Command) -> impl Iterator<Item = &Arg> {
    let arguments = subcommand.get_arguments();
    arguments.filter(|arg| arg.get_env().is_some() && arg.get_id() != "config")
}

/// Turns a text into a TOML value: a number or a boolean if the text is exactly the usual form of
/// such a value, and otherwise a string.
fn scalar(text: &str) -> toml::Value {
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    let flag = || text.parse().ok().map(toml::Value::Boolean);
    let value = number.map(toml::Value::Integer).or_else(flag);
    value.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// The text without the user names and passwords of its URLs.
pub(crate) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let is_end = |c: char| matches!(c, '/' | '?' | '#' | '\'' | '"' | '`') || c.is_whitespace();
        let authority = after.split(is_end).next().unwrap_or_default();
        let word = after.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"')).next();
        // A password may contain a character that ends the authority (the part of a URL between
        // `//` and the path). Such a URL is refused, and the error quotes it, so the password must
        // be masked here too.
        let is_port = |text: &str| text.ends_with(']') || text.bytes().all(|b| b.is_ascii_digit());
        let is_cut = !authority.contains('@')
            && authority.rsplit_once(':').is_some_and(|(_, after)| !is_port(after));
        let host =
            if is_cut { word.and_then(|word| word.rfind('@')) } else { authority.rfind('@') };
        masked.extend([before, "://", host.map_or("", |_| MASK)]);
        rest = after.get(host.unwrap_or_default()..).unwrap_or_default();
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked() {
        assert_eq!(masked("https://me:p@ss@app.example/a@b"), "https://***@app.example/a@b");
        assert_eq!(masked("redis://:secret@h?x=@"), "redis://***@h?x=@");
        assert_eq!(masked("'https://me:pa#s/s@h' and"), "'https://***@h' and");
        let text = "invalid value 'https://me:pass@h/a': see http://b@c and https://d";
        let due = "invalid value 'https://***@h/a': see http://***@c and https://d";
        assert_eq!(masked(text), due);
        for text in [
            "https://h:8080/a@b",
            "http://[::1]/a@b",
            "https://app.example/a@b",
            "a@b",
            "https://h",
            "unix:/run/a@b",
            "",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn a_text_becomes_a_number_only_if_the_number_prints_as_this_text() {
        assert_eq!(scalar("1000"), toml::Value::Integer(1000));
        assert_eq!(scalar("true"), toml::Value::Boolean(true));
        for text in ["0660", "+1", "1e3", "99999999999999999999", "True", ""] {
            assert_eq!(scalar(text), toml::Value::String(text.to_owned()));
        }
    }
}
