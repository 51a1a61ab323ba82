//! The rule for the layers of a crate: a folder imports only from the folders before it in the
//! table.
//!
//! The table names every folder and root file of a crate, the lowest layer first. The rule reports
//! a name in the table that has no sources, and a folder or file that is not in the table. It
//! checks all paths in the code, except in test-only code. An item belongs to the layer of the file
//! that defines it. A re-export from `lib.rs` does not change the layer.

use crate::tidy::imports::{Crate, Import};
use crate::tidy::{Finding, Rule};

/// The layers of one crate.
struct Layers {
    /// The folder of the sources.
    folder: &'static str,
    /// The layers, the lowest first.
    order: &'static [Layer],
}

/// A folder or a root file.
struct Layer {
    /// A folder ends with a slash.
    name: &'static str,
    /// Lower layers that this layer must not import.
    without: &'static [&'static str],
    /// The reason for `without`.
    reason: &'static str,
}

/// A layer that may import every layer below it.
const fn layer(name: &'static str) -> Layer {
    Layer { name, without: &[], reason: "" }
}

impl Layer {
    const fn without(self, without: &'static [&'static str], reason: &'static str) -> Self {
        Self { without, reason, ..self }
    }
}

/// The layers of `downlink-log`, the log of events.
const LOG: Layers = Layers {
    folder: "crates/downlink-log/src/",
    order: &[
        layer("sync.rs"),
        layer("types/"),
        layer("store.rs"),
        layer("readers/"),
        layer("topics/"),
        layer("patterns/"),
        layer("history/"),
        layer("sequence/"),
        layer("core.rs"),
        layer("commit/"),
        layer("read/"),
        layer("feed/"),
        layer("replica/"),
        layer("log.rs"),
        layer("lib.rs"),
    ],
};

/// The layers of the library.
const LIBRARY: Layers = Layers {
    folder: "crates/downlink/src/",
    order: &[
        layer("json_text.rs"),
        layer("http/"),
        layer("hub/").without(&["http/"], "the hub knows nothing of HTTP"),
        layer("serve/").without(&["hub/"], "serving works for any service"),
        layer("relay/"),
        layer("cluster/").without(&["http/", "relay/"], "a node knows nothing of HTTP"),
        layer("adapters/"),
        layer("access/"),
        layer("testing.rs"),
        layer("guide.rs"),
        layer("lib.rs"),
    ],
};

/// The layers of access control.
const ACCESS: Layers = Layers {
    folder: "crates/downlink-access/src/",
    order: &[
        layer("containment.rs"),
        layer("json.rs"),
        layer("error.rs"),
        layer("grant.rs"),
        layer("grant_json.rs"),
        layer("secret.rs"),
        layer("credentials.rs"),
        layer("keys.rs"),
        layer("jwt/"),
        layer("revocations.rs"),
        layer("tickets/"),
        layer("verified.rs"),
        layer("access.rs"),
        layer("lib.rs"),
    ],
};

/// The layers of the cluster.
const CLUSTER: Layers = Layers {
    folder: "crates/downlink-cluster/src/",
    order: &[
        layer("rules.rs"),
        layer("position.rs"),
        layer("mark.rs"),
        layer("engine_clock.rs"),
        layer("entry.rs"),
        layer("wire.rs"),
        layer("window/"),
        layer("chain.rs"),
        layer("forks.rs"),
        layer("journal.rs"),
        layer("fed_log.rs"),
        layer("node/"),
        layer("driver.rs"),
        layer("found.rs"),
        layer("lib.rs"),
    ],
};

/// The order of each crate that has folders.
const TABLE: &[Layers] = &[LIBRARY, LOG, ACCESS, CLUSTER];

pub(super) fn check(crates: &[Crate<'_>]) -> Vec<Finding> {
    let check = |layers: &Layers| {
        let crate_ = crates.iter().find(|crate_| crate_.folder == layers.folder);
        crate_.map_or_else(|| layers.absent(&[]), |crate_| layers.check(crate_))
    };
    TABLE.iter().flat_map(check).collect()
}

impl Layers {
    fn check(&self, crate_: &Crate<'_>) -> Vec<Finding> {
        let places: Vec<Option<usize>> =
            (0..crate_.files.len()).map(|file| self.place(crate_.path(file))).collect();
        let mut findings = self.unlisted(crate_, &places);
        findings.extend(self.absent(&places));
        findings.extend(self.banned(crate_, &places));
        findings
    }

    /// The position of a file's layer in the order.
    fn place(&self, path: &str) -> Option<usize> {
        let name = layer_name(path);
        // The file of a module may be outside its folder: `http.rs` belongs to `http/`.
        let folder = format!("{}/", name.trim_end_matches(".rs"));
        let find = |name: &str| self.order.iter().position(|layer| layer.name == name);
        find(name).or_else(|| find(&folder))
    }

    fn unlisted(&self, crate_: &Crate<'_>, places: &[Option<usize>]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        let is_unlisted = |file: &usize| places[*file].is_none() && !crate_.files[*file].is_test;
        for file in (0..places.len()).filter(is_unlisted) {
            let name = layer_name(crate_.path(file));
            if findings.iter().all(|finding| finding.subject != name) {
                let advice = format!("`{name}` is not in the table of layers.rs: add it");
                findings.push(crate_.files[file].finding(1, Rule::Layers, name, advice));
            }
        }
        findings
    }

    fn absent(&self, places: &[Option<usize>]) -> Vec<Finding> {
        let absent = self.order.iter().enumerate().filter(|(n, _)| !places.contains(&Some(*n)));
        let finding = |(_, Layer { name, .. }): (usize, &Layer)| Finding {
            path: format!("{}{name}", self.folder),
            line: 1,
            rule: Rule::Layers,
            subject: (*name).to_owned(),
            advice: format!("`{name}` has no sources: remove it from the table of layers.rs"),
        };
        absent.map(finding).collect()
    }

    /// The imports that break the order, or a `without` of the table.
    fn banned(&self, crate_: &Crate<'_>, places: &[Option<usize>]) -> Vec<Finding> {
        let mut findings = Vec::new();
        // If a file imports a name, report the import and not each use of the name. So the loop
        // handles imports and full paths before uses of imported names.
        let mut reported = Vec::new();
        let (by_name, direct): (Vec<&Import>, Vec<&Import>) =
            crate_.imports.iter().partition(|import| import.is_imported);
        for import in direct.into_iter().chain(by_name) {
            let (Some(from), Some(to)) = (places[import.from], places[import.to]) else { continue };
            let pair = (import.from, to);
            if self.allows(from, to) || (import.is_imported && reported.contains(&pair)) {
                continue;
            }
            reported.push(pair);
            let (source, importing) = (crate_.files[import.from], &self.order[from]);
            let (name, imported) = (importing.name, self.order[to].name);
            let reason = if to < from { importing.reason } else { "it is a higher layer" };
            let advice =
                format!("`{name}` may not import `{imported}` (`{}`): {reason}", import.path);
            findings.push(source.finding(import.line, Rule::Layers, imported, advice));
        }
        findings
    }

    fn allows(&self, from: usize, to: usize) -> bool {
        let Layer { without, .. } = &self.order[from];
        to <= from && !without.contains(&self.order[to].name)
    }
}

/// The layer of a file: its first folder, or the file itself if it is in the crate's root.
fn layer_name(path: &str) -> &str {
    path.find('/').map_or(path, |slash| &path[..=slash])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::imports;
    use crate::tidy::source::Source;

    /// One empty file for each layer of the log.
    const EMPTY: [&str; 15] = [
        "sync.rs",
        "types/mod.rs",
        "store.rs",
        "readers/mod.rs",
        "topics/mod.rs",
        "patterns/mod.rs",
        "history/mod.rs",
        "sequence/mod.rs",
        "core.rs",
        "commit/mod.rs",
        "read/mod.rs",
        "feed/mod.rs",
        "replica/mod.rs",
        "log.rs",
        "lib.rs",
    ];

    /// Checks a crate with `files`, and with empty files for the other paths in `all`.
    fn findings(layers: &Layers, all: &[&str], files: &[(&str, &str)]) -> Vec<Finding> {
        let empty = { all.iter() }.filter(|path| files.iter().all(|(given, _)| given != *path));
        let files = empty.map(|path| (*path, "")).chain(files.iter().copied());
        let sources = Source::all_below(layers.folder, &files.collect::<Vec<_>>());
        let crates = imports::crates(&sources);
        crates.iter().flat_map(|crate_| layers.check(crate_)).collect()
    }

    /// The findings in a crate with the log's layers, as `file: subject`.
    fn in_log(files: &[(&str, &str)]) -> Vec<String> {
        let findings = findings(&LOG, &EMPTY, files).into_iter();
        let file = |finding: &Finding| finding.path[LOG.folder.len()..].to_owned();
        findings.map(|finding| format!("{}: {}", file(&finding), finding.subject)).collect()
    }

    /// The subjects of the findings for one file of the library.
    fn in_library(path: &str, text: &str) -> Vec<String> {
        let all =
            ["adapters/mod.rs", "guide.rs", "http/mod.rs", "hub/mod.rs", "json_text.rs", "lib.rs"];
        let all = [
            &all[..],
            &["access/mod.rs", "cluster/mod.rs", "relay/mod.rs", "serve/mod.rs", "testing.rs"],
        ]
        .concat();
        let findings = findings(&TABLE[0], &all, &[(path, text)]).into_iter();
        findings.map(|finding| finding.subject).collect()
    }

    #[test]
    fn lower_layers_may_be_imported() {
        let text = "use crate::{sync::Mutex, types::Offset}; use super::history; use self::a::A;";
        assert_eq!(in_log(&[("read/mod.rs", text), ("read/a.rs", "use super::B;")]), [""; 0]);
    }

    #[test]
    fn every_path_to_a_higher_layer_is_found() {
        for text in [
            "use crate::read::Reader;",
            "use super::super::read::*;",
            "fn f(reader: &crate::read::Reader) {}",
            "fn f() { crate::read::f() }",
            "impl crate::read::Trait for A {}",
            "#[crate::read::attribute] struct A;",
            "#[serde(with = \"crate::read\")] struct A;",
            "fn f() { log!(level, crate::read::f()) }",
            "macro_rules! m { () => { $crate::read::f() } }",
            "pub(in crate::read) struct A;",
            "mod inner { use super::super::super::read; }",
            "fn f() { use crate::read; }",
        ] {
            assert_eq!(in_log(&[("types/offset.rs", text)]), ["types/offset.rs: read/"], "{text}");
        }
    }

    #[test]
    fn an_item_belongs_to_the_layer_that_defines_it() {
        let root = ("lib.rs", "mod read; mod types; pub use read::Gap; pub use types::Offset;");
        let read = ("read/mod.rs", "mod gap; pub use gap::Gap;");
        let files = |text| [root, read, ("read/gap.rs", "pub struct Gap;"), ("store.rs", text)];
        assert_eq!(in_log(&files("use crate::Gap;")), ["store.rs: read/"]);
        assert_eq!(in_log(&files("use super::Gap;")), ["store.rs: read/"]);
        assert_eq!(in_log(&files("use crate::Offset;")), [""; 0]);
        assert_eq!(in_log(&files("use crate::DEFINED_IN_ROOT;")), ["store.rs: lib.rs"]);
    }

    #[test]
    fn an_import_is_reported_once_and_not_at_each_use_of_its_name() {
        let text = "use crate::read;\nfn f() { read::g() }\nfn h() { crate::read::i() }";
        let found = in_log(&[("types/mod.rs", text)]);
        assert_eq!(found, ["types/mod.rs: read/", "types/mod.rs: read/"]);
    }

    #[test]
    fn test_code_may_import_every_layer() {
        let text = "#[cfg(test)]\nmod tests { use crate::read; }";
        assert_eq!(in_log(&[("types/mod.rs", text)]), [""; 0]);
    }

    #[test]
    fn module_files_reexport_from_their_own_folder_only() {
        assert_eq!(in_log(&[("types/mod.rs", "pub use self::offset::Offset;")]), [""; 0]);
        assert_eq!(in_log(&[("lib.rs", "pub use read::Gap; pub use log::Log;")]), [""; 0]);
        let found = in_log(&[("types/mod.rs", "pub use crate::read::Gap;")]);
        assert_eq!(found, ["types/mod.rs: read/"]);
    }

    #[test]
    fn listed_layers_without_sources_and_unlisted_files_are_found() {
        assert_eq!(findings(&LOG, &EMPTY[1..], &[])[0].path, "crates/downlink-log/src/sync.rs");
        let all = [&EMPTY[..], &["new/a.rs", "new/b.rs", "ring.rs"]].concat();
        let findings = findings(&LOG, &all, &[]);
        let subjects: Vec<&str> = findings.iter().map(|finding| &*finding.subject).collect();
        assert_eq!(subjects, ["new/", "ring.rs"]);
    }

    #[test]
    fn test_files_need_no_layer() {
        let files = [("tests.rs", "#![cfg(test)]\nuse crate::read;")];
        assert_eq!(in_log(&files), [""; 0]);
    }

    #[test]
    fn layers_listed_as_forbidden_are_lower_layers() {
        for Layers { order, .. } in TABLE {
            for (place, layer) in order.iter().enumerate() {
                let below: Vec<&str> = order[..place].iter().map(|layer| layer.name).collect();
                assert!(layer.without.iter().all(|name| below.contains(name)), "{}", layer.name);
            }
        }
    }

    #[test]
    fn each_layer_of_a_missing_crate_is_a_finding() {
        let listed: usize = TABLE.iter().map(|layers| layers.order.len()).sum();
        assert_eq!(check(&[]).len(), listed);
    }

    #[test]
    fn the_hub_must_not_import_http() {
        let path = "hub/wake.rs";
        assert_eq!(in_library(path, "use crate::http::Body;"), ["http/"]);
        let two = in_library(path, "use crate::{http, serve::{Accept, Drain}};");
        assert_eq!(two, ["http/", "serve/", "serve/"]);
        assert_eq!(in_library(path, "use super::super::adapters::*;"), ["adapters/"]);
        let text = "use http::HeaderMap; use crate::hub::Topic; use super::a;";
        assert_eq!(in_library(path, text), [""; 0]);
    }

    #[test]
    fn http_and_serve_must_not_import_the_hub() {
        assert_eq!(in_library("http/mod.rs", "use crate::hub;"), ["hub/"]);
        assert_eq!(in_library("http.rs", "use crate::serve;"), ["serve/"]);
        assert_eq!(in_library("serve/a.rs", "use crate::hub::A;"), ["hub/"]);
        assert_eq!(in_library("serve/a.rs", "use crate::http::A;"), [""; 0]);
        assert_eq!(in_library("adapters/axum.rs", "use crate::{hub, http, serve};"), [""; 0]);
    }
}
