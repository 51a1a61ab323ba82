//! Tests of grants. A grant says which topics a client may use, and how. It may also allow the
//! inbox of a client, which has the events for this client. The tests check requests against
//! grants, and read grants from JSON.

use downlink_access::{
    AccessError, GRANT_BYTES_MAX, GRANT_SELECTORS_MAX, Grant, InvalidGrant, KeyRole, Right,
};
use downlink_log::{Address, Topic};

use crate::support::{at, client, selector};

fn topic(name: &str) -> Address {
    Address::Topic(Topic::new(name).unwrap())
}

fn read(json: &str) -> Result<Grant, InvalidGrant> {
    Grant::from_json(json.as_bytes())
}

#[test]
fn an_empty_grant_allows_only_the_events_for_everyone() {
    let grant = Grant::none();
    assert!(grant.hear_everyone());
    assert!(grant.check_subscribe([&selector("a")]).is_err());
    assert!(grant.check_publish(&topic("a")).is_err());
    assert!(grant.check_client(&client("ada")).is_err());
    for right in [Right::Admin, Right::Follow, Right::Issue, Right::Everyone, Right::PublishClients]
    {
        assert_eq!(grant.check(right), Err(AccessError::RightMissing { right }));
    }
}

#[test]
fn the_error_names_the_first_selector_outside_the_grant() {
    let grant = Grant::none().with_subscribe(selector("a/*")).with_subscribe(selector("b"));
    assert_eq!(grant.check_subscribe([&selector("a/{x}"), &selector("b")]), Ok(()));
    let error = grant.check_subscribe([&selector("b"), &selector("c/*"), &selector("d")]);
    assert_eq!(error, Err(AccessError::TopicDenied { selector: selector("c/*") }));
}

#[test]
fn each_kind_of_address_needs_a_separate_right_to_publish() {
    let grant = Grant::none().with_publish(selector("a/{x}"));
    assert_eq!(grant.check_publish(&topic("a/1")), Ok(()));
    assert_eq!(grant.check_publish(&topic("a/1/2")).unwrap_err().code(), "topic_denied");
    assert_eq!(grant.check_publish(&Address::Everyone).unwrap_err().code(), "right_missing");
    let inbox = Address::Client(client("ada"));
    assert_eq!(grant.check_publish(&inbox).unwrap_err().code(), "right_missing");
    assert_eq!(grant.clone().with_publish_clients(true).check_publish(&inbox), Ok(()));
    assert_eq!(grant.with_everyone(true).check_publish(&Address::Everyone), Ok(()));
}

#[test]
fn a_client_reads_only_its_own_inbox_and_an_app_reads_every_inbox() {
    let ada = Grant::none().with_client(client("ada")).with_issue(true);
    assert_eq!(ada.check_client(&client("ada")), Ok(()));
    assert_eq!(ada.check_client(&client("bob")).unwrap_err().code(), "client_denied");
    assert_eq!(Grant::app().check_client(&client("bob")), Ok(()));
}

#[test]
fn the_end_of_a_grant_is_never_moved_to_a_later_time() {
    let grant = Grant::none().with_until(at(10)).with_until(at(20));
    assert_eq!(grant.until(), Some(at(10)));
    assert!(!grant.is_over(at(9)));
    assert!(grant.is_over(at(10)));
}

#[test]
fn a_grant_covers_a_topic_if_one_of_its_selectors_matches() {
    let grant = Grant::none().with_subscribe(selector("a/{x}"));
    assert!(grant.covers_topic(&Topic::new("a/1").unwrap()));
    assert!(!grant.covers_topic(&Topic::new("a").unwrap()));
}

#[test]
fn only_an_admin_key_has_the_right_to_administer() {
    assert_eq!(KeyRole::Admin.grant().check(Right::Admin), Ok(()));
    assert!(KeyRole::Publish.grant().check(Right::Admin).is_err());
    assert!(KeyRole::Publish.grant().check(Right::Follow).is_err());
    assert_eq!(KeyRole::Publish.grant().check(Right::Issue), Ok(()));
    assert_eq!(KeyRole::Publish.grant().check_publish(&Address::Everyone), Ok(()));
}

#[test]
fn every_member_of_the_json_object_is_read() {
    let grant = read(
        r#"{"subscribe":["a/*"],"publish":["b"],"publish_clients":true,"hear_everyone":false,
            "everyone":true,"client":"ada","issue":true,"follow":true,"admin":true,"until":1.5}"#,
    );
    let expected = Grant::none()
        .with_subscribe(selector("a/*"))
        .with_publish(selector("b"))
        .with_publish_clients(true)
        .with_hear_everyone(false)
        .with_everyone(true)
        .with_client(client("ada"))
        .with_issue(true)
        .with_follow(true)
        .with_admin(true)
        .with_until(downlink_log::Timestamp::from_millis(1_500));
    assert_eq!(grant, Ok(expected));
}

#[test]
fn errors_say_what_is_wrong_with_the_json() {
    assert_eq!(read("[]"), Err(InvalidGrant::NoObject));
    assert_eq!(read(r#"{"admin":true,"admin":false}"#), Err(InvalidGrant::NoObject));
    let member = "subscibe".to_owned();
    assert_eq!(read(r#"{"subscibe":[]}"#), Err(InvalidGrant::UnknownMember { member }));
    let text = |json| read(json).unwrap_err().to_string();
    assert_eq!(text(r#"{"admin":1}"#), "the member `admin` must be true or false");
    assert_eq!(text(r#"{"publish":"a"}"#), "the member `publish` must be a list of selectors");
    assert_eq!(text(r#"{"subscribe":[7]}"#), "the member `subscribe` must be a list of selectors");
    assert_eq!(text(r#"{"subscribe":["a//b"]}"#), "`a//b` in `subscribe` is not valid");
    assert_eq!(text(r#"{"client":""}"#), "`` in `client` is not valid");
    assert_eq!(text(r#"{"until":"soon"}"#), "the member `until` must be a number of seconds");
}

#[test]
fn a_list_longer_than_the_limit_is_refused() {
    let list = |n: usize| format!(r#"{{"subscribe":[{}]}}"#, vec![r#""a""#; n].join(","));
    assert_eq!(read(&list(GRANT_SELECTORS_MAX)).unwrap().subscribe().len(), GRANT_SELECTORS_MAX);
    let (selectors, selectors_max) = (GRANT_SELECTORS_MAX + 1, GRANT_SELECTORS_MAX);
    let error = InvalidGrant::TooManySelectors { member: "subscribe", selectors, selectors_max };
    assert_eq!(read(&list(selectors)), Err(error));
}

#[test]
fn json_longer_than_the_limit_is_refused() {
    let padded = |bytes: usize| format!("{{}}{}", " ".repeat(bytes - 2));
    assert_eq!(read(&padded(GRANT_BYTES_MAX)), Ok(Grant::none()));
    let (bytes, bytes_max) = (GRANT_BYTES_MAX + 1, GRANT_BYTES_MAX);
    assert_eq!(read(&padded(bytes)), Err(InvalidGrant::TooLong { bytes, bytes_max }));
}

#[test]
fn error_messages_have_no_control_characters() {
    let text = |json| read(json).unwrap_err().to_string();
    assert_eq!(text(r#"{"a\nb":1}"#), r"the grant has an unknown member `a\nb`");
    assert_eq!(text(r#"{"client":"a\u001bb"}"#), r"`a\u{1b}b` in `client` is not valid");
}
