//! The rule for names of files and folders: each can be checked out on Windows, too.
//!
//! Windows reserves the names of devices, with any extension, and some characters.

use std::path::Path;

use crate::command::{self, command};
use crate::tidy::{Finding, Rule};

/// Devices without a number.
const DEVICES: [&str; 4] = ["aux", "con", "nul", "prn"];
/// Devices with a number from 1 to 9.
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];
/// Characters with a meaning in paths and commands. `/` is in no name.
const CHARACTERS: &str = r#"<>:"|?*\"#;

/// Checks the files of the repository, and new files that git does not ignore.
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
        return Some(format!("`{stem}` is a device there"));
    }
    if let Some(c) = name.chars().find(|c| CHARACTERS.contains(*c) || c.is_ascii_control()) {
        return Some(format!("no name contains {c:?} there"));
    }
    name.ends_with(['.', ' ']).then(|| "no name ends with a dot or a space there".to_owned())
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
    fn devices_have_the_numbers_from_1_to_9() {
        for path in ["com1", "lpt9.txt", "COM5.rs"] {
            assert!(is_refused(path), "{path}");
        }
        for path in ["com", "com0", "com10", "lptx", "lpt.rs"] {
            assert!(!is_refused(path), "{path}");
        }
    }

    #[test]
    fn characters_and_ends_that_windows_lacks_are_refused() {
        for path in
            ["a<b", "a>b", "a:b", "a\"b", "a|b", "a?b", "a*b", "a\\b", "a\tb", "a.", "b /c", "d."]
        {
            assert!(is_refused(path), "{path:?}");
        }
        assert!(!is_refused(".gitignore") && !is_refused("a b/c-d_e.f+g,h") && !is_refused("ü"));
    }

    #[test]
    fn a_finding_names_the_part_of_the_path() {
        let found = finding("a/aux.d/b.rs").unwrap();
        assert_eq!((found.path.as_str(), found.subject.as_str()), ("a/aux.d/b.rs", "aux.d"));
    }
}
