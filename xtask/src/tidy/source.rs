//! A source file that the rules check: its text and its syntax tree.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::Context as _;
use proc_macro2::{Span, TokenStream};
use syn::Item;

use crate::tidy::{Finding, Rule, test_code};

/// Folders without sources of this project.
const SKIPPED: [&str; 4] = ["target", "node_modules", "artifacts", "corpus"];

/// One `.rs` file.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// The tokens. Empty if the text cannot be split into tokens.
    pub(super) tokens: TokenStream,
    /// The tree, or the error of the parser.
    pub(super) tree: Result<syn::File, syn::Error>,
    /// The lines that are compiled for tests only. No range begins inside another range.
    test_lines: Vec<RangeInclusive<usize>>,
    /// True if the whole file is for tests: it is in a folder `tests`, or its module is test-only.
    pub(super) is_test: bool,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let tokens = text.parse::<TokenStream>().map_err(syn::Error::from);
        let tree = tokens.clone().and_then(syn::parse2::<syn::File>);
        let tokens = tokens.unwrap_or_default();
        let test_lines = tree.as_ref().map(test_code::lines).unwrap_or_default();
        let is_in_tests = path.split('/').rev().skip(1).any(|folder| folder == "tests");
        let is_test = is_in_tests || tree.as_ref().is_ok_and(test_code::is_whole);
        let (path, text) = (path.to_owned(), text.to_owned());
        Self { path, text, tokens, tree, test_lines, is_test }
    }

    /// Makes sources below a folder from their paths and texts.
    #[cfg(test)]
    pub(super) fn all_below(folder: &str, files: &[(&str, &str)]) -> Vec<Self> {
        let files = files.iter();
        files.map(|(path, text)| Self::new(&format!("{folder}{path}"), text)).collect()
    }

    /// A finding in this file.
    pub(super) fn finding(
        &self,
        line: usize,
        rule: Rule,
        subject: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let (path, subject, advice) = (self.path.clone(), subject.into(), advice.into());
        Finding { path, line, rule, subject, advice }
    }

    /// The items of the file. Empty if the file does not parse.
    pub(super) fn items(&self) -> &[Item] {
        self.tree.as_ref().map_or(&[], |tree| tree.items.as_slice())
    }

    /// True if a line, counted from 1, is compiled for tests only.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|range| range.contains(&line))
    }

    /// The folder with the files of this file's submodules. It ends with a slash.
    pub(super) fn folder_of_modules(&self) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        match name {
            "lib.rs" | "main.rs" | "mod.rs" => format!("{folder}/"),
            _ => format!("{folder}/{}/", name.trim_end_matches(".rs")),
        }
    }
}

/// The line in which a span begins.
pub(super) fn line_of(span: Span) -> usize {
    span.start().line
}

/// Every `.rs` file below the root, sorted by path.
pub(super) fn load_all(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    walk(root, root, &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    test_code::mark_modules(&mut sources);
    Ok(sources)
}

fn walk(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                walk(root, &path, sources)?;
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            sources.push(Source::new(&relative.to_string_lossy().replace('\\', "/"), &text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_file_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let sources = load_all(root).unwrap();
        assert!(sources.iter().any(|source| source.path == "xtask/src/tidy/source.rs"));
    }

    #[test]
    fn test_code_is_recognized_by_folder_and_by_attribute() {
        assert!(Source::new("crates/x/tests/it.rs", "").is_test);
        assert!(!Source::new("crates/x/src/tests.rs", "").is_test);
        let source = Source::new("a.rs", "fn f() {}\n#[cfg(test)]\nmod a {\n}\nfn g() {}");
        let marks: Vec<bool> = (1..=5).map(|line| source.is_test_line(line)).collect();
        assert_eq!(marks, [false, true, true, true, false]);
    }

    #[test]
    fn submodules_of_a_root_file_are_beside_it_and_other_submodules_in_a_subfolder() {
        let folder = |path| Source::new(path, "").folder_of_modules();
        assert_eq!(folder("crates/x/src/lib.rs"), "crates/x/src/");
        assert_eq!(folder("crates/x/src/a/mod.rs"), "crates/x/src/a/");
        assert_eq!(folder("crates/x/src/a.rs"), "crates/x/src/a/");
    }
}
