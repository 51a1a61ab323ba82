//! Rules for who may use whom inside the library, and what the sans-IO crates may not contain.
//!
//! A path is understood from `crate::` and from `super::`; the outermost module it leads to is
//! compared with what the module of the file may not use.

use syn::visit::{self, Visit};
use syn::{ExprAsync, Ident, ItemUse, Path, Signature, UseTree};

use crate::tidy::source::{Source, line_of};
use crate::tidy::{Finding, Rule};

/// The library whose modules are kept apart.
const LIBRARY: &str = "crates/downlink/src/";

/// Module, what it may not use, and why.
const BOUNDARIES: [(&str, &[&str], &str); 3] = [
    ("hub", &["http", "serve", "adapters"], "the hub knows nothing of HTTP"),
    ("http", &["hub", "serve"], "responses work over any stream of frames"),
    ("serve", &["hub"], "serving works for any service"),
];

/// Crates without clock, sockets and tasks.
const SANS_IO: [&str; 2] = ["crates/downlink-proto/src/", "crates/downlink-log/src/"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut uses = Uses {
        source,
        module: module_of(&source.path),
        sans_io: SANS_IO.iter().any(|crate_| source.path.starts_with(crate_)),
        findings: Vec::new(),
    };
    source.items().iter().for_each(|item| uses.visit_item(item));
    uses.findings
}

/// The module path of a file of the library: `hub/wake.rs` is `[hub, wake]`.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.strip_prefix(LIBRARY).unwrap_or_default();
    let mut module: Vec<String> =
        inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

struct Uses<'a> {
    source: &'a Source,
    module: Vec<String>,
    sans_io: bool,
    findings: Vec<Finding>,
}

impl Uses<'_> {
    /// Checks a path given by its segments; the last may be anything.
    fn check_path(&mut self, segments: &[&Ident]) {
        let Some((first, rest)) = segments.split_first() else { return };
        let supers = segments.iter().take_while(|segment| **segment == "super").count();
        let top = match supers {
            0 if *first == "crate" => rest.first(),
            // As many steps up as the module is deep: the next segment is an outermost module.
            n if n > 0 && n >= self.module.len() => segments.get(n),
            _ => None,
        };
        let (Some(top), Some(own)) = (top, self.module.first()) else { return };
        let boundary = BOUNDARIES.iter().find(|(module, _, _)| module == own);
        let Some((_, banned, why)) = boundary else { return };
        if banned.iter().any(|module| *top == module) {
            let advice = format!("`{own}` may not use `{top}`: {why}");
            let line = line_of(first.span());
            self.findings.push(self.source.finding(line, Rule::Modules, top.to_string(), advice));
        }
    }

    fn check_tree<'t>(&mut self, before: &mut Vec<&'t Ident>, tree: &'t UseTree) {
        match tree {
            UseTree::Path(path) => {
                before.push(&path.ident);
                self.check_tree(before, &path.tree);
                before.pop();
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.check_tree(before, tree));
            }
            UseTree::Name(syn::UseName { ident, .. })
            | UseTree::Rename(syn::UseRename { ident, .. }) => {
                before.push(ident);
                self.check_path(before);
                before.pop();
            }
            _ => self.check_path(before),
        }
    }

    fn check_async(&mut self, line: usize, subject: &str) {
        if self.sans_io {
            let advice = "this crate has no tasks: leave `async` to the crates above";
            self.findings.push(self.source.finding(line, Rule::SansIo, subject, advice));
        }
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.check_tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        self.check_path(&path.segments.iter().map(|segment| &segment.ident).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_signature(&mut self, signature: &'ast Signature) {
        if let Some(keyword) = &signature.asyncness {
            self.check_async(line_of(keyword.span), &signature.ident.to_string());
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast ExprAsync) {
        self.check_async(line_of(block.async_token.span), "async");
        visit::visit_expr_async(self, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(Rule, String)> {
        let source = Source::new(path, text);
        assert!(source.tree.is_ok(), "{text}");
        check(&source).into_iter().map(|finding| (finding.rule, finding.subject)).collect()
    }

    fn banned(module: &str) -> Vec<(Rule, String)> {
        vec![(Rule::Modules, module.to_owned())]
    }

    #[test]
    fn the_hub_knows_no_http() {
        let path = "crates/downlink/src/hub/wake.rs";
        assert_eq!(found(path, "use crate::http::Body;"), banned("http"));
        assert_eq!(found(path, "use crate::{error, serve::{Accept, Drain}};").len(), 2);
        assert_eq!(found(path, "use super::super::adapters::*;"), banned("adapters"));
        assert_eq!(found(path, "fn f(body: crate::http::Body) {}"), banned("http"));
        assert_eq!(found(path, "use http::HeaderMap; use crate::hub::Topic; use super::a;"), []);
    }

    #[test]
    fn http_and_serve_know_no_hub() {
        assert_eq!(found("crates/downlink/src/http/mod.rs", "use crate::hub;"), banned("hub"));
        assert_eq!(found("crates/downlink/src/http.rs", "use super::serve;"), banned("serve"));
        assert_eq!(found("crates/downlink/src/serve/a.rs", "use crate::hub::A;"), banned("hub"));
        assert_eq!(found("crates/downlink/src/serve/a.rs", "use crate::http::A;"), []);
    }

    #[test]
    fn other_files_use_what_they_like() {
        let text = "use crate::{hub, http, serve}; async fn f() {}";
        assert_eq!(found("crates/downlink/src/lib.rs", text), []);
        assert_eq!(found("crates/downlink/src/adapters/axum.rs", text), []);
        assert_eq!(found("examples/chat/src/hub/a.rs", text), []);
    }

    #[test]
    fn sans_io_crates_have_no_async() {
        let text = "async fn f() {} fn g() { async {}; }";
        let names = vec![(Rule::SansIo, "f".to_owned()), (Rule::SansIo, "async".to_owned())];
        assert_eq!(found("crates/downlink-proto/src/a.rs", text), names);
        assert_eq!(found("crates/downlink-log/src/a.rs", text), names);
        assert_eq!(found("crates/downlink-log/tests/a.rs", text), []);
    }
}
