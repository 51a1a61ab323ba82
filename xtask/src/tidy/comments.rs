//! The rules for comments: no unfinished work, no commented-out code.
//!
//! A small scanner finds the comments, since the syntax tree does not contain them. The scanner
//! skips strings, raw strings and characters, so it ignores `"// not a comment"`.

use std::ops::Range;

use crate::tidy::source::Source;
use crate::tidy::{Finding, Rule};

/// Words that mark unfinished work.
const MARKS: [&str; 3] = ["TODO", "FIXME", "XXX"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    scan(&source.text).iter().filter_map(|comment| check_comment(source, comment)).collect()
}

fn check_comment(source: &Source, comment: &Comment<'_>) -> Option<Finding> {
    let is_word = |word: &&str| MARKS.contains(word);
    let words = comment.text.split(|c: char| !c.is_alphanumeric() && c != '_');
    if let Some(mark) = { words }.find(is_word) {
        let advice = format!("`{mark}`: do it now, or describe it in an issue");
        return Some(source.finding(comment.line, Rule::UnfinishedWork, mark, advice));
    }
    if !comment.is_doc && is_code(comment.text) {
        let subject = comment.text.trim();
        let advice = format!("`{subject}` looks like commented-out code: delete it");
        return Some(source.finding(comment.line, Rule::CommentedOutCode, subject, advice));
    }
    None
}

/// True if a line of a comment looks like a statement, or like the beginning of a block of code.
fn is_code(text: &str) -> bool {
    let text = text.trim();
    let whole = match text.chars().last() {
        Some(';') => format!("{{ {text} }}"),
        Some('{') => format!("{{ {text} }} }}"),
        _ => return false,
    };
    syn::parse_str::<syn::Block>(&whole).is_ok()
}

/// One line of a comment.
#[derive(Debug, Eq, PartialEq)]
struct Comment<'a> {
    /// The line, counted from 1.
    line: usize,
    /// The text after the slashes.
    text: &'a str,
    is_doc: bool,
}

/// All comments of a file.
fn scan(text: &str) -> Vec<Comment<'_>> {
    let mut comments = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for span in spans(text) {
        line += text[counted..span.start].matches('\n').count();
        counted = span.start;
        let comment = &text[span];
        if let Some(after_slashes) = comment.strip_prefix("//") {
            let is_doc = after_slashes.starts_with('!')
                || (after_slashes.starts_with('/') && !after_slashes.starts_with("//"));
            comments.push(Comment { line, text: after_slashes, is_doc });
        } else {
            let lines = comment.lines().enumerate();
            comments.extend(lines.map(|(n, text)| Comment { line: line + n, text, is_doc: true }));
        }
    }
    comments
}

/// The numbers of the lines that contain more than comments and white space.
pub(super) fn code_lines(text: &str) -> Vec<usize> {
    let mut code = text.as_bytes().to_vec();
    for byte in spans(text).into_iter().flatten() {
        if code[byte] != b'\n' {
            code[byte] = b' ';
        }
    }
    let lines = code.split(|byte| *byte == b'\n').enumerate();
    let has_code = |line: &[u8]| !line.iter().all(u8::is_ascii_whitespace);
    lines.filter(|(_, line)| has_code(line)).map(|(n, _)| n + 1).collect()
}

/// The byte range of each comment.
fn spans(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        at += match byte {
            b'/' => {
                let length = comment(&text[at..]);
                spans.extend(length.map(|length| at..at + length));
                length.unwrap_or(1)
            }
            b'"' | b'\'' | b'r' => literal(&text[at..]),
            _ => 1,
        };
    }
    spans
}

/// The length of the comment at the beginning of `text`.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        Some(text.find('\n').unwrap_or(text.len()))
    } else {
        text.starts_with("/*").then(|| block_comment(text))
    }
}

/// The length of a block comment, including nested block comments.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of the literal at the beginning of `text`. If `text` does not begin with a literal,
/// this is the length of the first character.
fn literal(text: &str) -> usize {
    let first = text.chars().next().map_or(1, char::len_utf8);
    match text.as_bytes() {
        [b'"', ..] => quoted(text, '"'),
        [b'r', b'"' | b'#', ..] => raw_string(text).unwrap_or(first),
        // A character, not a lifetime: `'a'` or an escape.
        [b'\'', b'\\', ..] => quoted(text, '\''),
        [b'\'', ..] => match text[1..].chars().next() {
            Some(c) if text[1 + c.len_utf8()..].starts_with('\'') => c.len_utf8() + 2,
            _ => first,
        },
        _ => first,
    }
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string at the beginning of `text`. `None` if `text` begins with a raw
/// identifier, such as `r#type`.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let content = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - content.len();
    Some(content.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, Rule)> {
        check(&Source::new("a.rs", text)).into_iter().map(|f| (f.line, f.rule)).collect()
    }

    #[test]
    fn unfinished_work_is_found_in_every_kind_of_comment() {
        assert_eq!(found("fn f() {} // TODO: more"), [(1, Rule::UnfinishedWork)]);
        assert_eq!(found("/// FIXME\nfn f() {}"), [(1, Rule::UnfinishedWork)]);
        assert_eq!(found("/* a\n/* b */ XXX */\n// c"), [(2, Rule::UnfinishedWork)]);
        assert_eq!(found("// A todo list, TODOS and the like."), []);
    }

    #[test]
    fn commented_out_code_is_found() {
        assert_eq!(found("// let x = f(y);"), [(1, Rule::CommentedOutCode)]);
        assert_eq!(found("\n    // if x > 1 {\n"), [(2, Rule::CommentedOutCode)]);
        assert_eq!(found("// fn f() -> u8 {"), [(1, Rule::CommentedOutCode)]);
    }

    #[test]
    fn sentences_are_not_code() {
        assert_eq!(found("// The reader takes all there is;\n// then it waits."), []);
        assert_eq!(found("/// ```\n/// let x = 1;\n/// ```\nfn f() {}"), []);
        assert_eq!(found("//! let x = 1;"), []);
    }

    #[test]
    fn comments_and_blank_lines_are_not_code() {
        let text = "// a\n\nlet b; // b\n/* c\n\n c */ let d;\n  \n/// e\nlet f = \"\n// g\";\n";
        assert_eq!(code_lines(text), [3, 6, 9, 10]);
        assert!(code_lines("").is_empty());
    }

    #[test]
    fn literals_are_not_comments() {
        let text = "const A: &str = \"// TODO\"; const B: &str = r#\"\" // TODO\"#;
            const C: char = '\"'; const D: char = '\\''; fn f<'a>(x: &'a str) {} // TODO";
        assert_eq!(found(text), [(2, Rule::UnfinishedWork)]);
    }
}
