//! Secrets: key files, new keys, and the ids of keys.
//!
//! A secret is erased from memory when it is dropped, and `Debug` prints only its length. All
//! random bytes come from [`fill_random`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::{fmt, str};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use thiserror::Error;
use zeroize::Zeroizing;

/// The minimum length of a key in bytes. HMAC-SHA-256 needs 32 bytes, and 256 random bits
/// cannot be guessed.
pub const KEY_BYTES_MIN: usize = 32;

/// The maximum length of a key file in bytes. A longer file is probably not a key.
pub const KEY_FILE_BYTES_MAX: usize = 4 * 1024;

/// The prefix of the keys that [`Secret::generate`] makes. Programs that search for leaked secrets
/// recognise keys by their prefix.
pub const KEY_PREFIX: &str = "dlk_";

/// The beginning of each section of a PEM file.
const PEM_BEGIN: &[u8] = b"-----BEGIN ";

/// The system has no random bytes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the operating system has no random bytes")]
pub struct RandomnessError(#[source] getrandom::Error);

/// A file is not a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The key is too short.
    #[error("the key has {bytes} bytes, at least {bytes_min} are needed")]
    TooShort {
        /// Bytes of the key, without the line end.
        bytes: usize,
        /// The limit in bytes.
        bytes_min: usize,
    },
    /// The file is too long.
    #[error("the key file has more than {bytes_max} bytes")]
    TooLong {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The key cannot be sent in a header.
    #[error("the key has a space, a control character or a byte outside ASCII at byte {at}")]
    NotPrintable {
        /// The position of this byte in the key, counted from 0.
        at: usize,
    },
    /// The file is a PEM file. It may hold a public key, and a public key is not secret.
    #[error("the file is a PEM file: a secret key is one line of random text")]
    Pem,
    /// The file cannot be read.
    #[error("the key file cannot be read")]
    Io(#[from] io::Error),
}

/// Fills the buffer with random bytes from the system.
///
/// # Errors
///
/// [`RandomnessError`] if the system has no random bytes, for example in a sandbox.
pub fn fill_random(buffer: &mut [u8]) -> Result<(), RandomnessError> {
    getrandom::fill(buffer).map_err(RandomnessError)
}

/// The content of a key file.
///
/// ```
/// use downlink_access::{KEY_BYTES_MIN, Secret};
/// let secret = Secret::generate()?;
/// assert!(secret.text().starts_with("dlk_") && secret.text().len() >= KEY_BYTES_MIN);
/// assert!(!format!("{secret:?}").contains(&*secret.text()));
/// # Ok::<(), downlink_access::RandomnessError>(())
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Makes a key of 32 random bytes, as text.
    ///
    /// # Errors
    ///
    /// [`RandomnessError`] if the system has no random bytes.
    pub fn generate() -> Result<Self, RandomnessError> {
        let mut random = Zeroizing::new([0; KEY_BYTES_MIN]);
        fill_random(&mut *random)?;
        let encoded = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_slice()));
        let mut text = Zeroizing::new(Vec::with_capacity(KEY_PREFIX.len() + encoded.len()));
        text.extend_from_slice(KEY_PREFIX.as_bytes());
        text.extend_from_slice(encoded.as_bytes());
        Ok(Self(text))
    }

    /// Makes a secret from the content of a key file. If the content is text, one line end after
    /// the text is not part of the key.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::TooShort`], [`KeyFileError::TooLong`] or [`KeyFileError::Pem`].
    pub fn from_file_bytes(bytes: &[u8]) -> Result<Self, KeyFileError> {
        if bytes.len() > KEY_FILE_BYTES_MAX {
            return Err(KeyFileError::TooLong { bytes_max: KEY_FILE_BYTES_MAX });
        }
        if bytes.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN) {
            return Err(KeyFileError::Pem);
        }
        let key = without_line_end(bytes);
        match key.len() {
            KEY_BYTES_MIN.. => Ok(Self(Zeroizing::new(key.to_vec()))),
            bytes => Err(KeyFileError::TooShort { bytes, bytes_min: KEY_BYTES_MIN }),
        }
    }

    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Io`], or as [`from_file_bytes`](Self::from_file_bytes).
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX + 1));
        File::open(path)?.take(KEY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Self::from_file_bytes(&bytes)
    }

    /// Writes the key and a line end to a new file that only its owner may read.
    ///
    /// On systems other than Unix the file has the permissions of its folder.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the file exists already, or if it cannot be written.
    pub fn create_file(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(&self.0)?;
        file.write_all(b"\n")?;
        file.sync_all()
    }

    /// The key as text, to print it once. Bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(String::from_utf8_lossy(&self.0).into_owned())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key, if it can be sent in a header.
    pub(crate) fn printable(&self) -> Result<&[u8], KeyFileError> {
        match self.0.iter().position(|byte| !byte.is_ascii_graphic()) {
            Some(at) => Err(KeyFileError::NotPrintable { at }),
            None => Ok(&self.0),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// The id of a key: eight bytes of a hash of the key, written as 16 hexadecimal digits.
///
/// The id is not secret. Tickets, logs and revocations contain it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId([u8; Self::BYTES]);

impl KeyId {
    /// The length of an id in bytes. The probability that two of a hundred keys have the same id is
    /// about 1 in 10^15.
    pub const BYTES: usize = 8;

    /// Makes an id from its bytes.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Parses the text of an id. `None` if the text is not an id.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 2 * Self::BYTES && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        Some(Self(number.to_be_bytes()))
    }

    /// The id of some bytes, such as a key. The purpose is part of the hash, so the same bytes have
    /// a different id for each purpose.
    pub(crate) fn of(purpose: &str, material: &[u8]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(purpose.as_bytes());
        hash.update(&[0]);
        hash.update(material);
        // The default is never used, because a hash is longer than an id.
        Self(hash.finish().as_ref().first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Removes one line end if the bytes are text. In a binary key, the last byte is part of the key.
fn without_line_end(bytes: &[u8]) -> &[u8] {
    let Some(rest) = bytes.strip_suffix(b"\n") else { return bytes };
    let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
    let is_text = str::from_utf8(rest).is_ok_and(|text| !text.contains(char::is_control));
    if is_text { rest } else { bytes }
}
