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
        read(&path, access, now).with_context(failed)?;
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

fn read(path: &Path, access: &Access, now: Timestamp) -> anyhow::Result<()> {
    let mut lines = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => BufReader::new(file?),
    };
    for number in 1..=LINES_MAX {
        let mut line = Vec::new();
        if (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        // A crash can leave the last line incomplete. The server had not confirmed this revocation,
        // so the line is ignored.
        let Some(line) = line.strip_suffix(b"\n") else { return Ok(()) };
        let revocation = BASE64.decode(line).ok();
        let revocation = revocation.and_then(|bytes| Revocation::from_bytes(&bytes));
        let revocation = revocation.with_context(|| format!("line {number} is damaged"))?;
        access.revoke(revocation, now)?;
    }
    anyhow::bail!("it has more than {LINES_MAX} lines")
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

    #[test]
    fn a_file_with_the_maximum_number_of_lines_is_replaced() {
        let folder = std::env::temp_dir().join(format!("downlink-revoked-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (store, now) = (folder.join("downlink.db"), Timestamp::from_millis(1_000));
        let access = || Access::new(AccessOptions::default());
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
