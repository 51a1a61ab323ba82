//! The output of the commands: results go to stdout, errors to stderr.
//!
//! The program that reads stdout may close it early. The command then ends with exit code 0.
//!
//! Much of this text comes from publishers and servers. It may contain characters that control a
//! terminal or that a terminal hides. If the output goes to a terminal, the commands escape these
//! characters. Files and pipes get the text unchanged.

use std::{
    borrow::Cow,
    fmt,
    io::{self, IsTerminal as _, Write as _},
    sync::LazyLock,
};

use anyhow::Context as _;

use crate::logs::is_hidden;

/// Writes a line to stderr. If that fails, the error is ignored, because there is no other place to
/// report it.
pub(super) fn complain(what: fmt::Arguments<'_>) {
    let what = what.to_string();
    let what = if io::stderr().is_terminal() { escaped(&what) } else { Cow::Borrowed(&*what) };
    let _ = writeln!(io::stderr(), "downlink: {what}");
}

/// Returns a text in its form for stdout: escaped if stdout is a terminal, and unchanged if it is
/// not.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    // The check needs a system call, so it runs once and not for each event.
    static ON_A_TERMINAL: LazyLock<bool> = LazyLock::new(|| io::stdout().is_terminal());
    if *ON_A_TERMINAL { escaped(text) } else { Cow::Borrowed(text) }
}

/// Replaces control characters and invisible characters with JSON escapes such as `\u001b`. If the
/// text is JSON, its meaning does not change.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(2 * text.len());
    for letter in text.chars() {
        if is_escaped(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(letter);
        }
    }
    Cow::Owned(shown)
}

/// Whether a character is escaped. Line ends and tabs are part of ordinary texts.
fn is_escaped(letter: char) -> bool {
    !matches!(letter, '\n' | '\t') && is_hidden(letter)
}

/// The program that reads stdout has closed it, as `head` does.
#[derive(Debug)]
pub(super) struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of stdout has closed it")
    }
}

impl std::error::Error for ReaderGone {}

/// Turns the result of a write to stdout into the result of the command.
pub(super) fn printed(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => written.context("cannot write to stdout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_unchanged_and_control_characters_are_escaped() {
        for text in ["plain", "two\nlines\tand a tab", "Grüße 你好 שלום", "می\u{200c}خواهم"]
        {
            assert!(matches!(escaped(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        assert_eq!(escaped("\u{0}\u{1b}[2J\r\u{85}"), "\\u0000\\u001b[2J\\u000d\\u0085");
        assert_eq!(escaped("\u{200e}\u{2066}x\u{2069}"), "\\u200e\\u2066x\\u2069");
        assert_eq!(escaped("\u{e0001}"), "\\udb40\\udc01");
    }
}
