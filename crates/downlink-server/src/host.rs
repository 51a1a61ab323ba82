//! Parses a host name in `--host`.

use std::net::Ipv6Addr;

/// Parses a name that a `Host` header can have, with or without a port. Other text is an error,
/// because it would never match a request. The server would then refuse its clients, and the user
/// would not see why.
pub(crate) fn parse_host(text: &str) -> Result<String, String> {
    let text = text.trim();
    let name = match text.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => text,
    };
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let valid = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(is_letter),
    };
    if valid {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not a host name; write each name in full and without http://, and \
         separate names with commas: events.example,push.example:8443"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_may_have_a_port() {
        for text in ["a.example", "A-b_c.example:8443", "10.0.0.1", "[::1]", "[2001:db8::1]:80"] {
            assert_eq!(parse_host(text), Ok(text.to_owned()));
        }
        assert_eq!(parse_host(" a.example "), Ok("a.example".to_owned()));
    }

    #[test]
    fn a_text_is_refused_if_no_host_header_can_have_it() {
        for text in [
            "",
            "https://a.example",
            "a.example/",
            "*",
            "*.example",
            "a;b",
            "a b",
            ":80",
            "a.example:",
            "a.example:99999",
            "::1",
            "[a]",
            "bücher.example",
        ] {
            let refused = parse_host(text).unwrap_err();
            assert!(refused.contains("separate names with commas"), "{text}: {refused}");
        }
    }
}
