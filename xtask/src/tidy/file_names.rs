//! The rule for the names of files and folders: Windows has to be able to check them out.
//!
//! Windows reserves some characters. It also reserves the names of devices, with or without an
//! extension.

use std::path::Path;

use crate::command::{self, command};
use crate::tidy::{Finding, Rule};

/// The names of devices without a number.
const DEVICES: [&str; 4] = ["aux", "con", "nul", "prn"];
/// The names of devices that have a number from 1 to 9.
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];
/// Characters that Windows reserves. `/` cannot be part of a name.
const CHARACTERS: &str = r#"<>:"|?*\"#;

/// Checks the files in the repository, and new files that git does not ignore.
pub(super) fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = command::output(&mut command(root, "git", &words))?;
    Ok(listed.split_terminator('\0').filter_map(finding).collect())
}

fn finding(path: &str) -> Option<Finding> {
    let (name, problem) = path.split('/').find_map(|name| Some((name, problem(name)?)))?;
    let advice = format!("Windows cannot check out `{name}`: {problem}");
    let (path, subject) = (path.to_owned(), name.to_owned());
    Some(Finding { path, line: 1, rule: Rule::FileNames, subject, advice })
}

/// The reason why Windows refuses a name.
fn problem(name: &str) -> Option<String> {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    if is_device(&stem) {
        return Some(format!("`{stem}` is the name of a device"));
    }
    if let Some(c) = name.chars().find(|c| CHARACTERS.contains(*c) || c.is_ascii_control()) {
        return Some(format!("a name cannot contain {c:?}"));
    }
    name.ends_with(['.', ' ']).then(|| "a name cannot end with a dot or a space".to_owned())
}

fn is_device(stem: &str) -> bool {
    let is_numbered = |device: &&str| {
        stem.strip_prefix(*device).is_some_and(|number| matches!(number.as_bytes(), [b'1'..=b'9']))
    };
    DEVICES.contains(&stem) || NUMBERED_DEVICES.iter().any(is_numbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(path: &str) -> bool {
        finding(path).is_some()
    }

    #[test]
    fn devices_are_refused_in_any_case_and_with_any_extension() {
        for path in ["nul", "a/NUL.sse", "Con.tar.gz", "aux/b.rs", "prn ", "nul .txt"] {
            assert!(is_refused(path), "{path}");
        }
        for path in ["null.rs", "a/console.rs", "nul_characters.sse", "a.nul", "auxiliary"] {
            assert!(!is_refused(path), "{path}");
        }
    }

    #[test]
    fn names_of_devices_with_the_numbers_1_to_9_are_refused() {
        for path in ["com1", "lpt9.txt", "COM5.rs"] {
            assert!(is_refused(path), "{path}");
        }
        for path in ["com", "com0", "com10", "lptx", "lpt.rs"] {
            assert!(!is_refused(path), "{path}");
        }
    }

    #[test]
    fn reserved_characters_and_endings_are_refused() {
        for path in
            ["a<b", "a>b", "a:b", "a\"b", "a|b", "a?b", "a*b", "a\\b", "a\tb", "a.", "b /c", "d."]
        {
            assert!(is_refused(path), "{path:?}");
        }
        assert!(!is_refused(".gitignore") && !is_refused("a b/c-d_e.f+g,h") && !is_refused("ü"));
    }

    #[test]
    fn the_subject_is_the_refused_part_of_the_path() {
        let found = finding("a/aux.d/b.rs").unwrap();
        assert_eq!((found.path.as_str(), found.subject.as_str()), ("a/aux.d/b.rs", "aux.d"));
    }
}
