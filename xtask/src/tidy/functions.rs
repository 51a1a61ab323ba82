//! Rules for functions: length and nesting, measured on the syntax tree.
//!
//! Each `if`, `match`, loop, `async` block and closure with a block is a level of nesting. An `else
//! if` and the arms of a `match` are not levels.

use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Block, Expr, ExprIf, ImplItemFn, ItemFn, Signature, TraitItemFn};

use crate::tidy::source::{Source, line_of};
use crate::tidy::{Finding, Rule};

/// The maximum number of lines of a function, including its signature. A function of this length
/// fits on one screen.
const LINES_MAX: usize = 70;
/// The maximum number of levels of nesting. With five levels, the outermost condition is often no
/// longer on the screen.
const NESTING_MAX: usize = 4;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut functions = Functions { source, findings: Vec::new() };
    source.items().iter().for_each(|item| functions.visit_item(item));
    functions.findings
}

struct Functions<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &Signature, body: &Block) {
        let name = signature.ident.to_string();
        let first = line_of(signature.span());
        let lines = body.span().end().line - first + 1;
        if lines > LINES_MAX {
            let advice = format!("`{name}` has {lines} lines, at most {LINES_MAX}: split it");
            self.add(first, Rule::FunctionLength, &name, advice);
        }
        let mut nesting = Nesting::default();
        nesting.visit_block(body);
        if nesting.deepest > NESTING_MAX {
            let (levels, line) = (nesting.deepest, nesting.deepest_line);
            let advice = format!(
                "`{name}` nests {levels} levels, at most {NESTING_MAX}: name the inner part, or \
                 return early"
            );
            self.add(line, Rule::Nesting, &name, advice);
        }
    }

    fn add(&mut self, line: usize, rule: Rule, name: &str, advice: String) {
        self.findings.push(self.source.finding(line, rule, name, advice));
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(body) = &function.default {
            self.measure(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// The deepest nesting below one body.
#[derive(Default)]
struct Nesting {
    level: usize,
    deepest: usize,
    deepest_line: usize,
}

impl Nesting {
    fn enter(&mut self, span: Span) {
        self.level += 1;
        if self.level > self.deepest {
            self.deepest = self.level;
            self.deepest_line = line_of(span);
        }
    }

    /// An `else if` has the same level as its `if`.
    fn visit_chain(&mut self, chain: &ExprIf) {
        self.visit_expr(&chain.cond);
        self.visit_block(&chain.then_branch);
        match chain.else_branch.as_ref().map(|(_, next)| &**next) {
            Some(Expr::If(next)) => self.visit_chain(next),
            Some(last) => self.visit_expr(last),
            None => {}
        }
    }
}

impl<'ast> Visit<'ast> for Nesting {
    fn visit_expr(&mut self, expression: &'ast Expr) {
        let nests = match expression {
            Expr::If(_)
            | Expr::Match(_)
            | Expr::Loop(_)
            | Expr::While(_)
            | Expr::ForLoop(_)
            | Expr::Async(_) => true,
            Expr::Closure(closure) => matches!(&*closure.body, Expr::Block(_)),
            _ => false,
        };
        if nests {
            self.enter(expression.span());
        }
        match expression {
            Expr::If(chain) => self.visit_chain(chain),
            other => visit::visit_expr(self, other),
        }
        if nests {
            self.level -= 1;
        }
    }

    /// A function inside a function is measured separately.
    fn visit_item(&mut self, _: &'ast syn::Item) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(Rule, String)> {
        let source = Source::new("src/a.rs", text);
        assert!(source.tree.is_ok(), "{text}");
        check(&source).into_iter().map(|finding| (finding.rule, finding.subject)).collect()
    }

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2))
    }

    fn nested(levels: usize) -> String {
        let inside = format!("{}f();{}", "if a { ".repeat(levels), " }".repeat(levels));
        format!("fn deep() {{ {inside} }}")
    }

    #[test]
    fn only_a_function_above_the_maximum_length_is_a_finding() {
        assert_eq!(rules(&function(69)), []);
        assert_eq!(rules(&function(70)), []);
        assert_eq!(rules(&function(71)), [(Rule::FunctionLength, "long".into())]);
    }

    #[test]
    fn methods_are_measured_too() {
        let found = [(Rule::FunctionLength, "long".to_owned())];
        assert_eq!(rules(&format!("impl A {{\n{}}}", function(71))), found);
        assert_eq!(rules(&format!("trait A {{\n{}}}", function(71))), found);
    }

    #[test]
    fn only_a_function_above_the_maximum_nesting_is_a_finding() {
        assert_eq!(rules(&nested(3)), []);
        assert_eq!(rules(&nested(4)), []);
        assert_eq!(rules(&nested(5)), [(Rule::Nesting, "deep".into())]);
    }

    #[test]
    fn every_kind_of_block_nests() {
        let deep = "fn deep() { loop { while a { for b in c { match d { _ => async {} } } } } }";
        assert_eq!(rules(deep), [(Rule::Nesting, "deep".into())]);
        let closures = "fn deep() { loop { loop { loop { loop { f(|| { g() }); } } } } }";
        assert_eq!(rules(closures), [(Rule::Nesting, "deep".into())]);
    }

    #[test]
    fn a_chain_of_else_if_is_one_level() {
        let chain = format!("fn chain() {{ if a {{}} {} }}", "else if b { f(); } ".repeat(9));
        assert_eq!(rules(&chain), []);
    }
}
