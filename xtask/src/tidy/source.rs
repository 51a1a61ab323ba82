//! A source file as the rules see it: its text and its syntax tree.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use proc_macro2::Span;
use syn::{Attribute, Item, Meta};

use crate::tidy::{Finding, Rule};

/// Directories that hold no source of ours.
const SKIPPED: [&str; 4] = ["target", "node_modules", "artifacts", "corpus"];

/// One `.rs` file.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// The tree, or where parsing failed.
    pub(super) tree: Result<syn::File, syn::Error>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), tree: syn::parse_file(text) }
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

    /// The items of the file; none if it does not parse.
    pub(super) fn items(&self) -> &[Item] {
        self.tree.as_ref().map_or(&[], |tree| tree.items.as_slice())
    }

    /// Whether the file lies in a `tests` directory.
    pub(super) fn is_test(&self) -> bool {
        self.path.split('/').rev().skip(1).any(|folder| folder == "tests")
    }
}

/// The line a span begins in.
pub(super) fn line_of(span: Span) -> usize {
    span.start().line
}

/// Whether an item is compiled for tests only.
pub(super) fn is_cfg_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => {
            list.path.is_ident("cfg")
                && list
                    .tokens
                    .to_string()
                    .split(|c: char| !c.is_alphanumeric())
                    .any(|w| w == "test")
        }
        _ => false,
    })
}

/// Every `.rs` file below the root, sorted by path.
pub(super) fn load_all(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    walk(root, root, &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
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
    fn tests_are_known_by_folder_and_by_attribute() {
        assert!(Source::new("crates/x/tests/it.rs", "").is_test());
        assert!(!Source::new("crates/x/src/tests.rs", "").is_test());
        let source = Source::new(
            "a.rs",
            "#[cfg(test)] mod a {}\n#[cfg(all(test, unix))] mod b {}\nmod c {}",
        );
        let marks: Vec<bool> = source
            .items()
            .iter()
            .map(|item| matches!(item, Item::Mod(module) if is_cfg_test(&module.attrs)))
            .collect();
        assert_eq!(marks, [true, true, false]);
    }
}
