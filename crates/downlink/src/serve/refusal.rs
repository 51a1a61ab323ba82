//! Reasons for the refusals that hyper (the HTTP library) itself sends.
//!
//! If hyper cannot read a request head, it answers with a status and no body, before the app sees
//! the request. A status alone does not tell the client what to change, so `peer_socket` sends a
//! problem document instead.

use bytes::Bytes;
use http::StatusCode;

use super::limits::BUFFER_BYTES_MAX;
use crate::http::Problem;

/// The bytes to send instead of a refusal that hyper is about to write. `None` if hyper writes
/// something else.
pub(super) fn with_reason(written: &[u8]) -> Option<Bytes> {
    let status = written.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let status = StatusCode::from_bytes(status).ok()?;
    let detail = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => format!(
            "The head of the request has more than {BUFFER_BYTES_MAX} bytes or 100 fields. Send a \
             shorter address or fewer cookies; a subscription to many topics may use a pattern."
        ),
        StatusCode::BAD_REQUEST => "This is not a request in HTTP/1.1.".to_owned(),
        _ => return None,
    };
    Some(refusal(status, detail))
}

/// The bytes of a refusal, after which the connection closes.
pub(super) fn refusal(status: StatusCode, detail: String) -> Bytes {
    let body = Problem::new(status).detail(detail).to_json() + "\n";
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    (head + &body).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_of_request_heads_get_a_reason() {
        let refusal = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        let told = with_reason(refusal).expect("the bytes are a refusal");
        let told = str::from_utf8(&told).expect("the refusal is text");
        assert!(told.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{told}");
        assert!(told.contains("more than 32768 bytes or 100 fields"), "{told}");
        for other in
            ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 404 Not Found\r\n", "HTTP/1.1 ", "", "\0\0\x04"]
        {
            assert_eq!(with_reason(other.as_bytes()), None, "{other:?}");
        }
    }
}
