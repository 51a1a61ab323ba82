//! Parses the origins of pages that may use the server.

/// Parses an origin: a scheme, a host name and perhaps a port, without a path.
pub(crate) fn parse_origin(text: &str) -> Result<String, String> {
    let refused = || {
        format!(
            "{text:?} is not an origin; write a scheme and a host without a path, such as \
             https://app.example, or * for every page"
        )
    };
    if text == "*" {
        return Ok(text.to_owned());
    }
    let (scheme, host) = text.split_once("://").ok_or_else(refused)?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let host = crate::host::parse_host(host).map_err(|_| refused())?;
    if is_scheme { Ok(format!("{scheme}://{host}")) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_no_path() {
        assert_eq!(
            parse_origin("https://app.example:8443").as_deref(),
            Ok("https://app.example:8443")
        );
        for text in ["app.example", "https://", "https://a/", "null", "https://*.example", ""] {
            assert!(parse_origin(text).is_err(), "{text}");
        }
    }
}
