//! Tests of the settings, which come from flags, environment variables and a file, and of the help
//! text that describes them.

use std::{fs, path::PathBuf};

use clap::{Args as _, Command, FromArgMatches as _};
use downlink::hub::TopicSelector;
use downlink_server::{
    access::AccessSettings,
    config::{self, RetainRule, Settings},
};

use crate::{Server, downlink, run};

/// A file with settings. Dropping this value removes the file.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("downlink-settings-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("a file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Starts a server and returns its greeting, which is the text that the server prints when it is
/// ready. The greeting has two of the settings: the size of the history in MiB, and the maximum
/// number of connections.
fn greeted(flags: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = downlink(&[&["--listen", "127.0.0.1:0"], flags].concat());
    command.envs(environment.iter().copied());
    Server::of(command).greeting.join("\n")
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = File::new(
        "precedence",
        "history-bytes-max = 1048576\nconnections-max = 7\nkeep-alive = \"2s\"\n",
    );
    let config = ["--config", file.path()];
    let from_file = greeted(&config, &[]);
    assert!(from_file.contains("(1 MiB") && from_file.contains("up to 7 conn"), "{from_file}");
    let environment = [("DOWNLINK_HISTORY_BYTES_MAX", "2097152")];
    let from_environment = greeted(&config, &environment);
    assert!(from_environment.contains("(2 MiB") && from_environment.contains("up to 7 conn"));
    let flags = [&config[..], &["--history-bytes-max", "3145728"]].concat();
    let from_flag = greeted(&flags, &environment);
    assert!(from_flag.contains("(3 MiB") && from_flag.contains("up to 7 conn"), "{from_flag}");
    let named = [("DOWNLINK_CONFIG", file.path())];
    assert!(greeted(&[], &named).contains("(1 MiB"));
}

#[test]
fn errors_in_a_file_of_settings_name_the_file() {
    for (name, text, says) in [
        ("unknown", "lissten = \"127.0.0.1:0\"", "there is no setting \"lissten\""),
        ("near", "retain_events = 5", "\"retain_events\"; perhaps retain-events is meant"),
        ("far", "frobnicate = 5", "\"frobnicate\"; see downlink serve --help"),
        ("config", "config = \"x\"", "there is no setting \"config\""),
        ("toml", "listen = ", "is not TOML"),
        ("type", "listen = 1.5", "listen must be a string, a whole number, true, false or a list"),
        ("list", "listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]", "listen takes one value"),
        ("rule", "retain = [\"a=events:1\", \"a=events:0\"]", "\"events:0\" needs a whole number"),
        ("table", "[listen]\nport = 1", "listen must be"),
        ("value", "retain-events = \"many\"", "has a setting that cannot be used"),
        ("value2", "retain-events = \"many\"", "retain-events"),
    ] {
        let file = File::new(name, text);
        let refused = run(downlink(&["serve", "--config", file.path()]), "");
        assert_eq!(refused.code, Some(78), "{}", refused.stderr);
        assert!(refused.stderr.contains(file.path()), "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    let missing = run(downlink(&["--config", "/nowhere/downlink.toml"]), "");
    assert_eq!(missing.code, Some(78));
    assert!(missing.stderr.contains("cannot read /nowhere/downlink.toml"), "{}", missing.stderr);
}

#[test]
fn a_wrong_command_line_ends_with_code_2() {
    for arguments in [
        &["--lissten", "x"][..],
        &["serve", "--retain-age", "soon"],
        &["--retain-age", "-5s"],
        &["--host", "push.example"],
        &["dev", "--public", "news"],
        &["serve", "--public", "news//all"],
        &["serve", "--anonymous", "publish"],
        &["serve", "--cors-origin", "app.example"],
        &["--durability", "never"],
        &["--retain", "chat/*=events:many"],
        &["fly"],
        &["decode", "--fast"],
    ] {
        let refused = run(downlink(arguments), "");
        assert_eq!((refused.code, &*refused.stdout), (Some(2), ""), "{arguments:?}");
        assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
    }
}

#[test]
fn times_need_a_unit() {
    let refused = run(downlink(&["--keep-alive", "15"]), "");
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("500ms, 15s, 1h30m, 5d"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("jiff"), "{}", refused.stderr);
}

#[test]
fn units_are_the_same_in_flags_environment_and_file() {
    let text = "history-bytes-max = \"2MiB\"\nretain-age = \"5d\"\nretain-bytes = \"64 kB\"\n\
                retain = [\"a=bytes:1MiB,age:1d12h\"]\n";
    let file = File::new("units", text);
    assert!(greeted(&["--config", file.path()], &[]).contains("(2 MiB"));
    let environment = [
        ("DOWNLINK_HISTORY_BYTES_MAX", "3MiB"),
        ("DOWNLINK_RETAIN_AGE", "1h30m"),
        ("DOWNLINK_RETAIN", "a=events:1; b=bytes:1MiB,age:5d"),
    ];
    assert!(greeted(&[], &environment).contains("(3 MiB"));
    let flags = ["--history-bytes-max", "4MiB", "--retain", "a=bytes:1MiB,age:5d"];
    let flags = [&flags[..], &["--unsent-bytes-max", "16KiB", "--keep-alive", "1m30s"]].concat();
    assert!(greeted(&flags, &[]).contains("(4 MiB"));
    let refused = run(downlink(&["--retain-bytes", "256M"]), "");
    assert!(refused.stderr.contains("64KiB, 256MiB, 16GiB"), "{}", refused.stderr);
}

/// Settings that are lists.
#[derive(Debug, PartialEq)]
struct Lists {
    hosts: Vec<String>,
    public: Vec<TopicSelector>,
    key_files: Vec<PathBuf>,
    retain: Vec<RetainRule>,
}

/// Parses the settings in flags and in a file.
fn lists(flags: &[&str], file: Option<&File>) -> Lists {
    let command = Settings::augment_args(Command::new("downlink"));
    let mut command = AccessSettings::augment_args(command);
    if let Some(file) = file {
        let whole = Command::new("x").subcommand(command);
        let whole = config::with_file(whole, "downlink", file.path().as_ref()).expect("a file");
        command = whole.find_subcommand("downlink").expect("the added subcommand").clone();
    }
    let matches = command.get_matches_from([&["downlink"], flags].concat());
    let settings = Settings::from_arg_matches(&matches).expect("the settings are valid");
    let access = AccessSettings::from_arg_matches(&matches).expect("the settings are valid");
    Lists {
        hosts: access.hosts,
        public: access.public,
        key_files: access.publish_key_file,
        retain: settings.retain,
    }
}

#[test]
fn lists_have_the_same_forms_in_flags_and_in_the_file() {
    let hosts = ["--host", "a.example", "--host", "b.example"];
    let topics = ["--public", "news", "--public", "rooms/{room}/lines"];
    let files = ["--publish-key-file", "a.key", "--publish-key-file", "b.key"];
    let retain = ["--retain", "a=events:1", "--retain", "b=age:1h"];
    let expected = lists(&[hosts, topics, files, retain].concat(), None);
    assert_eq!((expected.hosts.len(), expected.public.len()), (2, 2));
    assert_eq!((expected.key_files.len(), expected.retain.len()), (2, 2));
    let hosts = ["--host", "a.example, b.example"];
    let topics = ["--public", "news;rooms/{room}/lines"];
    let files = ["--publish-key-file", "a.key,b.key"];
    let retain = ["--retain", "a=events:1; b=age:1h"];
    assert_eq!(lists(&[hosts, topics, files, retain].concat(), None), expected);
    let text = "host = \"a.example,b.example\"\npublic = \"news;rooms/{room}/lines\"\n\
                publish-key-file = \"a.key,b.key\"\nretain = \"a=events:1;b=age:1h\"\n";
    assert_eq!(lists(&[], Some(&File::new("split", text))), expected);
    let text = "host = [\"a.example\", \"b.example\"]\n\
                public = [\"news\", \"rooms/{room}/lines\"]\n\
                publish-key-file = [\"a.key\", \"b.key\"]\n\
                retain = [\"a=events:1\", \"b=age:1h\"]\n";
    assert_eq!(lists(&[], Some(&File::new("arrays", text))), expected);
}

#[test]
fn invalid_hosts_are_errors() {
    for host in ["https://a.example", "*", "a;b", ""] {
        let refused = run(downlink(&["serve", "--host", host]), "");
        assert_eq!((refused.code, &*refused.stdout), (Some(2), ""), "{host}");
        assert!(refused.stderr.contains("separate names with commas"), "{}", refused.stderr);
        let mut command = downlink(&["serve"]);
        command.env("DOWNLINK_HOST", host);
        let refused = run(command, "");
        assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{host}");
        assert!(refused.stderr.contains("separate names with commas"), "{}", refused.stderr);
        assert!(refused.stderr.contains("an environment variable"), "{}", refused.stderr);
    }
}

/// A development server would ignore these settings and would allow everything.
#[test]
fn a_development_server_refuses_settings_of_access_control() {
    for (variable, value) in [
        ("DOWNLINK_PUBLISH_KEY_FILE", "/run/secrets/app.key"),
        ("DOWNLINK_HOST", "push.example"),
        ("DOWNLINK_PUBLIC", "news"),
        ("DOWNLINK_ADMIN_LISTEN", "127.0.0.1:0"),
    ] {
        for arguments in [&["dev"][..], &[]] {
            let mut command = downlink(arguments);
            command.env(variable, value);
            let refused = run(command, "");
            assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{variable}");
            let says = format!("{variable} is a setting of downlink serve");
            assert!(refused.stderr.contains(&says), "{}", refused.stderr);
        }
    }
    let file = File::new("dev", "publish-key-file = \"app.key\"\n");
    let refused = run(downlink(&["dev", "--config", file.path()]), "");
    assert_eq!((refused.code, &*refused.stdout), (Some(78), ""));
    let says = "publish-key-file is a setting of downlink serve";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
}

#[test]
fn unknown_environment_variables_are_errors() {
    for arguments in [&["serve"][..], &["subscribe", "a"], &["decode"]] {
        let mut command = downlink(arguments);
        command.env("DOWNLINK_RETAIN_EVENT", "5");
        let refused = run(command, "");
        assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{arguments:?}");
        assert!(refused.stderr.contains("no environment variable DOWNLINK_RETAIN_EVENT"));
        assert!(refused.stderr.contains("perhaps DOWNLINK_RETAIN_EVENTS is meant"));
    }
    // Kubernetes sets such variables for each service. If a service is named `downlink`, they begin
    // like the program's own variables, and the program must ignore them.
    let service = [("DOWNLINK_SERVICE_HOST", "10.0.0.1"), ("DOWNLINK_PORT", "tcp://10.0.0.1:80")];
    assert!(greeted(&[], &service).contains("listening on"));
}

#[test]
fn version_prints_the_version() {
    let version = run(downlink(&["--version"]), "");
    assert_eq!(version.stdout, format!("downlink {}\n", downlink_server::VERSION));
}

#[test]
fn help_describes_every_setting_and_its_variable() {
    let help = run(downlink(&["serve", "--help"]), "");
    assert_eq!(help.code, Some(0));
    let settings = Settings::augment_args(Command::new("settings"));
    let settings = AccessSettings::augment_args(settings);
    for setting in settings.get_arguments() {
        let flag = setting.get_long().expect("a flag");
        let variable = setting.get_env().expect("a variable").to_str().expect("ASCII");
        let is_shown = |placeholder| help.stdout.contains(&format!("--{flag} {placeholder}"));
        assert!(is_shown("<") || is_shown("[<true|false>]"), "{flag}");
        assert!(help.stdout.contains(&format!("[env: {variable}=")), "{variable}");
        assert!(setting.get_help().is_some(), "{flag}");
        let named = variable.trim_start_matches("DOWNLINK_").to_lowercase().replace('_', "-");
        assert_eq!(named, flag, "the variable has the name of its flag");
    }
    let overview = run(downlink(&["--help"]), "");
    for word in COMMANDS.iter().chain(&["downlink dev --help and downlink serve --help"]) {
        assert!(overview.stdout.contains(word), "{word}");
    }
    for help in [&help.stdout, &overview.stdout] {
        assert!(help.contains("DOWNLINK_LOG") && help.contains("78 for a setting"), "{help}");
    }
}

const COMMANDS: [&str; 14] = [
    "dev",
    "serve",
    "config",
    "publish",
    "subscribe",
    "decode",
    "health",
    "cluster",
    "backup",
    "key",
    "token",
    "bench",
    "completions",
    "man",
];

#[test]
fn the_readme_lists_every_command() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = fs::read_to_string(readme).expect("an existing file");
    let overview = run(downlink(&["--help"]), "").stdout;
    let commands = overview.split("Commands:").nth(1).expect("a list").trim_start_matches('\n');
    let names = commands.lines().take_while(|line| !line.is_empty());
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names.strip_suffix(&["help"]).expect("clap adds the command help"), COMMANDS);
    for name in COMMANDS {
        assert!(readme.contains(&format!("downlink {name}")), "{name}");
    }
}

#[test]
fn the_help_of_bench_shows_its_placeholders() {
    let help = run(downlink(&["bench", "--help"]), "").stdout;
    for placeholder in ["{topic} and {n},", "{payload} and {topic}"] {
        assert!(help.contains(placeholder), "{placeholder}: {help}");
    }
    assert!(!help.contains('\u{1b}'), "output to a pipe has no style");
    let refused = run(downlink(&["bench", "--duration", "soon"]), "");
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("500ms, 15s, 1h30m"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("jiff"), "{}", refused.stderr);
}

#[test]
fn completions_contain_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(downlink(&["completions", shell]), "");
        assert_eq!((script.code, &*script.stderr), (Some(0), ""));
        for word in COMMANDS.iter().chain(&["drain-within"]) {
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
        assert!(!script.stdout.contains('\u{1b}'), "{shell}");
    }
    assert_eq!(run(downlink(&["completions", "dosshell"]), "").code, Some(2));
}

#[test]
fn every_command_has_a_manual_page() {
    let overview = run(downlink(&["man"]), "").stdout;
    assert!(overview.contains(".TH downlink 1"), "{overview}");
    for name in COMMANDS {
        let page = run(downlink(&["man", name]), "");
        assert_eq!((page.code, &*page.stderr), (Some(0), ""));
        assert!(page.stdout.contains(&format!("downlink\\-{name}")), "{}", page.stdout);
        assert!(!page.stdout.contains('\u{1b}'), "{name}");
        assert!(overview.contains(name));
    }
    let serve = run(downlink(&["man", "serve"]), "").stdout;
    assert!(serve.contains("DOWNLINK_DRAIN_WITHIN") && serve.contains("DOWNLINK_LOG"));
    let unknown = run(downlink(&["man", "fly"]), "");
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("no command \"fly\""), "{}", unknown.stderr);
}
