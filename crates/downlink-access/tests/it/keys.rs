//! Tests of secret keys: reading them from files, making new ones, and comparing them with the key
//! in a request.

use std::fs;

use downlink_access::{
    AddKeyError, KEY_BYTES_MIN, KEY_FILE_BYTES_MAX, KEYS_MAX, KeyFileError, KeyId, KeyRole, Keys,
    Secret, fill_random,
};

fn secret(bytes: &[u8]) -> Result<Secret, KeyFileError> {
    Secret::from_file_bytes(bytes)
}

#[test]
fn keys_that_are_too_short_or_too_long_are_refused() {
    let short = secret(&[b'a'; KEY_BYTES_MIN - 1]).unwrap_err();
    assert_eq!(short.to_string(), "the key has 31 bytes, at least 32 are needed");
    assert!(secret(&[b'a'; KEY_BYTES_MIN]).is_ok());
    assert!(secret(&[b'a'; KEY_FILE_BYTES_MAX]).is_ok());
    let long = secret(&[b'a'; KEY_FILE_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(long, KeyFileError::TooLong { .. }));
}

#[test]
fn the_line_end_of_a_key_file_with_text_is_not_part_of_the_key() {
    let text = |end: &str| format!("{}{end}", "a".repeat(32));
    for end in ["\n", "\r\n"] {
        assert_eq!(*secret(text(end).as_bytes()).unwrap().text(), text(""));
    }
    // The line end is not part of the key, so this key has only 31 bytes and is too short.
    let line = format!("{}\n", "a".repeat(31));
    assert!(secret(line.as_bytes()).is_err());
    // This key is not text, so its last byte belongs to the key even though the byte is a line end.
    let mut binary = [0xff; 32];
    binary[31] = b'\n';
    assert!(secret(&binary).is_ok());
}

#[test]
fn new_keys_are_random_and_begin_with_a_prefix() {
    let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
    assert_ne!(*one.text(), *other.text());
    assert_eq!(one.text().len(), "dlk_".len() + 43);
    assert!(one.text().starts_with("dlk_"));
}

#[test]
fn two_calls_give_different_random_bytes() {
    let (mut one, mut other) = ([0; 32], [0; 32]);
    fill_random(&mut one).unwrap();
    fill_random(&mut other).unwrap();
    assert_ne!(one, other);
}

#[test]
fn a_new_key_file_is_private_and_can_be_read_again() {
    let folder = std::env::temp_dir().join(format!("downlink-access-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("publish.key");
    let made = Secret::generate().unwrap();
    made.create_file(&path).unwrap();
    assert_eq!(*Secret::read(&path).unwrap().text(), *made.text());
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", *made.text()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = made.create_file(&path).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    fs::write(folder.join("long.key"), [b'a'; KEY_FILE_BYTES_MAX + 2]).unwrap();
    assert!(matches!(Secret::read(&folder.join("long.key")), Err(KeyFileError::TooLong { .. })));
    assert!(matches!(Secret::read(&folder.join("no.key")), Err(KeyFileError::Io(_))));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_key_is_found_together_with_its_role() {
    let (publish, admin) = (secret(&[b'p'; 32]).unwrap(), secret(&[b'a'; 32]).unwrap());
    let mut keys = Keys::new();
    let publish_id = keys.add(KeyRole::Publish, &publish).unwrap();
    let admin_id = keys.add(KeyRole::Admin, &admin).unwrap();
    assert_eq!(keys.find(&[b'p'; 32]), Some((publish_id, KeyRole::Publish)));
    assert_eq!(keys.find(&[b'a'; 32]), Some((admin_id, KeyRole::Admin)));
    assert_eq!(keys.find(&[b'a'; 31]), None);
    assert_eq!(keys.find(b""), None);
    assert!(keys.contains(publish_id));
    assert!(!keys.contains(KeyId::from_bytes([0; 8])));
}

#[test]
fn keys_that_cannot_be_used_are_refused() {
    let mut keys = Keys::new();
    let spaces = secret(&[b' '; 32]).unwrap();
    assert!(matches!(keys.add(KeyRole::Publish, &spaces), Err(AddKeyError::Unusable(_))));
    let key = secret(&[b'k'; 32]).unwrap();
    keys.add(KeyRole::Publish, &key).unwrap();
    assert!(matches!(keys.add(KeyRole::Admin, &key), Err(AddKeyError::Repeated { .. })));
}

#[test]
fn keys_above_the_limit_are_refused() {
    let mut keys = Keys::new();
    for n in 0..KEYS_MAX {
        keys.add(KeyRole::Publish, &secret(format!("{n:032}").as_bytes()).unwrap()).unwrap();
    }
    let error = keys.add(KeyRole::Publish, &secret(&[b'x'; 32]).unwrap());
    assert!(matches!(error, Err(AddKeyError::TooMany { keys_max: KEYS_MAX })));
}

#[test]
fn key_ids_are_sixteen_hexadecimal_digits() {
    let id = KeyId::from_bytes([0, 1, 2, 3, 4, 5, 6, 0xff]);
    assert_eq!(id.to_string(), "00010203040506ff");
    assert_eq!(KeyId::parse("00010203040506ff"), Some(id));
    assert_eq!(KeyId::parse("0010203040506ff"), None);
    assert_eq!(KeyId::parse("+0010203040506ff"), None);
}

#[test]
fn debug_output_shows_no_key() {
    let key = secret(b"hunter2-hunter2-hunter2-hunter2-").unwrap();
    let mut keys = Keys::new();
    keys.add(KeyRole::Admin, &key).unwrap();
    let text = format!("{key:?} {keys:?}");
    assert!(!text.contains("hunter"), "{text}");
}

/// Everyone may know a public key. As a shared secret, it would let everyone sign tokens.
#[test]
fn a_pem_file_is_refused_as_a_secret_key() {
    for pem in [
        include_str!("../fixtures/es256.public.pem").to_owned(),
        include_str!("../fixtures/es256.private.pem").to_owned(),
        format!("# a comment\n{}", include_str!("../fixtures/rs256.public.pem")),
    ] {
        assert!(secret(pem.as_bytes()).is_err(), "{pem}");
    }
}
