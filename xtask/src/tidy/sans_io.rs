//! The rule for the sans-IO crates, which use no clock, no sockets and no tasks.
//!
//! Code without tasks needs no `async`, so this rule bans `async` in these crates. The rule for
//! dependencies (`manifests.rs`) makes sure that they use no clocks and no sockets.

use syn::visit::{self, Visit};
use syn::{ExprAsync, Signature};

use crate::tidy::source::{Source, line_of};
use crate::tidy::{Finding, Rule};

/// Crates that use no clock, no sockets and no tasks.
const SANS_IO: [&str; 4] = [
    "crates/downlink-proto/src/",
    "crates/downlink-log/src/",
    "crates/downlink-cluster/src/",
    "crates/downlink-access/src/",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut tasks = Tasks { source, findings: Vec::new() };
    if SANS_IO.iter().any(|crate_| source.path.starts_with(crate_)) {
        source.items().iter().for_each(|item| tasks.visit_item(item));
    }
    tasks.findings
}

struct Tasks<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
}

impl Tasks<'_> {
    fn add(&mut self, line: usize, subject: &str) {
        let advice = "this crate has no tasks: move the `async` code to a crate that uses this one";
        self.findings.push(self.source.finding(line, Rule::SansIo, subject, advice));
    }
}

impl<'ast> Visit<'ast> for Tasks<'_> {
    fn visit_signature(&mut self, signature: &'ast Signature) {
        if let Some(keyword) = &signature.asyncness {
            self.add(line_of(keyword.span), &signature.ident.to_string());
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast ExprAsync) {
        self.add(line_of(block.async_token.span), "async");
        visit::visit_expr_async(self, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(path: &str) -> Vec<String> {
        let source = Source::new(path, "async fn f() {} fn g() { async {}; }");
        check(&source).into_iter().map(|finding| finding.subject).collect()
    }

    #[test]
    fn async_code_in_a_sans_io_crate_is_found() {
        assert_eq!(subjects("crates/downlink-proto/src/a.rs"), ["f", "async"]);
        assert_eq!(subjects("crates/downlink-log/src/a.rs"), ["f", "async"]);
    }

    #[test]
    fn other_crates_and_tests_may_have_async() {
        assert_eq!(subjects("crates/downlink-log/tests/a.rs"), [""; 0]);
        assert_eq!(subjects("crates/downlink/src/lib.rs"), [""; 0]);
    }
}
