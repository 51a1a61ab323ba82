//! The rule against banned sequences of tokens. It also looks into macros.

use proc_macro2::{Span, TokenStream, TokenTree};

use crate::tidy::source::{Source, line_of};
use crate::tidy::{Finding, Rule};

/// A banned sequence of tokens, and advice for an alternative.
struct Specimen {
    tokens: &'static [&'static str],
    advice: &'static str,
}

const BANNED: [Specimen; 6] = [
    Specimen { tokens: &["todo", "!"], advice: "finish it, or leave it out" },
    Specimen { tokens: &["unimplemented", "!"], advice: "finish it, or leave it out" },
    Specimen { tokens: &["#", "[", "ignore"], advice: "let the test run, or delete it" },
    Specimen {
        tokens: &["#", "[", "should_panic"],
        advice: "assert on the error: a panic elsewhere would pass this test",
    },
    Specimen {
        tokens: &["thread", ":", ":", "sleep"],
        advice: "wait for the event itself, or use paused time",
    },
    Specimen {
        tokens: &["thread", ":", ":", "sleep_until"],
        advice: "wait for the event itself, or use paused time",
    },
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    // Most files do not contain all tokens of a banned sequence. They are skipped here, because
    // comparing their tokens would be slow.
    if !BANNED.iter().any(|specimen| specimen.tokens.iter().all(|word| source.text.contains(word)))
    {
        return Vec::new();
    }
    let mut tokens = Vec::new();
    flatten(source.tokens.clone(), &mut tokens);
    let mut findings = Vec::new();
    for window in (0..tokens.len()).map(|start| &tokens[start..]) {
        for specimen in BANNED.iter().filter(|specimen| begins_with(window, specimen.tokens)) {
            let shown = specimen.tokens.concat();
            let advice = format!("`{shown}` is banned: {}", specimen.advice);
            let line = line_of(window[0].1);
            findings.push(source.finding(line, Rule::NotAllowed, shown, advice));
        }
    }
    findings
}

fn begins_with(tokens: &[(String, Span)], wanted: &[&str]) -> bool {
    tokens.len() >= wanted.len() && tokens.iter().zip(wanted).all(|((text, _), want)| text == want)
}

/// Adds all tokens in order. Of a pair of delimiters, it adds only the opening delimiter, which is
/// enough to find the banned sequences.
fn flatten(stream: TokenStream, tokens: &mut Vec<(String, Span)>) {
    for tree in stream {
        match tree {
            TokenTree::Group(group) => {
                let opening = match group.delimiter() {
                    proc_macro2::Delimiter::Bracket => "[",
                    proc_macro2::Delimiter::Brace => "{",
                    proc_macro2::Delimiter::Parenthesis => "(",
                    proc_macro2::Delimiter::None => "",
                };
                tokens.push((opening.to_owned(), group.span_open()));
                flatten(group.stream(), tokens);
            }
            TokenTree::Ident(ident) => tokens.push((ident.to_string(), ident.span())),
            TokenTree::Punct(punct) => tokens.push((punct.as_char().to_string(), punct.span())),
            TokenTree::Literal(literal) => tokens.push(("literal".to_owned(), literal.span())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(text: &str) -> Vec<String> {
        check(&Source::new("tests/a.rs", text)).into_iter().map(|f| f.subject).collect()
    }

    #[test]
    fn unfinished_functions_are_found_even_inside_macros() {
        assert_eq!(subjects("fn f() { todo!() }"), ["todo!"]);
        assert_eq!(subjects("fn f() { select! { a => unimplemented!() } }"), ["unimplemented!"]);
    }

    #[test]
    fn ignored_tests_and_tests_that_expect_a_panic_are_found() {
        assert_eq!(subjects("#[test] #[ignore] fn f() {}"), ["#[ignore"]);
        assert_eq!(subjects("#[ignore = \"slow\"] fn f() {}"), ["#[ignore"]);
        assert_eq!(subjects("#[should_panic(expected = \"x\")] fn f() {}"), ["#[should_panic"]);
    }

    #[test]
    fn sleeping_threads_are_found() {
        assert_eq!(subjects("fn f() { std::thread::sleep(d) }"), ["thread::sleep"]);
        assert_eq!(subjects("use std::thread::sleep;"), ["thread::sleep"]);
    }

    #[test]
    fn words_in_strings_and_comments_are_ignored() {
        let text = "// #[ignore] in words\nfn todo() { f(\"todo!()\"); tokio::time::sleep(d); }";
        assert_eq!(subjects(text), Vec::<String>::new());
    }
}
