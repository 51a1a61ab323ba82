//! Parses the mode and the group of a Unix socket's file. Mode and group decide which users may
//! connect.

use std::str::FromStr;

/// The file with the names of the system's groups. Groups of a directory service such as LDAP are
/// not in this file, so a user must give the number of such a group.
const GROUPS: &str = "/etc/group";

/// Parses the value of `--socket-mode`: permissions in octal digits, such as `660`.
pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.filter(|_| text.len() >= 3 && !text.starts_with('+')).ok_or_else(|| {
        format!(
            "{text:?} is not a mode; write three octal digits, such as 660 for the owner and the \
             group, or 666 for every user of this machine"
        )
    })
}

/// The value of `--socket-group`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    /// The name or number that the user gave.
    pub(crate) name: String,
    pub(crate) id: u32,
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let groups = std::fs::read_to_string(GROUPS).unwrap_or_default();
        let id = id_of(&groups, text).or_else(|| text.parse().ok());
        let id = id.ok_or_else(|| {
            format!(
                "there is no group {text:?} in {GROUPS}; write the name of a group in that \
                 file, such as www-data, or the number of any group"
            )
        })?;
        Ok(Self { name: text.to_owned(), id })
    }
}

/// Finds the number of a group in lines of the form `name:password:number:members`.
fn id_of(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(
        |mut fields| {
            if fields.next()? == name { fields.nth(1)?.parse().ok() } else { None }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_has_three_octal_digits() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        assert_eq!(parse_mode("0666"), Ok(0o666));
        assert_eq!(parse_mode("777"), Ok(0o777));
        for text in ["", "6", "66", "888", "1777", "rw-rw----", "0o660", "-660", "+660"] {
            assert!(parse_mode(text).unwrap_err().contains("such as 660"), "{text}");
        }
    }

    #[test]
    fn a_group_has_a_name_or_a_number() {
        let groups = "root:x:0:\nwww-data:x:33:nginx,me\nbroken\nodd:x:many:\n";
        assert_eq!(id_of(groups, "www-data"), Some(33));
        assert_eq!(id_of(groups, "root"), Some(0));
        for name in ["www", "broken", "odd", "", "nginx"] {
            assert_eq!(id_of(groups, name), None, "{name}");
        }
        assert_eq!("4000000000".parse::<Group>().map(|group| group.id), Ok(4_000_000_000));
        let unknown = "no such group".parse::<Group>().unwrap_err();
        assert!(unknown.contains("/etc/group") && unknown.contains("www-data"), "{unknown}");
    }
}
