//! Request bodies: read up to a limit, and not for ever.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::reply::{Refused, bad_request};

/// The next piece of a body, `None` at its end.
pub(super) async fn next_chunk(body: &mut Body, pause_max: Duration) -> Result<Option<Bytes>, Refused> {
    loop {
        let frame = tokio::time::timeout(pause_max, body.frame()).await.map_err(|_| {
            Refused::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("Nothing of the body came for {} s.", pause_max.as_secs_f32()),
            )
        })?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|_| bad_request("The body broke off."))?;
        // Trailers are not for us.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// The whole body as text.
pub(super) async fn text(
    mut body: Body,
    bytes_max: usize,
    pause_max: Duration,
) -> Result<String, Refused> {
    let announced = http_body::Body::size_hint(&body).lower();
    if announced > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let mut gathered = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut body, pause_max).await? {
        if gathered.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        gathered.extend_from_slice(&chunk);
    }
    String::from_utf8(gathered.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        bad_request(format!("The body is not UTF-8: look at byte {at}."))
    })
}

fn too_large(bytes_max: usize) -> Refused {
    Refused::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("The body is larger than {bytes_max} bytes, which is the limit."),
    )
}
