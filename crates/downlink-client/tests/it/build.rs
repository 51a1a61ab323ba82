//! Tests of invalid settings, and of debug output without secrets.

use downlink_client::{
    BuildError, Closed, Credentials, EventSource, EventSourceBuilder, Publisher, ReadyState,
};
use std::{future::ready, time::Duration};

fn error(builder: EventSourceBuilder) -> BuildError {
    builder.build().unwrap_err()
}

#[test]
fn an_address_must_be_a_url() {
    assert!(matches!(error(EventSource::builder("/events")), BuildError::Url { .. }));
    assert!(matches!(Publisher::new("localhost"), Err(BuildError::Url { .. })));
}

#[test]
fn an_address_must_be_http_or_https() {
    assert!(matches!(error(EventSource::builder("ftp://h/")), BuildError::Scheme));
    assert!(matches!(Publisher::new("mailto:a@b"), Err(BuildError::Scheme)));
}

#[test]
fn the_first_invalid_header_is_reported() {
    let builder = EventSource::builder("http://h/").header("a b", "x").header("c", "\n");
    assert!(matches!(error(builder), BuildError::Header { name, .. } if name == "a b"));
    let publisher = Publisher::new("http://h/").unwrap().with_header("c", "\n");
    assert!(matches!(publisher, Err(BuildError::Header { name, .. }) if name == "c"));
}

#[test]
fn an_error_about_an_invalid_token_does_not_show_the_token() {
    #[track_caller]
    fn assert_refused<T>(result: Result<T, BuildError>) {
        let Err(error) = result else { panic!("the token was accepted") };
        assert!(matches!(&error, BuildError::Header { name, .. } if name == "authorization"));
        assert!(!format!("{error} {error:?}").contains("hidden"));
    }

    let token = "hidden\nhidden";
    assert_refused(EventSource::builder("http://h/").bearer_token(token).build());
    assert_refused(Publisher::new("http://h/").unwrap().with_bearer_token(token));
    assert_refused(Credentials::bearer_token(token));
}

#[test]
fn a_connect_timeout_together_with_a_client_is_an_error() {
    let builder = EventSource::builder("http://h/")
        .http_client(reqwest::Client::new())
        .connect_timeout(Duration::from_secs(1));
    assert!(matches!(error(builder), BuildError::ConnectTimeout));
}

#[cfg(unix)]
#[test]
fn a_unix_socket_together_with_a_client_is_an_error() {
    let builder = EventSource::builder("http://h/")
        .http_client(reqwest::Client::new())
        .unix_socket("/run/downlink.sock");
    assert!(matches!(error(builder), BuildError::UnixSocket));
}

#[test]
fn debug_output_shows_no_secret() {
    let credentials = Credentials::bearer_token("hidden").unwrap();
    assert!(!format!("{credentials:?}").contains("hidden"));
    let fetched = credentials.clone();
    let builder = EventSource::builder("http://h/?token=hidden")
        .header("x-key", "hidden")
        .bearer_token("hidden")
        .credentials(move || ready(Ok::<_, BuildError>(fetched.clone())));
    assert!(!format!("{builder:?}").contains("hidden"));
    let source = builder.build().unwrap();
    assert!(!format!("{source:?}").contains("hidden"));
    let publisher = Publisher::new("http://u:hidden@h/").unwrap();
    let publisher = publisher.with_header("x-key", "hidden").unwrap();
    let publisher = publisher.with_bearer_token("hidden").unwrap();
    let publisher =
        publisher.with_credentials(move || ready(Ok::<_, BuildError>(credentials.clone())));
    assert!(!format!("{publisher:?}").contains("hidden"));
}

#[tokio::test]
async fn an_event_source_can_be_closed_before_it_connects() {
    let mut source = EventSource::builder("http://127.0.0.1:1/").build().unwrap();
    assert_eq!(source.ready_state(), ReadyState::Connecting);
    source.close();
    source.restart();
    assert_eq!(source.ready_state(), ReadyState::Closed);
    assert!(source.next().await.is_none());
    assert!(matches!(source.closed_because(), Some(Closed::ByCaller)));
}

fn assert_send<T: Send>() {}

#[test]
fn event_sources_and_publishers_can_move_between_threads() {
    assert_send::<EventSource>();
    assert_send::<Publisher>();
}
