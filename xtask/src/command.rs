//! Starts other programs.
//!
//! Each command is printed as a line that can be pasted into a shell. The program gets no input. If
//! the program fails, the error contains the line.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// A command for `program` that runs in `directory`.
pub(crate) fn command(directory: &Path, program: impl AsRef<OsStr>, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).args(words).stdin(Stdio::null());
    command
}

/// Runs a command. Its output goes to the terminal.
///
/// # Errors
///
/// If the program cannot be started or does not exit with success. The message contains the line.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start: {line}"))?;
    if !status.success() {
        bail!("{status}: {line}");
    }
    Ok(())
}

/// Runs a command and returns its output. Nothing is printed.
///
/// # Errors
///
/// The same as for [`run`]. The message also contains the program's stderr.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let output = command.output().with_context(|| format!("cannot start: {line}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {line}\n{}", output.status, said.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("output is not UTF-8: {line}"))
}

/// True if the program can be started and exits with success.
pub(crate) fn answers(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// The command as one line for a shell.
pub(crate) fn line(command: &Command) -> String {
    let settings = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), word(value?))));
    let program = word(command.get_program());
    let words = command.get_args().map(word);
    settings.chain([program]).chain(words).collect::<Vec<_>>().join(" ")
}

/// One word of a shell line, quoted if necessary.
fn word(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        command(Path::new("/"), "sh", &["-c", script])
    }

    #[test]
    fn a_line_is_quoted_for_the_shell() {
        let mut command = shell("it's");
        command.env("FLAGS", "-D warnings");
        assert_eq!(line(&command), r"FLAGS='-D warnings' sh -c 'it'\''s'");
    }

    #[test]
    fn the_error_of_a_failed_command_contains_the_line() {
        let error = run(&mut shell("exit 3")).unwrap_err().to_string();
        assert!(error.contains("sh -c 'exit 3'") && error.contains('3'), "{error}");
    }

    #[test]
    fn output_is_returned_and_an_error_contains_stderr() {
        assert_eq!(output(&mut shell("echo yes")).unwrap(), "yes\n");
        let error = output(&mut shell("echo no >&2; exit 1")).unwrap_err().to_string();
        assert!(error.ends_with("\nno"), "{error}");
    }

    #[test]
    fn a_missing_program_cannot_be_started() {
        let mut missing = command(Path::new("/"), "no-such-program-here", &[]);
        assert!(!answers(&mut missing));
        assert!(answers(&mut shell("true")));
    }
}
