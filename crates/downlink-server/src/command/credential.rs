//! The key or token that `downlink publish` and `subscribe` send.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use downlink_access::KEY_FILE_BYTES_MAX;

use super::{exit, server_url::ServerUrl};
use crate::access::PUBLISH_KEY_FILE;

/// The maximum number of bytes that the program reads from a file with a key or a token.
const FILE_BYTES_MAX: u64 = 2 * KEY_FILE_BYTES_MAX as u64;

#[derive(Args, Debug)]
pub(super) struct Credential {
    /// A file with a key or a token to send. By default, downlink-publish.key in the current folder
    /// if it exists and the server is on this machine.
    #[arg(long, env = "DOWNLINK_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// The advice in the error message of a command that sent no credential and got a `401`.
pub(super) const ADVICE: &str = "give a key or a token with --key-file FILE";

impl Credential {
    /// The key or token to send to these servers. `None` if there is none to send.
    pub(super) fn read(&self, urls: &[ServerUrl]) -> anyhow::Result<Option<String>> {
        let are_on_this_machine = urls.iter().all(ServerUrl::is_on_this_machine);
        let file = match &self.key_file {
            Some(file) => file.as_path(),
            None if are_on_this_machine && Path::new(PUBLISH_KEY_FILE).exists() => {
                Path::new(PUBLISH_KEY_FILE)
            }
            None => return Ok(None),
        };
        let text =
            read(file).with_context(|| format!("cannot use the key file {}", file.display()));
        text.map(Some).map_err(exit::configuration)
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(
        bytes.len() as u64 <= FILE_BYTES_MAX,
        "the file has more than {FILE_BYTES_MAX} bytes, so it is not a key or a token"
    );
    let text = std::str::from_utf8(&bytes).context("the file is not text")?.trim();
    anyhow::ensure!(!text.is_empty(), "the file is empty");
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_above_the_limit_is_refused_and_not_cut() {
        let name = format!("downlink-credential-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let longest = "x".repeat(FILE_BYTES_MAX as usize);
        std::fs::write(&file, &longest).unwrap();
        assert_eq!(read(&file).unwrap(), longest);
        for text in [longest.clone() + "\n", longest + "x"] {
            std::fs::write(&file, text).unwrap();
            assert!(read(&file).unwrap_err().to_string().starts_with("the file has more than"));
        }
        std::fs::remove_file(file).unwrap();
    }
}
