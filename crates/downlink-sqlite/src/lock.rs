//! The writer lock. Each file has at most one writer, in this process and among all processes.
//!
//! On Linux the lock (`flock`) is on the database itself. So all names of the file share the lock,
//! and there is no lock file that someone could delete. SQLite uses another kind of lock, and on
//! Linux the two kinds do not affect each other. So other tools can read a store that is in use. On
//! some other systems, the two kinds of locks exclude each other. So on all systems other than
//! Linux, this module locks a separate file beside the database.
//!
//! The operating system holds the lock, so the lock ends with the process, even after a crash.

#[cfg(target_os = "linux")]
use std::fs;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{File, Metadata, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use downlink_log::store::StoreError;
use parking_lot::Mutex;

use crate::fault::{Result, file_error};

/// The pause between two attempts to take the lock. The pause is short, so that a new process takes
/// over quickly after the old process has ended. With 50 attempts a second, waiting needs almost no
/// processor time.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The files that stores of this process use. A thread that needs the lock of this table and the
/// lock of a file's `writer` takes the lock of the table first.
static FILES: Mutex<BTreeMap<FileIdentity, Arc<LockedFile>>> = Mutex::new(BTreeMap::new());

/// Identifies a file by its device and inode, so that two names of one file have the same identity.
#[cfg(unix)]
type FileIdentity = (u64, u64);

#[cfg(unix)]
fn identity(_: &Path, metadata: &Metadata) -> FileIdentity {
    use std::os::unix::fs::MetadataExt as _;

    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
type FileIdentity = PathBuf;

#[cfg(not(unix))]
fn identity(path: &Path, _: &Metadata) -> FileIdentity {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A file and its descriptor. Apart from the descriptors of SQLite, the process has no other
/// descriptor of this file.
#[derive(Debug)]
struct LockedFile {
    file: File,
    identity: FileIdentity,
    /// `Some` if a store of this process has the lock. The flag says whether that store is closing.
    writer: Mutex<Option<Arc<AtomicBool>>>,
}

/// Keeps a file's descriptor open as long as SQLite may have the file open. Dropping the last
/// `FileUse` of a file closes the descriptor.
///
/// Invariant: the descriptor is opened before SQLite's connections and closed after them. When a
/// process closes any descriptor of a file, the system drops all of SQLite's locks that the process
/// has on the file. Another program could then remove a write-ahead log that is in use.
#[derive(Clone, Debug)]
pub(crate) struct FileUse(Option<Arc<LockedFile>>);

impl FileUse {
    /// Opens the file that carries the lock of this database. Creates the file if it does not
    /// exist.
    pub(crate) fn open(database: &Path) -> Result<Self> {
        let path = locked_path(database);
        let mut files = FILES.lock();
        let known = path.metadata().ok().and_then(|found| files.get(&identity(&path, &found)));
        if let Some(known) = known {
            return Ok(Self(Some(Arc::clone(known))));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // SQLite creates its files with the same mode.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o644);
        let opened = options.open(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| file_error(&error))?;
        let identity = identity(&path, &metadata);
        if let Some(known) = files.get(&identity) {
            // The look-up above found another file at this path. Now the path leads to a file that
            // the process already uses. Closing the second descriptor would drop the locks that
            // SQLite may have on the file, so the second descriptor stays open.
            std::mem::forget(file);
            return Ok(Self(Some(Arc::clone(known))));
        }
        let file = LockedFile { file, identity: identity.to_owned(), writer: Mutex::new(None) };
        let file = Arc::new(file);
        files.insert(identity, Arc::clone(&file));
        Ok(Self(Some(file)))
    }

    fn file(&self) -> &LockedFile {
        self.0.as_deref().expect("a `FileUse` has its file until it is dropped")
    }

    /// Whether the path of the database still leads to this file.
    fn is_of(&self, database: &Path) -> bool {
        let path = locked_path(database);
        path.metadata().is_ok_and(|found| identity(&path, &found) == self.file().identity)
    }

    /// Takes the lock. If another store or process already has the lock, returns the holder as the
    /// inner error.
    fn try_lock(&self, database: &Path) -> Result<Result<Arc<AtomicBool>, Holder>> {
        let LockedFile { file, writer, .. } = self.file();
        let mut writer = writer.lock();
        if let Some(is_closing) = &*writer {
            let is_closing = is_closing.load(Ordering::Relaxed);
            return Ok(Err(if is_closing { Holder::Closing } else { Holder::ThisProcess }));
        }
        if !has_no_old_lock(database) {
            return Ok(Err(Holder::OtherProcess));
        }
        match file.try_lock() {
            Ok(()) => Ok(Ok(Arc::clone(writer.insert(Arc::default())))),
            Err(TryLockError::WouldBlock) => Ok(Err(Holder::OtherProcess)),
            Err(TryLockError::Error(error)) => Err(file_error(&error).into()),
        }
    }
}

impl Drop for FileUse {
    fn drop(&mut self) {
        // The table stays locked until the descriptor is closed. So no other thread can find the
        // file in the table while its descriptor is being closed.
        let mut files = FILES.lock();
        let Some(file) = self.0.take() else { return };
        // At a count of 2, only this value and the table still refer to the file.
        if Arc::strong_count(&file) == 2 {
            files.remove(&file.identity);
        }
        drop(file);
    }
}

/// The process or store that already holds the lock when a new store needs it.
enum Holder {
    OtherProcess,
    ThisProcess,
    /// A store of this process that is closing. The store releases the lock when it has written
    /// everything.
    Closing,
}

/// The right to write to a file. Dropping this value gives up the right.
#[derive(Debug)]
pub(crate) struct WriterLock {
    pub(crate) file: FileUse,
    /// Set when the store begins to close. This happens when the program drops its last handle of
    /// the log that uses the store. A new store in this process then waits until the lock is
    /// released.
    pub(crate) is_closing: Arc<AtomicBool>,
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        let LockedFile { file, writer, .. } = self.file.file();
        let mut writer = writer.lock();
        // The lock must be released explicitly, so that another process can take it at once. The
        // lock would also end when all descriptors of the file are closed. But some descriptors may
        // stay open for long: readers of this process may still use the file, and a child process
        // that is just being started may have inherited a descriptor.
        let _ = file.unlock();
        *writer = None;
    }
}

impl WriterLock {
    /// Takes the lock of a database. If another process or store has the lock, waits at most
    /// `wait_for`. If a store of this process is closing, waits for it without a limit.
    pub(crate) fn take(database: &Path, wait_for: Duration) -> Result<Self> {
        let since = Instant::now();
        loop {
            // Each attempt opens the file again, because someone may have put another file at this
            // path, such as a restored backup.
            let file = FileUse::open(database)?;
            match file.try_lock(database)? {
                Ok(is_closing) => {
                    let lock = Self { file, is_closing };
                    if lock.file.is_of(database) {
                        return Ok(lock);
                    }
                }
                Err(Holder::Closing) => thread::park_timeout(RETRY_EVERY),
                Err(_) if since.elapsed() < wait_for => thread::park_timeout(RETRY_EVERY),
                Err(Holder::ThisProcess) => {
                    return Err(StoreError::OpenTwice { file: database.into() }.into());
                }
                Err(Holder::OtherProcess) => {
                    return Err(StoreError::InUse { file: database.into() }.into());
                }
            }
        }
    }
}

/// The file that carries the lock.
#[cfg(target_os = "linux")]
fn locked_path(database: &Path) -> PathBuf {
    database.to_owned()
}

#[cfg(not(target_os = "linux"))]
fn locked_path(database: &Path) -> PathBuf {
    beside(database)
}

/// Returns `true` if no server of an earlier version has the store open. Such a server locks a file
/// beside the database. If the lock file exists but no process has locked it, this function removes
/// the lock file.
#[cfg(target_os = "linux")]
fn has_no_old_lock(database: &Path) -> bool {
    let path = beside(database);
    let Ok(file) = File::open(&path) else { return true };
    // The lock file of such a server is empty. Any other file of that name is not a lock.
    if file.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return false;
        }
        let _ = fs::remove_file(&path);
    }
    true
}

#[cfg(not(target_os = "linux"))]
fn has_no_old_lock(_: &Path) -> bool {
    true
}

/// The lock file beside a database. A symbolic link to the database has the same lock file as the
/// database itself.
fn beside(database: &Path) -> PathBuf {
    let path = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    let mut name = OsString::from(path);
    name.push("-lock");
    name.into()
}
