//! Finds the parts of a source file that are compiled for tests only.
//!
//! The rules for imports and sizes leave these parts out. Each item, field, statement or match arm
//! with `#[cfg(test)]` or `#[cfg(doctest)]` is such a part. A condition such as `all(test, unix)`
//! has the same effect. `any(test, unix)` and `not(test)` do not have this effect, since their code
//! is also compiled without tests.

use std::ops::RangeInclusive;

use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Arm, Attribute, Expr, Field, FieldValue, ImplItem, Item, Meta, Stmt, TraitItem, Variant,
};

use crate::tidy::source::Source;

/// The test-only lines of a file, counted from 1.
pub(super) fn lines(file: &syn::File) -> Vec<RangeInclusive<usize>> {
    let mut tests = TestLines(Vec::new());
    tests.visit_file(file);
    tests.0
}

/// True if the whole file is compiled for tests only.
pub(super) fn is_whole(file: &syn::File) -> bool {
    is_cfg_test(&file.attrs)
}

/// Marks the files of modules that are declared for tests only.
pub(super) fn mark_modules(sources: &mut [Source]) {
    let declared: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in sources {
        source.is_test |= declared.iter().any(|module| {
            let rest = source.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
    }
}

/// The test modules that are in separate files, as paths without `.rs`.
fn test_modules(source: &Source) -> Vec<String> {
    let folder = source.folder_of_modules();
    let tests = source.items().iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && is_cfg_test(&module.attrs) => {
            Some(format!("{folder}{}", module.ident))
        }
        _ => None,
    });
    tests.collect()
}

/// True if the attributes restrict the code to tests.
fn is_cfg_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition))
    })
}

/// True if a condition of `cfg` can be met only in a test build.
fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test") || path.is_ident("doctest"),
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated);
            let Ok(parts) = parts else { return false };
            let all = list.path.is_ident("all") && parts.iter().any(needs_test);
            let any = list.path.is_ident("any") && parts.iter().all(needs_test);
            all || (any && !parts.is_empty())
        }
        Meta::NameValue(_) => false,
    }
}

struct TestLines(Vec<RangeInclusive<usize>>);

impl TestLines {
    /// Adds the lines of `part` if it is test-only. Returns true if it is.
    fn add(&mut self, attributes: &[Attribute], part: &impl Spanned) -> bool {
        let is_test = is_cfg_test(attributes);
        if is_test {
            let span = part.span();
            self.0.push(span.start().line..=span.end().line);
        }
        is_test
    }
}

impl<'ast> Visit<'ast> for TestLines {
    fn visit_item(&mut self, item: &'ast Item) {
        if !self.add(item_attributes(item), item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if !self.add(impl_item_attributes(item), item) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if !self.add(trait_item_attributes(item), item) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if !self.add(statement_attributes(statement), statement) {
            visit::visit_stmt(self, statement);
        }
    }

    fn visit_field(&mut self, field: &'ast Field) {
        self.add(&field.attrs, field);
    }

    fn visit_field_value(&mut self, field: &'ast FieldValue) {
        if !self.add(&field.attrs, field) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast Variant) {
        if !self.add(&variant.attrs, variant) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        if !self.add(&arm.attrs, arm) {
            visit::visit_arm(self, arm);
        }
    }
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(syn::ItemConst { attrs, .. })
        | Item::Enum(syn::ItemEnum { attrs, .. })
        | Item::ExternCrate(syn::ItemExternCrate { attrs, .. })
        | Item::Fn(syn::ItemFn { attrs, .. })
        | Item::ForeignMod(syn::ItemForeignMod { attrs, .. })
        | Item::Impl(syn::ItemImpl { attrs, .. })
        | Item::Macro(syn::ItemMacro { attrs, .. })
        | Item::Mod(syn::ItemMod { attrs, .. })
        | Item::Static(syn::ItemStatic { attrs, .. })
        | Item::Struct(syn::ItemStruct { attrs, .. })
        | Item::Trait(syn::ItemTrait { attrs, .. })
        | Item::Type(syn::ItemType { attrs, .. })
        | Item::Union(syn::ItemUnion { attrs, .. })
        | Item::Use(syn::ItemUse { attrs, .. }) => attrs,
        _ => &[],
    }
}

fn impl_item_attributes(item: &ImplItem) -> &[Attribute] {
    match item {
        ImplItem::Const(syn::ImplItemConst { attrs, .. })
        | ImplItem::Fn(syn::ImplItemFn { attrs, .. })
        | ImplItem::Macro(syn::ImplItemMacro { attrs, .. })
        | ImplItem::Type(syn::ImplItemType { attrs, .. }) => attrs,
        _ => &[],
    }
}

fn trait_item_attributes(item: &TraitItem) -> &[Attribute] {
    match item {
        TraitItem::Const(syn::TraitItemConst { attrs, .. })
        | TraitItem::Fn(syn::TraitItemFn { attrs, .. })
        | TraitItem::Macro(syn::TraitItemMacro { attrs, .. })
        | TraitItem::Type(syn::TraitItemType { attrs, .. }) => attrs,
        _ => &[],
    }
}

/// The attributes of a statement. Attributes deeper inside an expression are ignored.
fn statement_attributes(statement: &Stmt) -> &[Attribute] {
    match statement {
        Stmt::Local(syn::Local { attrs, .. })
        | Stmt::Macro(syn::StmtMacro { attrs, .. })
        | Stmt::Expr(
            Expr::Assign(syn::ExprAssign { attrs, .. })
            | Expr::Block(syn::ExprBlock { attrs, .. })
            | Expr::Call(syn::ExprCall { attrs, .. })
            | Expr::If(syn::ExprIf { attrs, .. })
            | Expr::MethodCall(syn::ExprMethodCall { attrs, .. }),
            _,
        ) => attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// True if the first line of `text` is compiled for tests only.
    fn is_test(text: &str) -> bool {
        let source = Source::new("a.rs", text);
        assert!(source.tree.is_ok(), "{text}");
        source.is_test_line(1)
    }

    #[test]
    fn conditions_that_need_a_test_build_count() {
        assert!(is_test("#[cfg(test)] mod a {}"));
        assert!(is_test("#[cfg(doctest)] struct A;"));
        assert!(is_test("#[cfg(all(test, not(loom)))] mod a {}"));
        assert!(is_test("#[cfg(any(test, all(test, unix)))] mod a {}"));
    }

    #[test]
    fn conditions_that_hold_in_other_builds_do_not_count() {
        assert!(!is_test("#[cfg(not(test))] mod a {}"));
        assert!(!is_test("#[cfg(any(test, unix))] mod a {}"));
        assert!(!is_test("#[cfg(all(unix, not(any(loom, test))))] mod a {}"));
        assert!(!is_test("#[cfg(feature = \"test\")] mod a {}"));
    }

    #[test]
    fn parts_of_items_can_be_test_only() {
        let text = "struct A {
            #[cfg(test)] a: u8,
            b: u8,
        }
        impl A {
            #[cfg(test)] fn f() {}
            fn g() {
                #[cfg(test)] h();
                match x {
                    #[cfg(test)] 1 => {}
                    _ => {}
                }
            }
        }";
        let source = Source::new("a.rs", text);
        let lines: Vec<usize> = (1..=14).filter(|line| source.is_test_line(*line)).collect();
        assert_eq!(lines, [2, 6, 8, 10]);
    }

    #[test]
    fn files_of_test_modules_are_marked() {
        let mut sources = vec![
            Source::new("src/a/mod.rs", "#[cfg(test)] mod tests; mod b;"),
            Source::new("src/a/tests.rs", "mod c;"),
            Source::new("src/a/tests/c.rs", ""),
            Source::new("src/a/b.rs", ""),
            Source::new("src/a/tests_of_b.rs", ""),
            Source::new("src/d.rs", "#![cfg(test)]\nfn f() {}"),
        ];
        mark_modules(&mut sources);
        let marks: Vec<bool> = sources.iter().map(|source| source.is_test_line(2)).collect();
        assert_eq!(marks, [false, true, true, false, false, true]);
    }
}
