//! The modules of one crate. They resolve a path to the files that define its target.
//!
//! A path is resolved as the compiler does it: from `crate`, `self` and `super`, through modules,
//! imports, re-exports and globs. The result is the file with the definition, not the file that
//! re-exports it. There are two simplifications: a name has the same meaning for types, values and
//! macros, and all branches of `cfg` exist at once. So a path can lead to several files. If a known
//! module does not contain a name, the search assumes that a macro defines the name in the module.

use std::collections::{BTreeSet, HashMap};

use crate::tidy::references::{Contents, Kind, Meaning, Name, Reference, Segments};

/// The modules of a crate, by path from its root.
#[derive(Debug, Default)]
pub(super) struct Modules(HashMap<Segments, Module>);

#[derive(Debug)]
struct Module {
    /// The number of the file in its crate.
    file: usize,
    names: HashMap<String, Vec<Meaning>>,
    /// The modules and enums from which all names are imported.
    globs: Vec<Segments>,
}

/// The target of a path.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Target {
    Module(Segments),
    /// An item in a file.
    Item(usize),
    /// A name from another crate, which this file imports.
    Outside(usize),
}

/// The files that a reference leads to.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Resolved {
    pub(super) files: BTreeSet<usize>,
    /// The files that import the name from another crate.
    pub(super) outside: BTreeSet<usize>,
    /// True if the path begins with a name that a `use` imported.
    pub(super) is_imported: bool,
}

/// The paths that are being resolved, each with its module. The search stops at a path in this
/// list, so circular imports end.
type Visited = Vec<(Segments, Segments)>;

impl Modules {
    /// Adds the modules of a file.
    pub(super) fn add(&mut self, file: usize, contents: &Contents) {
        for module in &contents.modules {
            let empty = Module { file, names: HashMap::new(), globs: Vec::new() };
            self.0.insert(module.clone(), empty);
        }
        for Name { module, name, meaning } in &contents.names {
            let Some(module) = self.0.get_mut(module) else { continue };
            match meaning {
                Meaning::Import(path) | Meaning::BlockImport(path) if name == "*" => {
                    module.globs.push(path.clone());
                }
                _ => module.names.entry(name.clone()).or_default().push(meaning.clone()),
            }
        }
    }

    /// Resolves a reference to its files. Empty if the path begins outside the crate.
    pub(super) fn resolve(&self, reference: &Reference) -> Resolved {
        let Reference { module, segments, .. } = reference;
        let targets = self.follow(module, segments, &mut Vec::new());
        // A single word in code is not treated as a module, since it may be a variable of that
        // name.
        let is_word = segments.len() == 1 && reference.kind == Kind::Use;
        let is_imported = self.is_imported(module, segments);
        let mut resolved = Resolved { is_imported, ..Resolved::default() };
        for target in targets {
            match target {
                Target::Item(file) => resolved.files.extend([file]),
                Target::Outside(file) => resolved.outside.extend([file]),
                Target::Module(_) if is_word => {}
                Target::Module(path) => {
                    resolved.files.extend(self.0.get(&path).map(|module| module.file));
                }
            }
        }
        resolved
    }

    fn is_imported(&self, module: &[String], segments: &[String]) -> bool {
        let [first, ..] = segments else { return false };
        let names = self.0.get(module).and_then(|module| module.names.get(first));
        let is_item = |meaning: &Meaning| matches!(meaning, Meaning::Item);
        let is_defined = names.is_some_and(|names| names.iter().any(is_item));
        let is_keyword = ["crate", "self", "super"].contains(&first.as_str());
        !is_keyword && !is_defined && !self.0.contains_key(&inner(module, first))
    }

    /// Resolves a path that is written in the module `from`.
    fn follow(&self, from: &[String], path: &[String], seen: &mut Visited) -> BTreeSet<Target> {
        let is_own = path.first().is_some_and(|first| first == "self");
        let after_self = &path[usize::from(is_own)..];
        let supers = after_self.iter().take_while(|segment| *segment == "super").count();
        match path.first().map(String::as_str) {
            Some("crate") => self.walk(&[], &path[1..], seen),
            Some("self" | "super") => {
                let depth = from.len().checked_sub(supers);
                let walk = |depth| self.walk(&from[..depth], &after_self[supers..], seen);
                depth.map(walk).unwrap_or_default()
            }
            _ => self.lookup(from, path, true, seen).unwrap_or_default(),
        }
    }

    /// Resolves a path that begins in a module of this crate.
    fn walk(&self, module: &[String], path: &[String], seen: &mut Visited) -> BTreeSet<Target> {
        let Some(content) = self.0.get(module) else { return BTreeSet::new() };
        if path.first().is_none_or(|first| first == "self") {
            return BTreeSet::from([Target::Module(module.to_vec())]);
        }
        if seen.contains(&(module.to_vec(), path.to_vec())) {
            return BTreeSet::new();
        }
        let found = self.lookup(module, path, false, seen);
        found.unwrap_or_else(|| BTreeSet::from([Target::Item(content.file)]))
    }

    /// Resolves a path whose first name is in a module. `None` if the module has no such name.
    fn lookup(
        &self,
        module: &[String],
        path: &[String],
        is_inside: bool,
        seen: &mut Visited,
    ) -> Option<BTreeSet<Target>> {
        let content = self.0.get(module)?;
        let inner = inner(module, path.first()?);
        let is_known = content.names.contains_key(path.first()?) || self.0.contains_key(&inner);
        let place = (module.to_vec(), path.to_vec());
        if (!is_known && content.globs.is_empty()) || seen.contains(&place) {
            return None;
        }
        seen.push(place);
        let found = self.lookup_own(module, path, is_inside, seen);
        let found = found.or_else(|| self.lookup_in_globs(module, path, seen));
        seen.pop();
        found
    }

    /// Resolves a path whose first name is a submodule, an item, or an import by name.
    fn lookup_own(
        &self,
        module: &[String],
        path: &[String],
        is_inside: bool,
        seen: &mut Visited,
    ) -> Option<BTreeSet<Target>> {
        let content = self.0.get(module)?;
        let (name, rest) = path.split_first()?;
        let inner = inner(module, name);
        let mut targets = BTreeSet::new();
        let is_module = self.0.contains_key(&inner);
        if is_module {
            targets = self.walk(&inner, rest, seen);
            // Before `::`, a name is the module, even if there is a function of the same name.
            if !rest.is_empty() {
                return Some(targets);
            }
        }
        let visible = |meaning: &&Meaning| is_inside || !matches!(meaning, Meaning::BlockImport(_));
        let mut meanings = content.names.get(name).into_iter().flatten().filter(visible).peekable();
        if !is_module && meanings.peek().is_none() {
            return None;
        }
        for meaning in meanings {
            match meaning {
                Meaning::Item => {
                    targets.insert(Target::Item(content.file));
                }
                Meaning::Import(imported) | Meaning::BlockImport(imported) => {
                    let found = self.follow(module, imported, seen);
                    if found.is_empty() {
                        targets.insert(Target::Outside(content.file));
                    }
                    for target in found {
                        match target {
                            Target::Module(inner) => targets.extend(self.walk(&inner, rest, seen)),
                            Target::Item(_) | Target::Outside(_) => targets.extend([target]),
                        }
                    }
                }
            }
        }
        Some(targets)
    }

    fn lookup_in_globs(
        &self,
        module: &[String],
        path: &[String],
        seen: &mut Visited,
    ) -> Option<BTreeSet<Target>> {
        for glob in &self.0.get(module)?.globs {
            for target in self.follow(module, glob, seen) {
                let Target::Module(imported) = target else { continue };
                if let Some(found) = self.lookup(&imported, path, false, seen) {
                    return Some(found);
                }
            }
        }
        None
    }
}

/// The path of the submodule `name`.
fn inner(module: &[String], name: &str) -> Segments {
    module.iter().map(String::as_str).chain([name]).map(str::to_owned).collect()
}
