//! `downlink backup`: copies the store of a server, also while the server runs.
//!
//! The command reads the file of the store, and needs no connection to the server and no key. At
//! every moment, the file of the backup is either complete or does not exist, because the command
//! copies into another file of the same folder. At the end, it renames this other file. If the
//! command is killed, files remain whose names contain `.incomplete`.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use downlink_sqlite::Backup;

use super::{
    exit,
    output::{printed, shown},
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The file to write.
    file: PathBuf,
    /// The file of the store.
    #[arg(long, env = "DOWNLINK_STORE", value_name = "FILE", default_value = "./downlink.db")]
    store: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { file, store, force } = arguments;
    if store.as_os_str() == "none" {
        let error = anyhow!("--store is none, so there is nothing to copy: name the file");
        return Err(exit::configuration(error));
    }
    let is_store = matches!((file.canonicalize(), store.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if is_store {
        return Err(exit::usage(anyhow!(
            "{} is the store itself: name another file",
            file.display()
        )));
    }
    if !force && fs::symlink_metadata(file).is_ok() {
        return Err(exists(file));
    }
    if let Some(part) = part_of_a_store(file) {
        return Err(exit::usage(anyhow!(
            "{} may be a store in use, because {} exists: stop its server, or give another name",
            file.display(),
            part.display()
        )));
    }
    let failed = || format!("cannot copy the store {}", store.display());
    let incomplete = incomplete(file);
    let newest = Backup::open(store).with_context(failed)?.run(&incomplete).with_context(failed)?;
    let named = name(&incomplete, file, *force);
    if named.is_err() {
        let _ = fs::remove_file(&incomplete);
    }
    named?;
    let newest = match newest {
        Some(id) => format!("the newest event is {id}"),
        None => "the store has no events".to_owned(),
    };
    let line = format!("{}: {newest}", file.display());
    printed(writeln!(io::stdout(), "{}", shown(&line)))
}

fn exists(file: &Path) -> anyhow::Error {
    exit::usage(anyhow!("{} exists: give another name, or --force", file.display()))
}

/// A file that SQLite keeps beside a store while a program uses the store, or after a crash. It
/// belongs to this store. If a backup replaced the store, the file would be beside a database to
/// which it does not belong.
fn part_of_a_store(file: &Path) -> Option<PathBuf> {
    let mut parts = ["-wal", "-shm", "-journal"].into_iter().map(|end| {
        let mut name = OsString::from(file);
        name.push(end);
        PathBuf::from(name)
    });
    parts.find(|part| fs::symlink_metadata(part).is_ok())
}

/// A new name in the folder of the backup.
fn incomplete(file: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut name = OsString::from(file);
    name.push(format!(".{}-{}.incomplete", process::id(), now.as_nanos()));
    name.into()
}

/// Gives the complete copy its name, and flushes this change to the disk.
fn name(incomplete: &Path, file: &Path, force: bool) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", file.display());
    if force {
        fs::rename(incomplete, file).with_context(failed)?;
    } else {
        // Another backup may have made the file since the first check. A link never replaces a
        // file.
        match fs::hard_link(incomplete, file) {
            Ok(()) => fs::remove_file(incomplete).with_context(failed)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists(file)),
            // Some file systems have no links. There, an empty file reserves the name.
            Err(_) => match fs::File::create_new(file) {
                Ok(_) => fs::rename(incomplete, file).with_context(failed)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists(file)),
                Err(error) => return Err(error).with_context(failed),
            },
        }
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Only Unix systems can flush a folder.
    #[cfg(unix)]
    fs::File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .with_context(failed)?;
    Ok(())
}
