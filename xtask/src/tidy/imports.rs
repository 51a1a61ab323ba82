//! The imports between the files of one crate. The rules for layers and for cycles use them.
//!
//! The target of an import is the file that defines the item, even if the path leads through a
//! re-export. An item of another crate has no such file. For example, `sync.rs` re-exports
//! `std::sync::Mutex`, and `a.rs` imports `crate::sync::Mutex`. The target of this import is
//! `sync.rs`, because `sync.rs` imports the item from the other crate. If the re-exporting file is
//! a parent of the importing file, there is no target. For example, `lib.rs` is a parent of all
//! files.

use std::collections::{BTreeMap, HashSet};

use crate::tidy::modules::{Modules, Resolved};
use crate::tidy::references::{self, Kind, Segments};
use crate::tidy::source::Source;

/// The files of a crate and the imports between them.
#[derive(Debug)]
pub(super) struct Crate<'a> {
    /// The folder of the sources, relative to the root, with a slash at its end.
    pub(super) folder: String,
    pub(super) files: Vec<&'a Source>,
    /// In the order of the files and of their lines.
    pub(super) imports: Vec<Import>,
}

/// A reference from one file to another.
#[derive(Debug)]
pub(super) struct Import {
    /// The index of the importing file in [`Crate::files`].
    pub(super) from: usize,
    /// The index of the target in [`Crate::files`].
    pub(super) to: usize,
    pub(super) line: usize,
    /// The path as it is written.
    pub(super) path: String,
    pub(super) kind: Kind,
    /// True if the path begins with a name that a `use` imported. That `use` is a separate import
    /// in the list.
    pub(super) is_imported: bool,
}

/// The crates below `crates/`, each with its imports.
pub(super) fn crates(sources: &[Source]) -> Vec<Crate<'_>> {
    let mut by_folder: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in sources {
        if let Some(folder) = crate_folder(&source.path) {
            by_folder.entry(folder).or_default().push(source);
        }
    }
    by_folder.into_iter().map(|(folder, files)| Crate::new(folder, files)).collect()
}

/// The folder `crates/x/src/` that contains a file.
fn crate_folder(path: &str) -> Option<&str> {
    let name = path.strip_prefix("crates/")?.split('/').next()?;
    let length = "crates//src/".len() + name.len();
    path.get(..length).filter(|folder| folder.ends_with("/src/"))
}

impl<'a> Crate<'a> {
    fn new(folder: &str, mut files: Vec<&'a Source>) -> Self {
        // If a package has a library and a program, the program is a separate crate, so its file is
        // left out.
        let is_library = |file: &&Source| file.path == format!("{folder}lib.rs");
        if files.iter().any(is_library) {
            files.retain(|file| file.path != format!("{folder}main.rs"));
        }
        let imports = imports(folder, &files);
        Self { folder: folder.to_owned(), files, imports }
    }

    /// The path of a file, relative to the crate's sources.
    pub(super) fn path(&self, file: usize) -> &'a str {
        let source = self.files[file];
        source.path.strip_prefix(self.folder.as_str()).unwrap_or(&source.path)
    }
}

fn imports(folder: &str, files: &[&Source]) -> Vec<Import> {
    let contents: Vec<references::Contents> =
        files.iter().map(|file| references::collect(file, module_of(folder, file))).collect();
    let mut modules = Modules::default();
    for (file, contents) in contents.iter().enumerate() {
        modules.add(file, contents);
    }
    let mut imports = Vec::new();
    let mut seen = HashSet::new();
    for (from, contents) in contents.iter().enumerate() {
        for reference in &contents.references {
            let Resolved { files: mut targets, outside, is_imported } = modules.resolve(reference);
            // If a parent re-exports an item of another crate, the parent is not a target.
            let is_parent = |file: &usize| is_parent(files[*file], files[from]);
            targets.extend(outside.into_iter().filter(|file| !is_parent(file)));
            for to in targets.into_iter().filter(|to| *to != from) {
                let path = reference.segments.join("::");
                if seen.insert((from, to, reference.line, path.clone())) {
                    let (line, kind) = (reference.line, reference.kind);
                    imports.push(Import { from, to, line, path, kind, is_imported });
                }
            }
        }
    }
    imports
}

/// True if `other` is in the folder of the submodules of `file`.
pub(super) fn is_parent(file: &Source, other: &Source) -> bool {
    other.path.starts_with(&file.folder_of_modules())
}

/// The module of a file: `[hub, wake]` for `hub/wake.rs`.
fn module_of(folder: &str, file: &Source) -> Segments {
    let modules = file.folder_of_modules();
    let inside = modules.strip_prefix(folder).unwrap_or_default();
    inside.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The imports of a crate, such as `a.rs -> b.rs`, each once.
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let sources = Source::all_below("crates/x/src/", files);
        let crates = crates(&sources);
        let [crate_] = crates.as_slice() else { panic!("the files must be one crate") };
        let name =
            |import: &Import| format!("{} -> {}", crate_.path(import.from), crate_.path(import.to));
        let mut edges: Vec<String> = crate_.imports.iter().map(name).collect();
        edges.dedup();
        edges
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod a; mod b; pub use b::B;");
    const B: (&str, &str) = ("b.rs", "pub struct B; pub fn f() {}");

    #[test]
    fn paths_are_resolved_relative_to_their_file() {
        let wanted = ["a.rs -> b.rs", "lib.rs -> b.rs"];
        for text in [
            "use crate::b::B;",
            "use super::b::{self, B};",
            "fn f() { use super::b::B; }",
            "type A = super::b::B;",
            "fn f() { crate::b::f() }",
            "fn f() { assert!(super::b::f()); }",
            "mod inner { type A = super::super::b::B; }",
            "#[crate::b::B] struct A;",
        ] {
            assert_eq!(edges(&[("a.rs", text), B, ROOT]), wanted, "{text}");
        }
    }

    #[test]
    fn a_path_through_a_reexport_leads_to_the_definition() {
        let wanted = ["a.rs -> b.rs", "lib.rs -> b.rs"];
        for text in ["use crate::B;", "use super::*; type A = B;", "use crate as c; type A = c::B;"]
        {
            let edges = edges(&[("a.rs", text), B, ROOT]);
            assert!(edges.contains(&wanted[0].to_owned()), "{text}: {edges:?}");
        }
        assert_eq!(edges(&[("a.rs", "use crate::B;"), B, ROOT]), wanted);
    }

    #[test]
    fn reexports_are_followed_through_folders_globs_and_new_names() {
        let files = [
            ("a.rs", "use crate::Renamed;"),
            ("lib.rs", "mod a; mod b; use b::C as Renamed;"),
            ("b/c.rs", "pub struct C;"),
            ("b/mod.rs", "mod c; pub use self::c::*;"),
        ];
        assert_eq!(edges(&files)[0], "a.rs -> b/c.rs");
    }

    #[test]
    fn a_path_that_begins_with_an_imported_name_is_resolved() {
        let files = [
            ("a.rs", "use crate::b; type A = b::C;"),
            ("b/c.rs", "pub struct C;"),
            ("b/mod.rs", "mod c; pub use c::C;"),
            ("lib.rs", "mod a; mod b;"),
        ];
        assert_eq!(edges(&files), ["a.rs -> b/mod.rs", "a.rs -> b/c.rs", "b/mod.rs -> b/c.rs"]);
    }

    #[test]
    fn a_module_and_a_function_may_share_a_name() {
        let files = [
            ("a.rs", "use crate::b::B; fn f() { crate::b() }"),
            ("b.rs", "pub struct B; pub fn b() {}"),
            ("lib.rs", "mod a; pub mod b; pub use crate::b::b;"),
        ];
        assert_eq!(edges(&files), ["a.rs -> b.rs", "lib.rs -> b.rs"]);
    }

    #[test]
    fn a_name_that_a_macro_defines_belongs_to_the_file_of_its_module() {
        let files =
            [("a.rs", "use crate::b::Made;"), ("b.rs", "make!();"), ("lib.rs", "mod a; mod b;")];
        assert_eq!(edges(&files), ["a.rs -> b.rs"]);
    }

    #[test]
    fn a_name_from_another_crate_leads_to_the_file_that_imports_it() {
        let files = [
            ("a/c.rs", "use crate::sync::Mutex;"),
            ("a/mod.rs", "mod c; pub use outside::Item;"),
            ("lib.rs", "mod a; mod b; mod sync;"),
            ("sync.rs", "pub use std::sync::Mutex;"),
        ];
        assert_eq!(edges(&files), ["a/c.rs -> sync.rs"]);
        let with = |file| [&files[1..], &[file]].concat();
        assert_eq!(edges(&with(("a/d.rs", "use super::Item;"))), [""; 0]);
        assert_eq!(edges(&with(("b.rs", "use crate::a::Item;"))), ["b.rs -> a/mod.rs"]);
    }

    #[test]
    fn other_crates_variables_and_tests_are_not_imports() {
        let text = "use http::b::B; use ::b::B; fn f(b: u8) -> u8 { b }
            #[cfg(test)]
            mod tests { use crate::b::B; }";
        assert_eq!(edges(&[("a.rs", text), B, ("lib.rs", "mod a; mod b;")]), [""; 0]);
    }

    #[test]
    fn the_search_for_a_definition_ends_at_circular_imports() {
        let files = [("a.rs", "pub use crate::b::X;"), ("b.rs", "pub use crate::a::*;"), ROOT];
        assert_eq!(edges(&files), ["b.rs -> a.rs", "lib.rs -> b.rs"]);
    }

    #[test]
    fn the_program_of_a_package_with_a_library_is_left_out() {
        let sources = [
            Source::new("crates/x/src/lib.rs", ""),
            Source::new("crates/x/src/main.rs", ""),
            Source::new("crates/y/src/main.rs", ""),
            Source::new("crates/y/tests/main.rs", ""),
            Source::new("xtask/src/main.rs", ""),
        ];
        let crates = crates(&sources);
        let folders: Vec<&str> = crates.iter().map(|crate_| crate_.folder.as_str()).collect();
        assert_eq!(folders, ["crates/x/src/", "crates/y/src/"]);
        assert!(crates.iter().all(|crate_| crate_.files.len() == 1));
    }
}
