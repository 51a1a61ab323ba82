//! The key files. The server can make two kinds of key itself. An app sends the publish key with
//! its requests. The ticket key seals tickets, which are credentials for pages. If the settings
//! name no file for one of these two kinds, the first start of `downlink serve` makes a file for
//! it.
//!
//! If the server has made a key file, only the owner of the file can read it. `downlink publish`
//! and `downlink subscribe` use the publish key if its file is in the current folder and the server
//! is on this machine. These commands then need no further set-up.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use downlink_access::{AddKeyError, KeyRole, Keys, Secret};

use super::AccessSettings;

/// The name of the file with the publish key that the first start makes.
pub(crate) const PUBLISH_KEY_FILE: &str = "downlink-publish.key";
/// The name of the file with the ticket key that the first start makes.
const TICKET_KEY_FILE: &str = "downlink-ticket.key";

/// What [`read`] does if the server's own key file does not exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Missing {
    /// Make the file.
    Make,
    /// Make no file, and check only that its folder exists.
    Check,
    /// Return an error. A running server must not replace a key whose file was moved.
    Refuse,
}

/// The key files whose paths the server prints when it starts.
#[derive(Clone, Debug)]
pub(crate) struct KeyFiles {
    /// A file with a publish key, which the settings give or the server made.
    pub(crate) publish: PathBuf,
    /// The files that the server made itself: the publish key and the ticket key. `None` for a kind
    /// of key whose files the settings give.
    made: [Option<PathBuf>; 2],
}

impl KeyFiles {
    /// The files that the server made itself. Each comes with the words that the server prints
    /// before its path.
    pub(crate) fn made(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let words = ["the key for your app is in", "the key that seals tickets is in"];
        let files = self.made.iter().map(Option::as_deref);
        words.into_iter().zip(files).filter_map(|(words, file)| Some((words, file?)))
    }
}

/// Returns the files for one kind of key. If the settings give no file, the server uses its own
/// file. If its own file does not exist, this function makes it. The second value is the path of
/// the server's own file, or `None` if the settings give files.
fn files(
    given: &[PathBuf],
    own: PathBuf,
    flag: &str,
    missing: Missing,
) -> anyhow::Result<(Vec<PathBuf>, Option<PathBuf>)> {
    if !given.is_empty() {
        return Ok((given.to_vec(), None));
    }
    if !own.exists() && missing == Missing::Refuse {
        bail!(
            "the key file {} is missing: put it back, or give a key with {flag} FILE (only a start \
             makes a new key)",
            own.display()
        );
    }
    if !own.exists() && missing == Missing::Check {
        let folder = folder(Some(&own));
        let found = folder.metadata().map(drop);
        found.with_context(|| format!("cannot use the folder {}", folder.display()))?;
        return Ok((Vec::new(), Some(own)));
    }
    if !own.exists() {
        make(&own, &Secret::generate()?).with_context(|| {
            format!(
                "cannot make the key file {}: let the server write to that folder, or give a key \
                 with {flag} FILE",
                own.display()
            )
        })?;
    }
    Ok((vec![own.clone()], Some(own)))
}

/// Makes a key file, unless another server has just made it. A program that reads the file must
/// never find an incomplete key. So the server writes the key to a temporary file, and then links
/// the complete file to its final name.
fn make(own: &Path, secret: &Secret) -> io::Result<()> {
    let fresh = PathBuf::from(format!("{}.{}.new", own.display(), std::process::id()));
    // An earlier server with the same process id may have ended in this function and left this
    // file.
    let _ = fs::remove_file(&fresh);
    secret.create_file(&fresh)?;
    let made = fs::hard_link(&fresh, own);
    fs::remove_file(&fresh)?;
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Some file systems have no hard links. There, the key is written to the final file
        // directly.
        Err(_) => secret.create_file(own),
        Ok(()) => Ok(()),
    }
}

/// Reads all keys from their files. If the settings give no files, uses the server's own files.
pub(super) fn read(
    folder: &Path,
    settings: &AccessSettings,
    missing: Missing,
) -> anyhow::Result<(Keys, Vec<Secret>, KeyFiles)> {
    let AccessSettings {
        publish_key_file, admin_key_file, relay_key_file, ticket_key_file, ..
    } = settings;
    let own = folder.join(PUBLISH_KEY_FILE);
    let (publish, made_publish) = files(publish_key_file, own, "--publish-key-file", missing)?;
    let own = folder.join(TICKET_KEY_FILE);
    let (ticket, made_ticket) = files(ticket_key_file, own, "--ticket-key-file", missing)?;
    let mut keys = Keys::new();
    let roles = [
        (KeyRole::Publish, &*publish),
        (KeyRole::Admin, admin_key_file),
        (KeyRole::Relay, relay_key_file),
    ];
    for (role, files) in roles {
        for file in files {
            add(&mut keys, role, file)
                .with_context(|| format!("cannot use the key file {}", file.display()))?;
        }
    }
    let mut ticket_keys: Vec<Secret> =
        ticket.iter().map(|file| secret(file)).collect::<anyhow::Result<_>>()?;
    if ticket_keys.is_empty() {
        // The check of the settings makes no file. This key stands for the key in the file.
        ticket_keys.push(Secret::generate()?);
    }
    let publish = publish.into_iter().next().or_else(|| made_publish.clone());
    let publish = publish.context("there is always a publish key")?;
    Ok((keys, ticket_keys, KeyFiles { publish, made: [made_publish, made_ticket] }))
}

/// Reads a key file. Logs a warning if every user of this machine can read or write the file.
pub(super) fn secret(file: &Path) -> anyhow::Result<Secret> {
    warn_if_open(file);
    Secret::read(file).with_context(|| format!("cannot use the key file {}", file.display()))
}

/// Logs a warning if every user of this machine can read or replace the key. There is no warning if
/// the group of the file can read the key, because the app may run as another user of this group.
fn warn_if_open(file: &Path) {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(file)
        && std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o006 != 0
    {
        let file = file.display();
        tracing::warn!("every user of this machine can read or write the key {file}: chmod o-rw");
    }
}

fn add(keys: &mut Keys, role: KeyRole, file: &Path) -> anyhow::Result<()> {
    warn_if_open(file);
    let secret = Secret::read(file)?;
    keys.add(role, &secret).map(|_| ()).map_err(|error| match error {
        AddKeyError::Repeated { .. } => {
            anyhow::anyhow!("the same key is in another key file; each file needs its own key")
        }
        error => error.into(),
    })
}

/// The folder of the server's own key files: the folder of the store, or the current folder if
/// there is no store.
pub(super) fn folder(store: Option<&Path>) -> PathBuf {
    let parent = store.and_then(Path::parent).filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_files_are_beside_the_store() {
        assert_eq!(
            folder(Some(Path::new("/var/lib/downlink/d.db"))),
            Path::new("/var/lib/downlink")
        );
        for store in [None, Some(Path::new("downlink.db"))] {
            assert_eq!(folder(store), Path::new("."));
        }
    }
}
