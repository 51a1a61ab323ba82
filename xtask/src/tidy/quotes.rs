//! The rule for quotations: the guide has to contain each file of `deploy/proxies`, `deploy/relays` and
//! `deploy/cluster` unchanged, because the checks with real proxies use these files.
//!
//! A quotation is a fenced block. The last line of text before the block ends with the name of the
//! file: "`deploy/proxies/nginx.conf`:".

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::tidy::{Finding, Rule};

/// The folders, each with the chapter that quotes its files.
const QUOTED: [(&str, &str); 3] = [
    ("deploy/proxies", "crates/downlink/guide/15-reverse-proxies.md"),
    ("deploy/relays", "crates/downlink/guide/29-several-machines.md"),
    ("deploy/cluster", "crates/downlink/guide/30-a-cluster.md"),
];

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (folder, name) in QUOTED {
        let chapter = read(&root.join(name))?;
        for entry in fs::read_dir(root.join(folder)).context(folder)? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            let path = format!("{folder}/{file}");
            let text = read(&root.join(&path))?;
            findings.extend(compare(&path, &text, (name, &chapter)));
        }
    }
    Ok(findings)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Compares a file with its quotation in a chapter. The chapter is given by its name and its text.
fn compare(path: &str, text: &str, (name, chapter): (&str, &str)) -> Option<Finding> {
    let finding = |line, advice| {
        let (path, subject) = (name.to_owned(), path.to_owned());
        Some(Finding { path, line, rule: Rule::Quotes, subject, advice })
    };
    let Some((line, quoted)) = quotation(chapter, &format!("`{path}`:")) else {
        return finding(1, format!("quote the file after a line that ends with \"`{path}`:\""));
    };
    if quoted == text {
        return None;
    }
    let same = quoted.lines().zip(text.lines()).take_while(|(a, b)| a == b).count();
    finding(line + same, format!("from here on the block differs from {path}: copy the file"))
}

/// The text of the block after a line that ends with `intro`, and the number of its first line.
fn quotation(chapter: &str, intro: &str) -> Option<(usize, String)> {
    let mut lines = chapter.lines().enumerate().skip_while(|(_, line)| !line.ends_with(intro));
    lines.next()?;
    let (fence, _) = lines.find(|(_, line)| !line.is_empty())?;
    if !chapter.lines().nth(fence)?.starts_with("```") {
        return None;
    }
    let block = lines.take_while(|(_, line)| *line != "```");
    Some((fence + 2, block.flat_map(|(_, line)| [line, "\n"]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "deploy/proxies/a.conf";
    const CHAPTER: &str = "guide/15.md";

    fn chapter(block: &str) -> String {
        format!("# A\n\nThe file `{PATH}`:\n\n```a\n{block}```\n\nMore.\n")
    }

    #[test]
    fn an_unchanged_quotation_gives_no_finding() {
        assert_eq!(compare(PATH, "one\n\ntwo\n", (CHAPTER, &chapter("one\n\ntwo\n"))), None);
    }

    #[test]
    fn the_finding_has_the_first_different_line() {
        for (text, line) in [("one\n\n2\n", 8), ("one\n", 7), ("one\n\ntwo\nthree\n", 9)] {
            let found = compare(PATH, text, (CHAPTER, &chapter("one\n\ntwo\n"))).unwrap();
            assert_eq!((found.rule, found.line), (Rule::Quotes, line), "{text:?}");
        }
    }

    #[test]
    fn a_file_without_a_quotation_gives_a_finding() {
        assert!(compare("deploy/proxies/b.conf", "one\n", (CHAPTER, &chapter("one\n"))).is_some());
        assert!(
            compare(PATH, "one\n", (CHAPTER, "The file `deploy/proxies/a.conf`:\n\nNothing.\n"))
                .is_some()
        );
    }
}
