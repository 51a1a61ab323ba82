//! The processor time and the resident memory of the server under load, from `/proc`.
//!
//! This works on Linux only. On other systems, the option `--server-pid` is an error, because these
//! systems do not have the files of `/proc`. Child processes are not counted.

use std::io;

use anyhow::Context as _;

/// The server's processes; empty if the command line names none.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerProcesses {
    pids: Vec<u32>,
}

/// The processor time that all processes have used so far, and their memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User and system time.
    pub(super) cpu_s: f64,
    /// Only the user time. The sum of user and system time is exact. But the kernel only estimates
    /// how much of the sum is user time. This estimate is accurate after tens of seconds.
    pub(super) cpu_user_s: f64,
    pub(super) resident_bytes: u64,
}

impl Usage {
    /// The processor time since `before`, and the current memory.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            cpu_user_s: self.cpu_user_s - before.cpu_user_s,
            resident_bytes: self.resident_bytes,
        }
    }
}

impl ServerProcesses {
    /// The server with these processes.
    ///
    /// # Errors
    ///
    /// If a process does not exist or cannot be read.
    pub(super) fn new(pids: &[u32]) -> anyhow::Result<Self> {
        let server = Self { pids: pids.to_vec() };
        server.usage()?;
        Ok(server)
    }

    /// True if the command line names a process.
    pub(super) fn is_known(&self) -> bool {
        !self.pids.is_empty()
    }

    /// The ids of the processes.
    pub(super) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// The usage of all processes. `None` if no process is known.
    pub(super) fn usage(&self) -> anyhow::Result<Option<Usage>> {
        let mut sum = Usage::default();
        for pid in &self.pids {
            let one = read(*pid).with_context(|| {
                format!("cannot read the processor time and memory of process {pid}")
            })?;
            sum.cpu_s += one.cpu_s;
            sum.cpu_user_s += one.cpu_user_s;
            sum.resident_bytes += one.resident_bytes;
        }
        Ok(self.is_known().then_some(sum))
    }

    /// The resident memory of all processes. 0 if no process is known.
    pub(super) fn resident_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.usage()?.unwrap_or_default().resident_bytes)
    }

    /// The number of open descriptors of all processes, which include the open sockets.
    pub(super) fn descriptors(&self) -> anyhow::Result<usize> {
        let count = |pid: &u32| {
            let folder = format!("/proc/{pid}/fd");
            let entries =
                std::fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
            Ok(entries.count())
        };
        self.pids.iter().map(count).sum()
    }
}

#[cfg(target_os = "linux")]
fn read(pid: u32) -> io::Result<Usage> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (user, system, pages) = parse(&text).ok_or(io::ErrorKind::InvalidData)?;
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(Usage {
        cpu_s: (user + system) as f64 / per_second,
        cpu_user_s: user as f64 / per_second,
        resident_bytes: pages * rustix::param::page_size() as u64,
    })
}

#[cfg(not(target_os = "linux"))]
fn read(_: u32) -> io::Result<Usage> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reads the ticks of user time and of system time, and the resident pages. These are the fields
/// 14, 15 and 24. Field 2 is the program's name in parentheses. The name may also contain
/// parentheses.
#[cfg(any(target_os = "linux", test))]
fn parse(stat: &str) -> Option<(u64, u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((field(14)?, field(15)?, field(24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_contain_parentheses() {
        let stat = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 3 0 100 1000 64 1";
        assert_eq!(parse(stat), Some((250, 50, 64)));
        assert_eq!(parse("7 (a) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_program_uses_memory() {
        let server = ServerProcesses::new(&[std::process::id()]).unwrap();
        assert!(server.usage().unwrap().unwrap().resident_bytes > 0);
        assert!(server.descriptors().unwrap() > 0);
        assert!(ServerProcesses::new(&[]).unwrap().usage().unwrap().is_none());
    }

    #[test]
    fn an_unused_pid_is_an_error() {
        let error = ServerProcesses::new(&[u32::MAX]).unwrap_err();
        assert!(error.to_string().contains(&u32::MAX.to_string()));
    }
}
