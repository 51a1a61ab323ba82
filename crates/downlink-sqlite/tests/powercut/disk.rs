//! A simulated disk. The disk knows which writes were flushed, because only these survive a power
//! cut for certain. Its plan (see `plan.rs`) determines at which call the power is cut, and which
//! call fails.
//!
//! The functions in this file replace the functions of libc that write to files, in the whole
//! program including SQLite. Calls for files outside the run's folder go to the kernel unchanged.
//! Writes to files inside the folder also go to the kernel, so that the program can read them. A
//! flush does not go to the kernel. It only adds the written data to a copy in memory, which has
//! the content that survives a power cut for certain.

#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    ffi::{CStr, OsStr, c_char, c_int, c_long, c_void},
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock},
};

use crate::plan::{Plan, Sort};

/// A disk writes this many bytes as one unit. A power cut never leaves a part of a unit: the whole
/// unit survives, or the whole unit is lost.
const SECTOR: usize = 512;

static DISK: OnceLock<(Plan, Mutex<Disk>)> = OnceLock::new();

struct Disk {
    calls: u64,
    /// Whether the planned failure of a write or a flush has happened.
    failed: bool,
    random: fastrand::Rng,
    files: BTreeMap<String, File>,
}

/// A file: the content that survives a power cut, and the writes since the last flush. Invariant
/// until a flush fails: applying all of `pending` to `flushed` gives the content that this process
/// reads.
#[derive(Default)]
struct File {
    flushed: Vec<u8>,
    pending: Vec<Op>,
}

enum Op {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Call {
    Write,
    Flush,
}

/// Starts the simulated disk. The folder must be empty.
pub(crate) fn attach(plan: &Plan) {
    let disk = Disk {
        calls: 0,
        failed: false,
        random: fastrand::Rng::with_seed(plan.seed),
        files: BTreeMap::new(),
    };
    assert!(DISK.set((plan.clone(), Mutex::new(disk))).is_ok());
}

/// Cuts the power: writes the content that survives into a folder, and ends the process.
pub(crate) fn cut() -> ! {
    let (plan, disk) = DISK.get().unwrap();
    cut_locked(plan, &mut disk.lock().unwrap())
}

fn cut_locked(plan: &Plan, disk: &mut Disk) -> ! {
    fs::create_dir_all(&plan.after).unwrap();
    let chance = [0.0, 0.5, 0.9, 1.0][disk.random.usize(0..4)];
    for (name, file) in &mut disk.files {
        file.survive(&mut disk.random, chance);
        fs::write(plan.after.join(name), &file.flushed).unwrap();
    }
    // SAFETY: `_exit` ends the process at once, so the process uses nothing afterwards.
    unsafe { libc::_exit(0) }
}

impl Op {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(content, *at, bytes),
            Self::Truncate { length } => content.resize(*length, 0),
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    content.resize(content.len().max(end), 0);
    content[at..end].copy_from_slice(bytes);
}

impl File {
    /// Decides at random which unflushed writes survive. Each sector survives with the probability
    /// `chance`. The last write is first cut off at a random byte, and the bytes after this
    /// position are lost.
    fn survive(&mut self, random: &mut fastrand::Rng, chance: f64) {
        let last = self.pending.len().saturating_sub(1);
        for (index, op) in self.pending.drain(..).enumerate() {
            match op {
                Op::Truncate { .. } if random.f64() < chance => op.apply(&mut self.flushed),
                Op::Truncate { .. } => {}
                Op::Write { at, mut bytes } => {
                    if index == last {
                        bytes.truncate(random.usize(0..=bytes.len()));
                    }
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        if random.f64() < chance {
                            put(&mut self.flushed, at + number * SECTOR, sector);
                        }
                    }
                }
            }
        }
    }

    fn flush(&mut self) {
        let Self { flushed, pending } = self;
        pending.drain(..).for_each(|op| op.apply(flushed));
    }
}

/// Returns the simulated disk and the name of the file, if the descriptor belongs to a file of this
/// disk.
fn find(descriptor: c_int) -> Option<(&'static Plan, MutexGuard<'static, Disk>, String)> {
    let (plan, disk) = DISK.get()?;
    let path = fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()?;
    let name = name_in(plan, &path)?;
    Some((plan, disk.lock().unwrap(), name))
}

fn name_in(plan: &Plan, path: &Path) -> Option<String> {
    let name = path.strip_prefix(&plan.folder).ok()?.to_str()?;
    // The file `*-shm` is memory that processes share. It does not survive a power cut, so the disk
    // does not record this file.
    (!name.ends_with("-shm")).then(|| name.to_owned())
}

impl Disk {
    /// Counts a call. Returns whether the plan says that this call fails.
    fn fails(&mut self, plan: &Plan, call: Call) -> bool {
        self.calls += 1;
        let kind = match plan.sort {
            Sort::FailedWrite => Call::Write,
            Sort::FailedFlush => Call::Flush,
            _ => return false,
        };
        let fails = !self.failed && self.calls >= plan.fail_at() && call == kind;
        self.failed |= fails;
        fails
    }

    fn note(&mut self, plan: &Plan, name: String, op: Op) {
        self.files.entry(name).or_default().pending.push(op);
        if self.calls >= plan.cut_at() {
            cut_locked(plan, self);
        }
    }

    fn flush(&mut self, plan: &Plan, name: String) -> c_int {
        let fails = self.fails(plan, Call::Flush);
        if self.calls >= plan.cut_at() {
            cut_locked(plan, self);
        }
        let Self { files, random, .. } = self;
        let file = files.entry(name).or_default();
        match plan.sort {
            Sort::Pretending => {}
            // After a failed flush, a real kernel may forget which data was not written. So each
            // unflushed write either survives now or is lost, and later flushes do not include this
            // write.
            _ if fails => {
                file.survive(random, 0.5);
                return error(libc::EIO);
            }
            _ => file.flush(),
        }
        0
    }
}

fn error(number: c_int) -> c_int {
    // SAFETY: the location of this thread's `errno` is always valid.
    unsafe { *libc::__errno_location() = number };
    -1
}

/// Writes through the kernel, and records the data that was written to position `at` of the file.
///
/// # Safety
///
/// - `bytes` points to `length` readable bytes.
unsafe fn write_at(
    descriptor: c_int,
    bytes: *const c_void,
    length: usize,
    at: i64,
    kernel: impl FnOnce() -> c_long,
) -> isize {
    let Some((plan, mut disk, name)) = find(descriptor) else { return kernel() as isize };
    if disk.fails(plan, Call::Write) {
        return error(libc::EIO) as isize;
    }
    let written = kernel() as isize;
    if let (Ok(count), Ok(at)) = (usize::try_from(written), usize::try_from(at)) {
        assert!(count <= length);
        // SAFETY: `count <= length`, and the caller vouches for `length` bytes.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) }.to_vec();
        disk.note(plan, name, Op::Write { at, bytes });
    }
    written
}

/// # Safety
///
/// - `bytes` points to `length` readable bytes, as the function of libc requires.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, bytes: *const c_void, length: usize) -> isize {
    // SAFETY: `lseek` takes only numbers. For an invalid descriptor it returns -1, and then nothing
    // is recorded.
    let at = unsafe { libc::lseek(descriptor, 0, libc::SEEK_CUR) };
    // SAFETY: these are the caller's arguments, and the caller vouches for them.
    let kernel = || unsafe { libc::syscall(libc::SYS_write, descriptor, bytes, length) };
    // SAFETY: the caller vouches for the bytes.
    unsafe { write_at(descriptor, bytes, length, at, kernel) }
}

/// # Safety
///
/// - `bytes` points to `length` readable bytes, as the function of libc requires.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(
    descriptor: c_int,
    bytes: *const c_void,
    length: usize,
    at: i64,
) -> isize {
    // SAFETY: these are the caller's arguments, and the caller vouches for them.
    let kernel = || unsafe { libc::syscall(libc::SYS_pwrite64, descriptor, bytes, length, at) };
    // SAFETY: the caller vouches for the bytes.
    unsafe { write_at(descriptor, bytes, length, at, kernel) }
}

/// # Safety
///
/// - `bytes` points to `length` readable bytes, as the function of libc requires.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(
    descriptor: c_int,
    bytes: *const c_void,
    length: usize,
    at: i64,
) -> isize {
    // SAFETY: the caller vouches for the bytes. On 64-bit systems, `pwrite` and `pwrite64` are the
    // same function.
    unsafe { pwrite64(descriptor, bytes, length, at) }
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(descriptor: c_int, length: i64) -> c_int {
    // SAFETY: `ftruncate` takes only numbers.
    let kernel = || unsafe { libc::syscall(libc::SYS_ftruncate, descriptor, length) } as c_int;
    let Some((plan, mut disk, name)) = find(descriptor) else { return kernel() };
    if disk.fails(plan, Call::Write) {
        return error(libc::EIO);
    }
    let result = kernel();
    if result == 0 {
        disk.note(plan, name, Op::Truncate { length: length as usize });
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate(descriptor: c_int, length: i64) -> c_int {
    ftruncate64(descriptor, length)
}

#[unsafe(no_mangle)]
extern "C" fn fsync(descriptor: c_int) -> c_int {
    match find(descriptor) {
        Some((plan, mut disk, name)) if !name.is_empty() => disk.flush(plan, name),
        // SAFETY: `fsync` takes only a number.
        _ => unsafe { libc::syscall(libc::SYS_fsync, descriptor) as c_int },
    }
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    fsync(descriptor)
}

/// # Safety
///
/// - `path` is a text that ends with a zero byte, as the function of libc requires.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    if let Some((plan, disk)) = DISK.get() {
        // SAFETY: the caller vouches for the text.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
        if let Some(name) = name_in(plan, path) {
            disk.lock().unwrap().files.remove(&name);
        }
    }
    // SAFETY: this is the caller's argument, and the caller vouches for it.
    unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int }
}
