//! The table of exceptions from the rules of `cargo xtask tidy`. Each exception has a reason. It
//! excuses findings, which are places that break a rule.

use crate::tidy::{Finding, Rule};

/// An exception from a rule for one subject, in files whose paths begin with `path`.
#[derive(Debug)]
pub(super) struct Exception {
    path: &'static str,
    rule: Rule,
    /// The function, name or other thing that breaks the rule. The finding has the same subject.
    subject: &'static str,
    /// Why the rule would make this code worse. This text is for readers of the table.
    reason: &'static str,
}

/// Sorted by path.
pub(super) const EXCEPTIONS: &[Exception] = &[
    Exception {
        path: "crates/downlink-bench/src/comeback.rs",
        rule: Rule::NotAllowed,
        subject: "thread::sleep",
        reason: "the only way to learn whether another process is listening is to try to connect",
    },
    Exception {
        path: "crates/downlink-bench/src/storms.rs",
        rule: Rule::NotAllowed,
        subject: "thread::sleep",
        reason: "the only way to watch another process's memory and descriptors is to poll",
    },
    Exception {
        path: "crates/downlink/src/adapters/axum",
        rule: Rule::Names,
        subject: "insert_connect_info",
        reason: "axum's type is called ConnectInfo",
    },
    Exception {
        path: "crates/downlink/src/serve/app.rs",
        rule: Rule::Layers,
        subject: "adapters/",
        reason: "axum's handlers find the peer's address only in a type of axum",
    },
];

/// Removes the excused findings, and adds a finding for each unused exception.
pub(super) fn apply(exceptions: &[Exception], mut findings: Vec<Finding>) -> Vec<Finding> {
    let mut unused = Vec::new();
    for exception in exceptions {
        let before = findings.len();
        findings.retain(|finding| !exception.excuses(finding));
        if findings.len() == before {
            unused.push(exception.unused());
        }
    }
    findings.extend(unused);
    findings
}

impl Exception {
    fn excuses(&self, finding: &Finding) -> bool {
        let here = finding.path.starts_with(self.path);
        here && finding.rule == self.rule && finding.subject == self.subject
    }

    fn unused(&self) -> Finding {
        Finding {
            path: self.path.to_owned(),
            line: 1,
            rule: Rule::UnusedException,
            subject: self.subject.to_owned(),
            advice: format!(
                "`{}` no longer needs the exception from {} ({}): remove it from allow.rs",
                self.subject, self.rule, self.reason
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Exception] = &[Exception {
        path: "a.rs",
        rule: Rule::FunctionLength,
        subject: "table",
        reason: "a table",
    }];

    fn finding(path: &str, subject: &str) -> Finding {
        Finding {
            path: path.into(),
            line: 3,
            rule: Rule::FunctionLength,
            subject: subject.into(),
            advice: "shorten".into(),
        }
    }

    #[test]
    fn an_exception_excuses_exactly_its_subject() {
        let findings =
            vec![finding("a.rs", "table"), finding("a.rs", "g"), finding("b.rs", "table")];
        let left = apply(TABLE, findings);
        assert_eq!(left, [finding("a.rs", "g"), finding("b.rs", "table")]);
    }

    #[test]
    fn an_unused_exception_is_a_finding() {
        let left = apply(TABLE, Vec::new());
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].rule, Rule::UnusedException);
    }
}
