//! The names that one file defines and the paths that it refers to.
//!
//! Paths are collected from imports, types, expressions, patterns, attributes, visibilities, and
//! the tokens of macros. Test-only code is left out. `modules.rs` finds the targets of the paths.
//!
//! A path of one segment may be a local variable. So the collection leaves out the names that a
//! function binds. In macros, it keeps a single lower-case word only if the word is the name of a
//! called function or macro.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, ImplItemFn, Item, ItemFn, ItemMod, ItemUse, Macro, Meta, PatIdent, Path,
    TraitItemFn, UseTree, VisRestricted, Visibility,
};

use crate::tidy::source::{Source, line_of};
use crate::tidy::token_paths;

/// The segments of a path.
pub(super) type Segments = Vec<String>;

/// One path in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Reference {
    /// The module that contains the path, from the root of the crate.
    pub(super) module: Segments,
    pub(super) segments: Segments,
    pub(super) kind: Kind,
    pub(super) line: usize,
}

/// The role of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A `use`.
    Import,
    /// A `use` with a visibility.
    Reexport,
    /// The scope of `pub(in path)`.
    Visibility,
    /// Any other path.
    Use,
}

/// A name that a module defines or imports. The names of modules are in `Contents::modules`.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) module: Segments,
    /// The name, or `*` for a glob import.
    pub(super) name: String,
    pub(super) meaning: Meaning,
}

/// The meaning of a name.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    Item,
    /// The target of this path.
    Import(Segments),
    /// The target of this path. The name is imported only inside a block.
    BlockImport(Segments),
}

/// The names and the paths of one file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The module of the file itself, and the modules whose bodies are in the file.
    pub(super) modules: Vec<Segments>,
    pub(super) names: Vec<Name>,
    pub(super) references: Vec<Reference>,
}

/// Collects the names and paths of a file that is the module `module`.
pub(super) fn collect(source: &Source, module: Segments) -> Contents {
    let contents = Contents { modules: vec![module.clone()], ..Contents::default() };
    let mut collector = Collector {
        source,
        module,
        block_depth: 0,
        in_visibility: false,
        bound: Vec::new(),
        contents,
    };
    if let Ok(tree) = &source.tree {
        collector.visit_file(tree);
    }
    collector.contents
}

struct Collector<'a> {
    source: &'a Source,
    /// The module around the current position.
    module: Segments,
    block_depth: usize,
    in_visibility: bool,
    /// The names bound by the functions around the current position.
    bound: Vec<HashSet<String>>,
    contents: Contents,
}

impl Collector<'_> {
    fn add_reference(&mut self, segments: Segments, kind: Kind, span: Span) {
        let line = line_of(span);
        if !self.source.is_test_line(line) && !self.is_local(&segments, kind) {
            let module = self.module.clone();
            self.contents.references.push(Reference { module, segments, kind, line });
        }
    }

    /// True if a path cannot lead to another file: it is a local variable, a single keyword, or
    /// begins with `Self`.
    fn is_local(&self, segments: &[String], kind: Kind) -> bool {
        match segments {
            [name] if kind == Kind::Use => {
                let is_keyword = ["self", "Self", "super", "crate"].contains(&name.as_str());
                is_keyword || self.bound.iter().any(|names| names.contains(name))
            }
            [] => true,
            [first, ..] => first == "Self",
        }
    }

    fn add_name(&mut self, name: String, meaning: Meaning, span: Span) {
        if !self.source.is_test_line(line_of(span)) {
            self.contents.names.push(Name { module: self.module.clone(), name, meaning });
        }
    }

    fn add_use(&mut self, before: &mut Segments, tree: &UseTree, kind: Kind) {
        let (last, name) = match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_use(before, &path.tree, kind);
                before.pop();
                return;
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_use(before, tree, kind));
                return;
            }
            UseTree::Name(name) => (Some(&name.ident), name.ident.to_string()),
            UseTree::Rename(rename) => (Some(&rename.ident), rename.rename.to_string()),
            _ => (None, "*".to_owned()),
        };
        let mut segments = before.clone();
        segments.extend(last.filter(|last| *last != "self").map(ToString::to_string));
        // `use a::{self}` brings in the name `a`.
        let name = if name == "self" { segments.last().cloned().unwrap_or(name) } else { name };
        let meaning = match self.block_depth {
            0 => Meaning::Import(segments.clone()),
            _ => Meaning::BlockImport(segments.clone()),
        };
        self.add_name(name, meaning, tree.span());
        self.add_reference(segments, kind, tree.span());
    }

    fn add_tokens(&mut self, tokens: TokenStream) {
        for (segments, span) in token_paths::find(tokens) {
            self.add_reference(segments, Kind::Use, span);
        }
    }

    /// Visits a function. The names that the function binds hide the names of the module.
    fn in_function(&mut self, bound: HashSet<String>, visit: impl FnOnce(&mut Self)) {
        self.bound.push(bound);
        visit(self);
        self.bound.pop();
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if let (Some(name), 0) = (defined_name(item), self.block_depth) {
            self.add_name(name, Meaning::Item, item.span());
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        if item.content.is_some() {
            self.contents.modules.push(self.module.clone());
        }
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        item.attrs.iter().for_each(|attribute| self.visit_attribute(attribute));
        self.visit_visibility(&item.vis);
        if item.leading_colon.is_none() {
            let kind = match item.vis {
                Visibility::Inherited => Kind::Import,
                _ => Kind::Reexport,
            };
            self.add_use(&mut Vec::new(), &item.tree, kind);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let kind = if self.in_visibility { Kind::Visibility } else { Kind::Use };
            self.add_reference(segments, kind, path.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, visibility: &'ast VisRestricted) {
        // `pub(crate)` and `pub(super)` have no path.
        self.in_visibility = true;
        if visibility.in_token.is_some() {
            visit::visit_vis_restricted(self, visibility);
        }
        self.in_visibility = false;
    }

    fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
        // A pattern that begins with a capital letter is `None` or a constant, not a variable.
        if begins_upper(&pattern.ident.to_string()) {
            self.add_reference(vec![pattern.ident.to_string()], Kind::Use, pattern.span());
        }
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !attribute.path().is_ident("doc") {
            visit::visit_attribute(self, attribute);
            if let Meta::List(list) = &attribute.meta {
                self.add_tokens(list.tokens.clone());
            }
        }
    }

    fn visit_macro(&mut self, macro_: &'ast Macro) {
        visit::visit_macro(self, macro_);
        self.add_tokens(macro_.tokens.clone());
    }

    fn visit_block(&mut self, block: &'ast Block) {
        self.block_depth += 1;
        visit::visit_block(self, block);
        self.block_depth -= 1;
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        let bound = bound_names(|names| names.visit_item_fn(item));
        self.in_function(bound, |collector| visit::visit_item_fn(collector, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        let bound = bound_names(|names| names.visit_impl_item_fn(item));
        self.in_function(bound, |collector| visit::visit_impl_item_fn(collector, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        let bound = bound_names(|names| names.visit_trait_item_fn(item));
        self.in_function(bound, |collector| visit::visit_trait_item_fn(collector, item));
    }
}

/// The name that an item defines in its module. `None` for modules, which are collected separately.
fn defined_name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// The variables that a function binds.
fn bound_names(visit: impl FnOnce(&mut BoundNames)) -> HashSet<String> {
    let mut names = BoundNames(HashSet::new());
    visit(&mut names);
    names.0
}

struct BoundNames(HashSet<String>);

impl<'ast> Visit<'ast> for BoundNames {
    fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
        let name = pattern.ident.to_string();
        if !begins_upper(&name) {
            self.0.insert(name);
        }
        visit::visit_pat_ident(self, pattern);
    }
}

fn begins_upper(name: &str) -> bool {
    name.starts_with(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths in the file `a.rs` that have more than one segment.
    fn paths(text: &str) -> Vec<String> {
        references(text).into_iter().filter(|path| path.contains("::")).collect()
    }

    fn references(text: &str) -> Vec<String> {
        let source = Source::new("crates/x/src/a.rs", text);
        assert!(source.tree.is_ok(), "{text}");
        let contents = collect(&source, vec!["a".to_owned()]);
        contents.references.into_iter().map(|reference| reference.segments.join("::")).collect()
    }

    #[test]
    fn groups_of_imports_are_split_into_paths() {
        let text = "use crate::{b, c::{self, D as E}, f::*}; use ::http::Method;";
        assert_eq!(paths(text), ["crate::b", "crate::c", "crate::c::D", "crate::f"]);
    }

    #[test]
    fn paths_in_every_position_are_found() {
        let text = "#[crate::attribute]
            pub(in crate::scope) struct A(crate::Type, <B as crate::Trait>::Item);
            impl crate::Of for A where A: crate::Bound<crate::Argument> {
                const C: u8 = crate::LIMIT;
                fn f() { match x { crate::Pattern::A => super::call(), _ => crate::invoke!() } }
            }";
        let found = paths(text);
        let wanted = ["attribute", "scope", "Type", "Of", "Bound", "Argument", "LIMIT", "invoke"];
        for name in wanted {
            assert!(found.contains(&format!("crate::{name}")), "{name}: {found:?}");
        }
        assert!(!references("pub(crate) struct A; pub(super) struct B;").contains(&"crate".into()));
        for path in ["crate::Trait::Item", "crate::Pattern::A", "super::call"] {
            assert!(found.contains(&path.to_owned()), "{path}: {found:?}");
        }
    }

    #[test]
    fn paths_inside_macros_and_attributes_are_found() {
        let text =
            "fn f() { assert!(matches!(x, super::A)); } macro_rules! m { () => { $crate::b() } }
            #[serde(with = \"crate::c\", default = \"plain text\")] struct D;";
        assert_eq!(paths(text), ["super::A", "crate::b", "crate::c"]);
    }

    #[test]
    fn test_code_and_documentation_do_not_count() {
        let text = "/// See [`crate::a`].\n#[doc = \"crate::b\"] fn f() {}
            #[cfg(test)]
            mod tests { use crate::c; }";
        assert_eq!(paths(text), [""; 0]);
    }

    #[test]
    fn variables_are_not_references() {
        let text = "fn f(a: u8) { let b = a; g(b); h }";
        assert_eq!(references(text), ["u8", "g", "h"]);
    }
}
