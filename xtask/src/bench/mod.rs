//! `cargo xtask bench` measures downlink, axum and the floor with the same load. The floor is a
//! server that only writes each event to all sockets in a loop. A cell is one measurement, and a
//! bar is the limit for a figure of a cell. The results go to the record, a Markdown file.
//!
//! The servers take turns in each round, so other load on the machine affects all of them alike.
//! Each round gives the ratio of the figures of two servers, and the result is the median of these
//! ratios. Every run starts a new server, so its memory does not depend on earlier runs. The
//! figures come from `downlink bench`, except the kernel's memory for sockets, which comes from
//! `ss`. A missed bar is reported, but the command does not fail.

mod attacks;
mod cells;
mod machine;
mod open;
mod relays;
mod round;
mod servers;
mod settings;
mod stores;
mod table;
mod watch;

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use self::cells::{CELLS, Cell};
use self::round::Round;
use self::servers::Programs;
use self::settings::{QUICK_NAME, Settings, names};
use self::table::{Judged, Reports, Row, judge};
use crate::Options;
use crate::steps::{Choice, Verdict};
use crate::workspace::Workspace;

/// Measures all or some cells, or lists them.
///
/// # Errors
///
/// If a program cannot be built, or the record cannot be written. If a cell cannot be measured, the
/// record gives the reason, and the other cells are still measured.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<Verdict> {
    if options.choice == Choice::List {
        print!("{}", list());
        return Ok(Verdict::Good);
    }
    // Read the load average before the build, because the build increases it.
    let load_before = machine::load_before();
    let settings = Settings::new(options)?;
    let cells = chosen(&options.choice)?;
    let programs = Programs::build(workspace)?;
    let bench = Bench { programs, settings, record: record(workspace, settings)? };
    bench.write(&machine::header(&bench.programs, settings, load_before)?)?;
    let mut verdict = Verdict::Good;
    let mut summary = String::new();
    for cell in cells {
        let result = bench.cell(cell);
        if result.is_err() {
            verdict = Verdict::Bad;
        }
        let (text, said) = told(cell, result);
        print!("\n{text}");
        bench.write(&text)?;
        let _ = writeln!(summary, "{:<15} {said}", cell.name);
    }
    println!("\n{summary}\nwritten: {}", bench.record.with_extension("md").display());
    Ok(verdict)
}

/// The cells that `--only` names, or all cells.
fn chosen(choice: &Choice) -> anyhow::Result<Vec<&'static Cell>> {
    let names: Vec<_> = names(choice).into_iter().filter(|name| *name != QUICK_NAME).collect();
    if let Some(unknown) = names.iter().find(|name| CELLS.iter().all(|cell| cell.name != **name)) {
        bail!("there is no cell `{unknown}`; --list prints all cells");
    }
    let is_chosen = |cell: &&Cell| names.is_empty() || names.contains(&cell.name);
    Ok(CELLS.iter().filter(is_chosen).collect())
}

fn list() -> String {
    let mut text = String::new();
    for cell in &CELLS {
        let _ = writeln!(text, "{:<15} {}", cell.name, cell.what);
    }
    let _ = writeln!(text, "{QUICK_NAME:<15} short runs of all cells, not recorded (or --quick)");
    text.push_str("--only takes one cell, or several with commas between them\n");
    text
}

/// The path of the record, without its extension.
fn record(workspace: &Workspace, settings: Settings) -> anyhow::Result<PathBuf> {
    let folder = match settings.is_quick {
        true => workspace.target.join("bench-quick"),
        false => workspace.root.join("bench/record"),
    };
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder.join(machine::record_name(workspace)?))
}

/// The section of a cell for the record, and a short verdict.
fn told(cell: &Cell, result: anyhow::Result<Measured>) -> (String, String) {
    let (text, said) = match result {
        Ok(Measured::Judged(Judged { text, missed: 0 })) => {
            let has_bar = cell.rows.iter().any(Row::is_judged);
            (text, if has_bar { "pass" } else { "measured; the cell has no bar" }.to_owned())
        }
        Ok(Measured::Judged(Judged { text, missed })) => (text, format!("{missed} FAIL")),
        Ok(Measured::Lacking(what)) => {
            let said = format!("not supported by this build: the server has no `{what}`");
            (format!("{said}\n\n"), said)
        }
        Err(error) => {
            let said = format!("could not be measured: {error:#}");
            (format!("{said}\n\n"), said)
        }
    };
    (format!("## {}\n\n{}.\n\n{text}", cell.name, cell.what), said)
}

/// The result of a cell.
#[derive(Debug)]
enum Measured {
    Judged(Judged),
    Lacking(&'static str),
}

/// A run of the command.
#[derive(Debug)]
struct Bench<'a> {
    programs: Programs<'a>,
    settings: Settings,
    /// The path of the record, without its extension.
    record: PathBuf,
}

impl Bench<'_> {
    /// Measures all rounds of a cell.
    fn cell(&self, cell: &Cell) -> anyhow::Result<Measured> {
        let rounds = self.settings.rounds;
        if let Some(what) = (cell.lacks)(&self.round(None)) {
            return Ok(Measured::Lacking(what));
        }
        let (mut all, mut pictures) = (Vec::new(), String::new());
        for number in 1..=rounds {
            let load_before = machine::load_before();
            let load =
                load_before.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
            println!("\n=== {}: round {number} of {rounds}, load {load}", cell.name);
            let name = self.record.file_name().unwrap_or_default().to_string_lossy();
            let paths = self.record.with_file_name(format!("{name}-{}", cell.name));
            let mut round = self.round((number == rounds).then_some(paths));
            (cell.measure)(&mut round)?;
            pictures.push_str(&round.drawn);
            all.push(Reports { load_before, runs: round.reports });
        }
        let mut judged = judge(cell.rows, &all);
        judged.text.push_str(&pictures);
        Ok(Measured::Judged(judged))
    }

    fn round(&self, pictures: Option<PathBuf>) -> Round<'_> {
        let seconds = self.settings.seconds;
        let (drawn, reports) = (String::new(), Vec::new());
        let is_quick = self.settings.is_quick;
        Round { programs: &self.programs, seconds, is_quick, pictures, drawn, reports }
    }

    /// Appends to the record. Cells that are measured separately share one file.
    fn write(&self, text: &str) -> anyhow::Result<()> {
        let path = self.record.with_extension("md");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(names: &str) -> anyhow::Result<Vec<&'static str>> {
        let cells = chosen(&Choice::Only(names.to_owned()))?;
        Ok(cells.into_iter().map(|cell| cell.name).collect())
    }

    #[test]
    fn chosen_cells_keep_the_order_of_the_list() {
        assert_eq!(only("rate").unwrap(), ["rate"]);
        assert_eq!(only("rate,idle").unwrap(), ["idle", "rate"]);
        assert_eq!(only("quick").unwrap().len(), CELLS.len());
        assert!(only("rate,idel").unwrap_err().to_string().contains("`idel`"));
    }

    #[test]
    fn every_cell_has_rows_and_is_listed() {
        for cell in &CELLS {
            assert!(!cell.rows.is_empty(), "{}", cell.name);
            assert!(list().contains(cell.name));
        }
    }

    #[test]
    fn a_cell_without_a_bar_is_measured_but_has_not_passed() {
        let said = |name: &str| {
            let cell = CELLS.iter().find(|cell| cell.name == name).unwrap();
            let judged = Judged { text: String::new(), missed: 0 };
            told(cell, Ok(Measured::Judged(judged))).1
        };
        assert_eq!(said("idle"), "pass");
        assert_eq!(said("window"), "measured; the cell has no bar");
    }

    #[test]
    fn a_cell_that_this_build_does_not_support_is_not_a_failure() {
        let (text, said) = told(&CELLS[0], Ok(Measured::Lacking("--x")));
        assert!(text.starts_with("## idle\n"), "{text}");
        assert!(said.starts_with("not supported by this build"), "{said}");
    }
}
