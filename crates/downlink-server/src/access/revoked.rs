//! The file with the revocations, beside the store: one revocation in each line, as base64. A
//! revocation withdraws the credentials of a client, its rights to a topic, or a key.
//!
//! The server appends a revocation to the file and flushes the file before it answers the request.
//! When the server starts, it reads the file. Then it replaces the file with a new file, without
//! the revocations that are no longer needed. The server reads and replaces the file only after it
//! has opened the store, because until then another server may append to the file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD as BASE64};
use downlink::hub::Timestamp;
use downlink_access::{Access, Revocation};
use parking_lot::Mutex;

use super::key_files;

/// The end of the name of the file. The name begins with the name of the store, because several
/// servers may have their stores in one folder.
const SUFFIX: &str = "-revocations";

/// The maximum number of lines. When the file has this many lines, the server replaces it with a
/// new file, without the revocations that are no longer needed. If an app revokes ten clients per
/// second, this happens about once a day.
const LINES_MAX: usize = 1_000_000;

/// The maximum length of a line. A client id and a topic have at most a few hundred bytes.
const LINE_BYTES_MAX: u64 = 4 << 10;

/// The file of the revocations.
#[derive(Debug)]
pub(super) struct RevokedFile {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    lines: usize,
    /// The length of the file up to the last complete revocation, in bytes.
    bytes: u64,
    /// Whether an incomplete revocation may follow the complete revocations in the file.
    is_torn: bool,
}

impl RevokedFile {
    /// Applies the revocations of earlier runs to `access`, and opens the file for new revocations.
    pub(super) fn open(store: &Path, access: &Access, now: Timestamp) -> anyhow::Result<Self> {
        let path = path(store);
        let failed = || format!("cannot use the file of revocations {}", path.display());
        read(&path, LINES_MAX, access, now).with_context(failed)?;
        let open = Mutex::new(rewrite(&path, access).with_context(failed)?);
        Ok(Self { path, open })
    }

    /// Appends a revocation, and blocks the thread until the revocation is on the disk. The caller
    /// must have applied the revocation to `access`. If the file has [`LINES_MAX`] lines, this
    /// function writes all revocations of `access` to a new file.
    pub(super) fn append(&self, revocation: &Revocation, access: &Access) -> io::Result<()> {
        let line = line_of(revocation);
        let mut open = self.open.lock();
        if open.lines >= LINES_MAX {
            *open = rewrite(&self.path, access)?;
            return Ok(());
        }
        if open.is_torn {
            // An earlier append failed and left a part of a line. The new line must not continue
            // that line.
            open.file.set_len(open.bytes)?;
        }
        open.is_torn = true;
        open.file.write_all(line.as_bytes())?;
        open.file.sync_data()?;
        (open.is_torn, open.bytes) = (false, open.bytes + line.len() as u64);
        open.lines += 1;
        Ok(())
    }
}

/// The path of the file: `downlink-revocations` for the store `downlink.db`.
fn path(store: &Path) -> PathBuf {
    let mut name = store.file_stem().unwrap_or_default().to_owned();
    name.push(SUFFIX);
    store.with_file_name(name)
}

/// Applies the revocations in the file to `access`. Every whole line must be a revocation: if the
/// server skipped a line, it would accept revoked credentials again.
fn read(path: &Path, lines_max: usize, access: &Access, now: Timestamp) -> anyhow::Result<()> {
    let mut lines = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => BufReader::new(file?),
    };
    for number in 1.. {
        let mut line = Vec::new();
        let bytes = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        // A crash can cut the last line. The server had not yet confirmed the revocation of this
        // line, so the line is ignored.
        if bytes < LINE_BYTES_MAX as usize && !line.ends_with(b"\n") {
            return Ok(());
        }
        anyhow::ensure!(number <= lines_max, "the file has more than {lines_max} lines");
        access.revoke(parse(&line).with_context(|| damaged(number))?, now)?;
    }
    Ok(())
}

/// The revocation of a line. `None` if the line is damaged, or too long to be from the server.
fn parse(line: &[u8]) -> Option<Revocation> {
    let bytes = BASE64.decode(line.strip_suffix(b"\n")?).ok()?;
    Revocation::from_bytes(&bytes)
}

fn damaged(number: usize) -> String {
    format!(
        "line {number} is damaged: restore the file from a backup, or delete the line (the server \
         then no longer has this revocation)"
    )
}

/// Replaces the file with a new file that has only the present revocations of `access`.
fn rewrite(path: &Path, access: &Access) -> io::Result<Open> {
    let fresh = PathBuf::from(format!("{}.new", path.display()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    let revocations = access.revocations();
    let text: String = revocations.iter().map(line_of).collect();
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    #[cfg(unix)]
    File::open(key_files::folder(Some(path)))?.sync_all()?;
    let file = OpenOptions::new().append(true).open(path)?;
    Ok(Open { file, lines: revocations.len(), bytes: text.len() as u64, is_torn: false })
}

fn line_of(revocation: &Revocation) -> String {
    BASE64.encode(revocation.to_bytes()) + "\n"
}

#[cfg(test)]
mod tests {
    use downlink_access::{AccessOptions, Revoked};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn folder(name: &str) -> PathBuf {
        let name = format!("downlink-revoked-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn access() -> Access {
        Access::new(AccessOptions::default())
    }

    fn line(client: &str) -> String {
        let revoked = Revoked::Client(downlink::hub::ClientId::new(client).unwrap());
        line_of(&Revocation { revoked, at: NOW })
    }

    /// Opens a file with this text. Returns the number of revocations or the error, and the text
    /// that the file has afterwards.
    fn opened(name: &str, text: &str) -> (Result<usize, String>, String) {
        let (folder, access) = (folder(name), access());
        let store = folder.join("downlink.db");
        fs::write(path(&store), text).unwrap();
        let outcome = RevokedFile::open(&store, &access, NOW);
        let outcome = outcome.map(|_| access.revocations().len());
        let text = fs::read_to_string(path(&store)).unwrap();
        fs::remove_dir_all(folder).unwrap();
        (outcome.map_err(|error| format!("{error:#}")), text)
    }

    #[test]
    fn a_last_line_without_a_line_feed_is_removed() {
        let cut = &line("bob")[..9];
        let (outcome, text) = opened("cut", &(line("ada") + cut));
        assert_eq!((outcome, text), (Ok(1), line("ada")));
    }

    #[test]
    fn a_damaged_line_is_an_error_and_the_file_stays() {
        let bytes_max = LINE_BYTES_MAX as usize;
        let too_long = ["x".repeat(bytes_max - 1), "x".repeat(bytes_max), "x".repeat(10_000)];
        let damaged = too_long.map(|long| long + "\n");
        for damaged in damaged.into_iter().chain(["?\n".into(), "\n".into()]) {
            let before = line("ada") + &damaged + &line("bob");
            let (outcome, after) = opened("damaged", &before);
            let error = outcome.unwrap_err();
            assert!(error.contains("downlink-revocations: line 2 is damaged"), "{error}");
            assert_eq!(after, before);
        }
    }

    #[test]
    fn a_last_line_that_is_too_long_is_an_error_and_is_not_removed() {
        let before = line("ada") + &"x".repeat(LINE_BYTES_MAX as usize);
        let (outcome, after) = opened("long", &before);
        assert!(outcome.unwrap_err().contains("line 2 is damaged"));
        assert_eq!(after, before);
    }

    #[test]
    fn a_file_may_have_as_many_lines_as_the_limit() {
        let folder = folder("limit");
        let (file, two) = (folder.join("file"), line("ada") + &line("bob"));
        fs::write(&file, two + &line("cy")[..9]).unwrap();
        assert!(read(&file, 2, &access(), NOW).is_ok());
        assert!(read(&file, 1, &access(), NOW).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_at_its_limit_is_written_anew() {
        let folder = folder("rewritten");
        let (store, now) = (folder.join("downlink.db"), NOW);
        let (before, after) = (access(), access());
        let file = RevokedFile::open(&store, &before, now).unwrap();
        let lines = || fs::read_to_string(path(&store)).unwrap().lines().count();
        let revoke = |client: &str| {
            let revoked = Revoked::Client(downlink::hub::ClientId::new(client).unwrap());
            let revocation = Revocation { revoked, at: now };
            before.revoke(revocation.clone(), now).unwrap();
            file.append(&revocation, &before).unwrap();
        };
        file.open.lock().lines = LINES_MAX - 2;
        revoke("ada");
        revoke("ada");
        assert_eq!((lines(), file.open.lock().lines), (2, LINES_MAX));
        revoke("bob");
        assert_eq!((lines(), file.open.lock().lines), (2, 2), "the new file has ada and bob");
        revoke("cy");
        assert_eq!(lines(), 3);
        RevokedFile::open(&store, &after, now).unwrap();
        assert_eq!(after.revocations(), before.revocations());
        fs::remove_dir_all(folder).unwrap();
    }
}
