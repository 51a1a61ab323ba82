//! Checks the headers that describe a request's body: media type, character set and content coding.
//!
//! The server refuses a body that it would misread, such as a gzip file or a form. Without this
//! check, subscribers would get the bytes of the file or the form as the data of an event.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    reply::{Refused, shown},
    stream_reader::Format,
};

/// Refuses a body whose headers say that it is not plain text in UTF-8.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refused> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let coded = codings.map(|coding| coding.to_str().unwrap_or("?").trim());
    if let Some(coding) = coded.into_iter().find(|coding| !coding.eq_ignore_ascii_case("identity"))
    {
        return Err(unsupported(format!(
            "This server does not decode the content coding {}: send the body without a coding.",
            shown(coding)
        )));
    }
    let content_type = text(headers, &header::CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    let is_read = |charset: &&str| {
        ["utf-8", "utf8", "us-ascii"].iter().any(|known| known.eq_ignore_ascii_case(charset))
    };
    if let Some(charset) = charset.filter(|charset| !is_read(charset)) {
        return Err(unsupported(format!(
            "The body has the character set {}: send the body in UTF-8.",
            shown(charset)
        )));
    }
    if media_type.starts_with("multipart/") {
        return Err(unsupported(
            "The body is a form of several parts: send only the data as the body, and topic, \
             event and id in the query. With curl, use --data instead of --form.",
        ));
    }
    Ok(())
}

/// The format of a body that is a stream of events. `None` if the body is the data of one event.
pub(super) fn stream_format(headers: &HeaderMap) -> Option<Format> {
    let media_type = text(headers, &header::CONTENT_TYPE).split(';').next().unwrap_or_default();
    match media_type.trim().to_ascii_lowercase().as_str() {
        "text/event-stream" => Some(Format::EventStream),
        // No media type is registered for JSON lines, so the server accepts all common names.
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines"
        | "application/json-lines" => Some(Format::Lines),
        _ => None,
    }
}

/// Refuses a body that is a form and begins with a parameter of a publish, such as `topic=news`.
/// The client's author expects the server to read the parameters, but the whole form would become
/// the data of the event. The media type alone does not show whether a body is a form, because curl
/// and wget send every body with the media type of a form.
pub(super) fn check_no_form(headers: &HeaderMap, body: &str) -> Result<(), Refused> {
    const FIELDS: [&str; 7] = ["topic", "data", "id", "type", "event", "retry", "private"];
    let media_type = text(headers, &header::CONTENT_TYPE).split(';').next().unwrap_or_default();
    let is_form = media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded");
    let begins = |field: &&str| body.strip_prefix(*field).is_some_and(|rest| rest.starts_with('='));
    match FIELDS.iter().find(|field| is_form && begins(field)) {
        None => Ok(()),
        Some(field) => Err(unsupported(format!(
            "The body is a form with the field {field}: send only the data as the body, and \
             topic, event and id in the query. If the form is the data, send it as text/plain.",
        ))),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn unsupported(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())])
    }

    #[test]
    fn utf8_is_accepted_under_any_of_its_names() {
        for content_type in
            ["text/plain", "text/plain; charset=UTF-8", "text/plain;charset=\"utf8\"; x=y", ""]
        {
            assert!(check(&headers(content_type)).is_ok(), "{content_type}");
        }
        for content_type in ["text/plain; charset=iso-8859-1", "text/plain; x=y; Charset=utf-16"] {
            assert!(check(&headers(content_type)).is_err(), "{content_type}");
        }
    }

    #[test]
    fn every_content_coding_except_identity_is_refused() {
        for (coding, is_read) in
            [("gzip", false), ("identity", true), ("identity, br", false), ("Identity", true)]
        {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_ENCODING, coding.parse().unwrap())]);
            assert_eq!(check(&headers).is_ok(), is_read, "{coding}");
        }
    }

    #[test]
    fn a_form_is_recognised_by_its_first_field() {
        let form = headers("application/x-www-form-urlencoded");
        assert!(check_no_form(&form, "topic=a&data=b").is_err());
        assert!(check_no_form(&form, "hello").is_ok());
        assert!(check_no_form(&form, "data: b").is_ok());
        assert!(check_no_form(&headers("text/plain"), "topic=a&data=b").is_ok());
    }
}
