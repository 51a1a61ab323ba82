//! A small file system for one test. Only a process with enough rights, such as root, can mount it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A file system of limited size. Dropping this value unmounts the file system.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts a file system. If this process may not mount a file system, prints that the test is
    /// skipped and returns `None`.
    pub(crate) fn mount(at: PathBuf, bytes: u64, test: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("a folder for the test");
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("{test}: skipped: this process may not mount a file system");
        }
        mounted.then_some(Self(at))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Changes the options of the mounted file system.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mounted = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(mounted.expect("the program mount runs").success(), "{options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        let _ = Command::new("umount").arg("-l").arg(path).status();
    }
}
