//! Finds the paths in a sequence of tokens, such as the input of a macro.
//!
//! The tokens have no syntax tree, so a path is a chain of words with `::` between them. Fields,
//! methods and lifetimes are not paths. A single word is a path if it begins with a capital letter,
//! or if it is called as a function or as a macro.

use proc_macro2::{Delimiter, Spacing, Span, TokenStream, TokenTree};

/// Returns the paths with their positions.
pub(super) fn find(tokens: TokenStream) -> Vec<(Vec<String>, Span)> {
    let mut paths = Vec::new();
    scan(&[], tokens, &mut paths);
    paths
}

/// Adds the paths in `tokens`. The paths at the top level get the prefix `before`.
fn scan(before: &[String], tokens: TokenStream, paths: &mut Vec<(Vec<String>, Span)>) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(tree) = trees.get(at) {
        match tree {
            TokenTree::Ident(word) if *word == "crate" || !is_continued(&trees[..at]) => {
                let mut segments = before.to_vec();
                let words = chain(&trees[at..], &mut segments);
                at += words;
                let next = trees.get(at);
                match brace_after_colons(&trees[at..]) {
                    Some(group) => {
                        scan(&segments, group, paths);
                        at += 3;
                    }
                    None if segments.len() > 1 || is_name(&segments, next) => {
                        paths.push((segments, word.span()));
                    }
                    None => {}
                }
                continue;
            }
            TokenTree::Group(group) => scan(&[], group.stream(), paths),
            TokenTree::Literal(literal) => {
                paths.extend(quoted_path(&literal.to_string()).map(|path| (path, literal.span())));
            }
            _ => {}
        }
        at += 1;
    }
}

/// True if the word after `trees` does not begin a path: `.field`, `'lifetime`, `$variable`,
/// `::outside`.
fn is_continued(trees: &[TokenTree]) -> bool {
    match trees {
        // `a..b` is a range, not a field.
        [.., TokenTree::Punct(first), TokenTree::Punct(last)]
            if last.as_char() == '.' && first.as_char() == '.' =>
        {
            false
        }
        [.., TokenTree::Punct(last)] => {
            matches!(last.as_char(), '.' | '\'' | '$') || ends_path(trees)
        }
        _ => false,
    }
}

/// True if the tokens end with `::`.
fn ends_path(trees: &[TokenTree]) -> bool {
    matches!(trees, [.., TokenTree::Punct(first), TokenTree::Punct(last)]
        if first.as_char() == ':' && first.spacing() == Spacing::Joint && last.as_char() == ':')
}

/// Adds the words of the chain at the start of `trees`. Returns the number of its tokens.
fn chain(trees: &[TokenTree], segments: &mut Vec<String>) -> usize {
    let mut at = 0;
    while let Some(TokenTree::Ident(word)) = trees.get(at) {
        segments.push(word.to_string());
        at += 1;
        match trees.get(at..at + 3) {
            Some([_, _, TokenTree::Ident(_)]) if ends_path(&trees[..at + 2]) => at += 2,
            _ => break,
        }
    }
    at
}

/// The group in `::{…}`.
fn brace_after_colons(trees: &[TokenTree]) -> Option<TokenStream> {
    match trees {
        [_, _, TokenTree::Group(group), ..]
            if group.delimiter() == Delimiter::Brace && ends_path(&trees[..2]) =>
        {
            Some(group.stream())
        }
        _ => None,
    }
}

/// True if a single word may be the name of an item.
fn is_name(segments: &[String], next: Option<&TokenTree>) -> bool {
    let is_called = match next {
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Parenthesis,
        Some(TokenTree::Punct(punct)) => punct.as_char() == '!',
        _ => false,
    };
    is_called || segments.iter().any(|word| word.starts_with(char::is_uppercase))
}

/// The path in a string such as `"crate::codec"`, as in serde's attributes.
fn quoted_path(literal: &str) -> Option<Vec<String>> {
    let text = literal.strip_prefix('"')?.strip_suffix('"')?;
    let segments: Vec<String> = text.split("::").map(str::to_owned).collect();
    let is_word = |word: &String| word.chars().all(|c| c.is_alphanumeric() || c == '_');
    let is_relative = ["crate", "self", "super"].contains(&segments.first()?.as_str());
    (is_relative && segments.len() > 1 && segments.iter().all(is_word)).then_some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let found = find(text.parse().unwrap());
        found.into_iter().map(|(segments, _)| segments.join("::")).collect()
    }

    #[test]
    fn chains_are_found_at_every_depth() {
        assert_eq!(
            paths("a, super::b(crate::C { d: [self::e::f] })"),
            ["super::b", "crate::C", "self::e::f"]
        );
        assert_eq!(paths("crate::a::<super::B>::c()"), ["crate::a", "super::B"]);
    }

    #[test]
    fn groups_of_imports_inside_macros_are_split_into_paths() {
        assert_eq!(paths("use crate::a::{B, c::D};"), ["crate::a::B", "crate::a::c::D"]);
    }

    #[test]
    fn single_words_count_if_they_can_be_items() {
        assert_eq!(paths("a, B, c(), d!(), e[f]"), ["B", "c", "d"]);
    }

    #[test]
    fn fields_lifetimes_and_outer_paths_do_not_count() {
        assert_eq!(paths("a.B, a.c(), &'D e, ::f::G, h::i"), ["h::i"]);
        assert_eq!(paths("A..B"), ["A", "B"]);
        assert_eq!(paths("$A, $crate::B"), ["crate::B"]);
    }

    #[test]
    fn a_string_counts_if_it_is_a_path_inside_the_crate() {
        assert_eq!(
            paths("with = \"crate::a\", b = \"see crate::a\", c = \"std::d\""),
            ["crate::a"]
        );
    }
}
