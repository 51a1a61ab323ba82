//! The rules for names: some words say too little to be part of a name.
//!
//! The rules check only definitions. The project cannot change names of other crates, or the names
//! of methods in an implementation of a trait.

use proc_macro2::Ident;
use syn::visit::{self, Visit};
use syn::{
    Field, ImplItemFn, ItemConst, ItemEnum, ItemFn, ItemImpl, ItemMod, ItemStatic, ItemStruct,
    ItemTrait, ItemType, PatIdent, TraitItemFn, Variant,
};

use crate::tidy::source::{Source, line_of};
use crate::tidy::{Finding, Rule};

/// Verbs that are banned from names of functions. They do not say what the function does.
const VERBS: [&str; 3] = ["process", "manage", "perform"];
/// Verbs that are banned from the beginning of a function's name.
const FIRST_VERBS: [&str; 2] = ["do", "handle"];
/// Nouns that are banned from all names. They do not say what the thing is.
const NOUNS: [&str; 7] = ["manager", "helper", "helpers", "util", "utils", "info", "context"];
/// In these crates, the methods that take input are named `handle_*`.
const SANS_IO: [&str; 2] = ["crates/downlink-proto/", "crates/downlink-cluster/"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut names = Names { source, findings: Vec::new(), in_trait_impl: false };
    source.items().iter().for_each(|item| names.visit_item(item));
    names.findings
}

struct Names<'a> {
    source: &'a Source,
    findings: Vec<Finding>,
    in_trait_impl: bool,
}

impl Names<'_> {
    fn noun(&mut self, name: &Ident) {
        let text = name.to_string();
        if let Some(word) = words(&text).into_iter().find(|word| NOUNS.contains(&word.as_str())) {
            self.add(name, &word);
        }
    }

    fn type_name(&mut self, name: &Ident) {
        if name == "Data" {
            self.add(name, "Data");
        }
        self.noun(name);
    }

    fn function(&mut self, name: &Ident) {
        let text = name.to_string();
        let words = words(&text);
        let first = words.first().filter(|word| FIRST_VERBS.contains(&word.as_str()));
        let first = first.filter(|word| {
            let is_sans_io = SANS_IO.iter().any(|crate_| self.source.path.starts_with(crate_));
            *word != "handle" || words.len() == 1 || !is_sans_io
        });
        let verb = words.iter().find(|word| VERBS.contains(&word.as_str())).or(first);
        if let Some(word) = verb {
            self.add(name, word);
        }
        self.noun(name);
    }

    fn add(&mut self, name: &Ident, word: &str) {
        let advice = format!("`{name}` contains `{word}`: say what it is or does");
        let line = line_of(name.span());
        self.findings.push(self.source.finding(line, Rule::Names, name.to_string(), advice));
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig.ident);
        visit::visit_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.function(&item.sig.ident);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let outer = std::mem::replace(&mut self.in_trait_impl, item.trait_.is_some());
        visit::visit_item_impl(self, item);
        self.in_trait_impl = outer;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !self.in_trait_impl {
            self.function(&item.sig.ident);
        }
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.type_name(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.type_name(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.type_name(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast ItemType) {
        self.type_name(&item.ident);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.noun(&item.ident);
        visit::visit_item_mod(self, item);
    }

    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        self.noun(&item.ident);
        visit::visit_item_const(self, item);
    }

    fn visit_item_static(&mut self, item: &'ast ItemStatic) {
        self.noun(&item.ident);
        visit::visit_item_static(self, item);
    }

    fn visit_variant(&mut self, variant: &'ast Variant) {
        self.noun(&variant.ident);
        visit::visit_variant(self, variant);
    }

    fn visit_field(&mut self, field: &'ast Field) {
        field.ident.iter().for_each(|name| self.noun(name));
    }

    fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
        self.noun(&pattern.ident);
        visit::visit_pat_ident(self, pattern);
    }
}

/// The words of a name in snake case, camel case or capitals, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut after_lower = false;
    for c in name.trim_start_matches("r#").chars() {
        if c == '_' || (c.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        after_lower = c.is_lowercase() || c.is_ascii_digit();
        if let (Some(word), true) = (words.last_mut(), c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects_in(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path, text);
        assert!(source.tree.is_ok(), "{text}");
        check(&source).into_iter().map(|finding| finding.subject).collect()
    }

    fn subjects(text: &str) -> Vec<String> {
        subjects_in("crates/downlink/src/a.rs", text)
    }

    #[test]
    fn names_are_split_into_words() {
        assert_eq!(words("read_all"), ["read", "all"]);
        assert_eq!(words("SubscribeRequest2Go"), ["subscribe", "request2", "go"]);
        assert_eq!(words("LINES_MAX"), ["lines", "max"]);
    }

    #[test]
    fn banned_verbs_in_functions_are_found() {
        let text = "fn pre_process() {} fn manage() {} fn handle_event() {} fn do_it() {}";
        assert_eq!(subjects(text), ["pre_process", "manage", "handle_event", "do_it"]);
        assert_eq!(subjects("impl A { fn perform(&self) {} } trait B { fn process(); }").len(), 2);
    }

    #[test]
    fn sans_io_functions_may_begin_with_handle() {
        let path = "crates/downlink-proto/src/a.rs";
        assert_eq!(subjects_in(path, "fn handle_close() {} fn handle() {}"), ["handle"]);
    }

    #[test]
    fn banned_nouns_are_found_in_every_kind_of_definition() {
        let text =
            "struct EventManager { info: u8 } enum A { Helper } trait Context {} mod utils {}
            type Data = u8; const INFO_MAX: u8 = 1; static UTIL: u8 = 1; fn f(context: u8) {}";
        let found = subjects(text);
        let all = ["EventManager", "info", "Helper", "Context", "utils", "Data", "INFO_MAX"];
        assert_eq!(found[..7], all);
        assert_eq!(found[7..], ["UTIL", "context"]);
    }

    #[test]
    fn names_of_other_crates_are_ignored() {
        let text = "use std::task::Context; use std::process::Command;
            impl Layer for A { fn process(&self, cx: &mut Context<'_>) { std::process::exit(1) } }
            fn join_handle() {} fn information() {} struct A { data: u8 }";
        assert_eq!(subjects(text), Vec::<String>::new());
    }
}
