//! The rule against circular imports. Without cycles, the files of a crate can be read one after
//! the other.
//!
//! The rule covers all files of a crate. The following do not count as imports: the `mod` lines of
//! a file, its re-exports of files in its own folder, and the scope of a `pub(in …)`. Each group of
//! files that import each other, directly or through other files, is one finding. The finding names
//! the shortest cycle in the group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tidy::imports::{Crate, Import, is_parent};
use crate::tidy::references::Kind;
use crate::tidy::{Finding, Rule};

/// The imports of a crate. The outer key is the importing file, and the inner key is the imported
/// file. The value is the first import that leads from the one to the other.
type Graph<'a> = BTreeMap<usize, BTreeMap<usize, &'a Import>>;

pub(super) fn check(crate_: &Crate<'_>) -> Vec<Finding> {
    let graph = graph(crate_);
    let groups = groups(&graph);
    groups.iter().filter_map(|group| finding(crate_, &graph, group)).collect()
}

fn graph<'a>(crate_: &'a Crate<'_>) -> Graph<'a> {
    let mut graph = Graph::new();
    for import in crate_.imports.iter().filter(|import| counts(crate_, import)) {
        graph.entry(import.from).or_default().entry(import.to).or_insert(import);
    }
    graph
}

fn counts(crate_: &Crate<'_>, import: &Import) -> bool {
    match import.kind {
        Kind::Visibility => false,
        Kind::Reexport => !is_parent(crate_.files[import.from], crate_.files[import.to]),
        Kind::Import | Kind::Use => true,
    }
}

/// The groups of two or more files that all import each other, directly or through other files.
fn groups(graph: &Graph<'_>) -> Vec<BTreeSet<usize>> {
    let reached: BTreeMap<usize, BTreeSet<usize>> =
        graph.keys().map(|file| (*file, reachable(graph, *file))).collect();
    let mut groups: Vec<BTreeSet<usize>> = Vec::new();
    for (file, others) in &reached {
        if others.contains(file) && !groups.iter().any(|group| group.contains(file)) {
            let returns = |other: &&usize| reached.get(other).is_some_and(|r| r.contains(file));
            groups.push(others.iter().filter(returns).copied().collect());
        }
    }
    groups
}

/// The files that a file imports, directly or through other files.
fn reachable(graph: &Graph<'_>, file: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![file];
    while let Some(next) = waiting.pop() {
        let imported = graph.get(&next).into_iter().flat_map(BTreeMap::keys);
        waiting.extend(imported.filter(|file| reached.insert(**file)));
    }
    reached
}

/// The shortest path of imports that leads from a file back to the file. The path contains the file
/// only once, at its beginning.
fn shortest_cycle(graph: &Graph<'_>, file: usize) -> Option<Vec<usize>> {
    let mut ways = VecDeque::from([vec![file]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in graph.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            if *next == file {
                return Some(way);
            }
            if seen.insert(*next) {
                ways.push_back([way.as_slice(), &[*next]].concat());
            }
        }
    }
    None
}

fn finding(crate_: &Crate<'_>, graph: &Graph<'_>, group: &BTreeSet<usize>) -> Option<Finding> {
    let cycles = group.iter().filter_map(|file| shortest_cycle(graph, *file));
    let cycle = cycles.min_by_key(Vec::len)?;
    let (first, second) = (*cycle.first()?, *cycle.get(1)?);
    let import = graph.get(&first)?.get(&second)?;
    let names: Vec<&str> = cycle.iter().chain([&first]).map(|file| crate_.path(*file)).collect();
    let mut subject = names.join(" -> ");
    if group.len() > cycle.len() {
        // An exception in `allow.rs` has the same subject as its finding. If the group grows, the
        // number in the subject changes, so an old exception no longer matches.
        subject = format!("{subject} (one cycle among {} files)", group.len());
    }
    let advice = format!("`{subject}`: move `{}`, or the code that uses it", import.path);
    Some(crate_.files[first].finding(import.line, Rule::Cycles, subject, advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::imports;
    use crate::tidy::source::Source;

    /// The cycles of a crate.
    fn cycles(files: &[(&str, &str)]) -> Vec<String> {
        let sources = Source::all_below("crates/x/src/", files);
        let crates = imports::crates(&sources);
        crates.iter().flat_map(check).map(|finding| finding.subject).collect()
    }

    #[test]
    fn the_finding_names_the_files_of_the_cycle() {
        let files = [
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::c::C;"),
            ("c.rs", "fn f() { crate::a::f() }"),
            ("d.rs", "use crate::a::A;"),
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ];
        assert_eq!(cycles(&files), ["a.rs -> b.rs -> c.rs -> a.rs"]);
    }

    #[test]
    fn imports_in_one_direction_are_not_a_cycle() {
        let files = [
            ("a.rs", "use crate::{b::B, c::C};"),
            ("b.rs", "use crate::c::C;"),
            ("c.rs", "struct C;\n#[cfg(test)]\nmod tests { use crate::a::A; }"),
            ("lib.rs", "mod a; mod b; mod c;"),
        ];
        assert_eq!(cycles(&files), [""; 0]);
    }

    #[test]
    fn the_finding_of_a_larger_group_names_the_shortest_cycle_and_the_number_of_files() {
        let files = [
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::{c::C};"),
            ("c.rs", "use crate::{a::A, b::B};"),
            ("lib.rs", "mod a; mod b; mod c;"),
        ];
        assert_eq!(cycles(&files), ["b.rs -> c.rs -> b.rs (one cycle among 3 files)"]);
    }

    #[test]
    fn an_import_through_a_reexport_of_the_parent_counts() {
        let files = [
            ("a/b.rs", "use super::C; pub struct B;"),
            ("a/c.rs", "use crate::B; pub struct C;"),
            ("a/mod.rs", "mod b; mod c; pub use b::B; pub(crate) use c::C;"),
            ("lib.rs", "mod a; pub use a::B;"),
        ];
        assert_eq!(cycles(&files), ["a/b.rs -> a/c.rs -> a/b.rs"]);
    }

    #[test]
    fn declarations_and_reexports_of_children_are_not_imports() {
        let child = ("a/b.rs", "use super::LIMIT; pub(in crate::a) struct B;");
        let reexport = "mod b; pub use b::B; const LIMIT: u8 = 1;";
        assert_eq!(cycles(&[child, ("a/mod.rs", reexport)]), [""; 0]);
        assert_eq!(cycles(&[child, ("a.rs", reexport)]), [""; 0]);
        // If the parent's own code uses the child, this is an import.
        let used = format!("{reexport} fn f(b: B) {{}}");
        assert_eq!(cycles(&[child, ("a/mod.rs", &used)]), ["a/b.rs -> a/mod.rs -> a/b.rs"]);
    }

    #[test]
    fn a_reexport_from_elsewhere_is_an_import() {
        let files =
            [("a.rs", "pub use crate::b::B;"), ("b.rs", "use crate::a::A;"), ("lib.rs", "")];
        assert_eq!(cycles(&files), ["a.rs -> b.rs -> a.rs"]);
    }

    #[test]
    fn a_cycle_through_a_subfolder_counts() {
        let files = [
            ("a.rs", "use crate::b::c::C;"),
            ("b/c.rs", "use crate::a::A;"),
            ("b/mod.rs", "pub mod c;"),
            ("lib.rs", "mod a; mod b;"),
        ];
        assert_eq!(cycles(&files), ["a.rs -> b/c.rs -> a.rs"]);
    }
}
