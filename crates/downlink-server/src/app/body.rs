//! Reads request bodies, up to a size limit and a time limit.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::reply::{Refused, bad_request};

/// The maximum time for a whole body, as a multiple of the maximum pause. With the default pause of
/// 30 seconds, the maximum is five minutes. In five minutes, a client with 60 kB/s can send 16 MiB,
/// which is the default limit of a batch. Without a maximum, a client that sends one byte every 29
/// seconds could hold a connection for a year with a single event of 1 MiB.
const PAUSES_MAX: u32 = 10;

/// Reads the next chunk of a body. `None` if the body has ended.
pub(super) async fn next_chunk(
    body: &mut Body,
    pause_max: Duration,
) -> Result<Option<Bytes>, Refused> {
    loop {
        let frame = timeout(pause_max, body.frame()).await.map_err(|_| paused(pause_max))?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|_| bad_request("The body ended early. Send it again."))?;
        // A frame that is not data has trailers, which the server ignores.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// Reads the whole body as text.
pub(super) async fn text(
    body: Body,
    bytes_max: usize,
    pause_max: Duration,
) -> Result<String, Refused> {
    let within = pause_max.saturating_mul(PAUSES_MAX);
    let whole = timeout(within, gather(body, bytes_max, pause_max)).await;
    let whole = whole.unwrap_or_else(|_| Err(too_slow(within)))?;
    String::from_utf8(whole.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        bad_request(format!("The body is not UTF-8: look at byte {at}."))
    })
}

async fn gather(
    mut body: Body,
    bytes_max: usize,
    pause_max: Duration,
) -> Result<BytesMut, Refused> {
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
    Ok(gathered)
}

fn too_large(bytes_max: usize) -> Refused {
    Refused::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("The body is larger than {bytes_max} bytes, which is the limit. Send less."),
    )
}

fn paused(pause_max: Duration) -> Refused {
    Refused::new(
        StatusCode::REQUEST_TIMEOUT,
        format!("No part of the body arrived for {} s. Send it again.", pause_max.as_secs_f32()),
    )
}

fn too_slow(within: Duration) -> Refused {
    Refused::new(
        StatusCode::REQUEST_TIMEOUT,
        format!("The body took longer than {} s. Send it again.", within.as_secs_f32()),
    )
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use futures_util::stream;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A body of single bytes, with a pause before each.
    fn dripping(bytes: usize, pause: Duration) -> Body {
        let drops = stream::unfold(0, move |sent| async move {
            tokio::time::sleep(pause).await;
            let byte = Ok::<_, std::io::Error>(Bytes::from_static(b"x"));
            (sent < bytes).then_some((byte, sent + 1))
        });
        Body::from_stream(drops)
    }

    async fn status(body: Body, bytes_max: usize) -> u16 {
        let read = text(body, bytes_max, SECOND).await;
        read.map_or_else(|refused| refused.into_response().status().as_u16(), |_| 200)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_pause_up_to_the_limit() {
        assert_eq!(status(dripping(3, SECOND - Duration::from_millis(1)), 9).await, 200);
        assert_eq!(status(dripping(3, SECOND + Duration::from_millis(1)), 9).await, 408);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_sent_byte_by_byte_has_a_time_limit() {
        let pause = Duration::from_millis(900);
        assert_eq!(status(dripping(10, pause), 99).await, 200);
        assert_eq!(status(dripping(11, pause), 99).await, 408);
    }

    #[tokio::test]
    async fn a_body_is_accepted_up_to_its_size_limit() {
        assert_eq!(status(Body::from("xx"), 3).await, 200);
        assert_eq!(status(Body::from("xxx"), 3).await, 200);
        assert_eq!(status(Body::from("xxxx"), 3).await, 413);
        assert_eq!(status(dripping(4, Duration::ZERO), 3).await, 413);
    }
}
