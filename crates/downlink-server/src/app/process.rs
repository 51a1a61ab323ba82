//! The numbers of this process that the system knows: processor time, memory and open files. They
//! come from `/proc/self`, which only Linux has.

/// The numbers of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ProcessStats {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
    /// `None` if the number of open files has no limit.
    pub(super) max_fds: Option<u64>,
    /// Since 1970.
    pub(super) start_seconds: f64,
}

/// Reads the numbers. `None` if the system does not give them. The call reads the list of open
/// files, which takes about a millisecond for a thousand files. So call it outside of async tasks.
#[cfg(target_os = "linux")]
pub(super) fn read() -> Option<ProcessStats> {
    use std::fs;

    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The reader opens one more file, the list itself.
    let open_fds = (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1);
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 =
        system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let times = Times::parse(&stat)?;
    Some(ProcessStats {
        cpu_seconds: times.cpu_ticks as f64 / ticks,
        resident_bytes: times.resident_pages * rustix::param::page_size() as u64,
        open_fds,
        max_fds: max_fds(&limits),
        start_seconds: boot + times.start_ticks as f64 / ticks,
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn read() -> Option<ProcessStats> {
    None
}

/// Fields of `/proc/self/stat`.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Times {
    cpu_ticks: u64,
    start_ticks: u64,
    resident_pages: u64,
}

#[cfg(target_os = "linux")]
impl Times {
    fn parse(stat: &str) -> Option<Self> {
        // The second field is the name of the program in parentheses, which may contain spaces.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first field here is field 3 of the manual page proc_pid_stat(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            resident_pages: field(24)?,
        })
    }
}

/// The soft limit of open files.
#[cfg(target_os = "linux")]
fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_program_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 11 0 0 0 30 12 0 0 20 0 5 0 900 2048 77 99";
        let times = Times { cpu_ticks: 42, start_ticks: 900, resident_pages: 77 };
        assert_eq!(Times::parse(stat), Some(times));
        assert_eq!(Times::parse("7 (a) S 1"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert_eq!(max_fds(limits), Some(1_024));
        assert_eq!(max_fds("Max open files  unlimited  unlimited  files\n"), None);
    }

    #[test]
    fn the_numbers_of_the_running_program_are_plausible() {
        let numbers = read().expect("Linux gives the numbers");
        assert!(numbers.open_fds >= 3 && numbers.resident_bytes > 1 << 20, "{numbers:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.expect("the clock is after 1970").as_secs_f64() - numbers.start_seconds;
        assert!((-5.0..86_400.0).contains(&age), "{numbers:?}");
    }
}
