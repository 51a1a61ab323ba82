//! Tests of tickets. An app issues a ticket to a client, and the client opens a stream with the
//! ticket. The tests are about the rights of a ticket, the callers that may issue one, its end, its
//! protection against changes, and the streams opened with it. The inbox of a client has the events
//! for this client.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use downlink_access::{
    Access, AccessError, AccessOptions, Grant, IssueError, KeyRole, Keys, Presented, Proof,
    Revocation, Revoked, Secret, TICKET_BYTES_MAX, TICKET_KEYS_MAX, TICKET_LIFETIME_MAX,
    TicketError, TicketKeys, TokenKeys, TokenRules, Tokens, Verified,
};
use downlink_log::{ClientId, TopicSelector};

use crate::support::*;

const MINUTE: Duration = Duration::from_secs(60);

fn access(hub: &str, secrets: &[Secret]) -> Access {
    let public = vec![selector("news")];
    let tickets = Some(TicketKeys::new(hub, secrets).unwrap());
    Access::new(AccessOptions { public, tickets, ..AccessOptions::default() })
}

fn shop() -> Access {
    access("shop", &[secret()])
}

fn app() -> Verified {
    Verified::trusted(Grant::app(), now())
}

fn topics(texts: &[&str]) -> Vec<TopicSelector> {
    texts.iter().map(|text| selector(text)).collect()
}

fn issue(by: &Verified, of: &[&str], client: Option<ClientId>) -> Result<String, IssueError> {
    shop().issue(by, topics(of), client, MINUTE).map(|(ticket, _)| ticket)
}

fn open(access: &Access, ticket: &str, seconds: u64) -> Result<Verified, AccessError> {
    access.verify(&Presented::new().ticket(ticket), at(seconds))
}

#[test]
fn a_ticket_grants_only_its_topics_and_the_inbox_of_its_client() {
    let ticket = issue(&app(), &["orders/*", "chat/{room}"], Some(client("ada"))).unwrap();
    let grant = Grant::none()
        .with_subscribe(selector("orders/*"))
        .with_subscribe(selector("chat/{room}"))
        .with_client(client("ada"))
        .with_until(at(NOW + 60));
    assert_eq!(*open(&shop(), &ticket, NOW).unwrap().grant(), grant);
}

#[test]
fn a_ticket_can_be_used_for_reconnects_until_it_ends() {
    let ticket = issue(&app(), &["a"], None).unwrap();
    assert!(open(&shop(), &ticket, NOW + 59).is_ok());
    assert!(
        open(&access("shop", &[secret()]), &ticket, NOW + 59).is_ok(),
        "a different server must accept the ticket"
    );
    assert_eq!(open(&shop(), &ticket, NOW + 60).unwrap_err(), AccessError::TokenExpired);
    assert_eq!(open(&shop(), &ticket, NOW - 31).unwrap_err(), AccessError::TokenEarly);
    assert!(open(&shop(), &ticket, NOW - 30).is_ok());
}

#[test]
fn a_ticket_lasts_at_most_an_hour_and_not_longer_than_the_rights_of_its_issuer() {
    let until = |issuer: &Verified, lifetime| {
        let (ticket, end) = shop().issue(issuer, topics(&["a"]), None, lifetime).unwrap();
        assert_eq!(open(&shop(), &ticket, NOW).unwrap().grant().until(), Some(end));
        Some(end)
    };
    let short = Verified::trusted(Grant::app().with_until(at(NOW + 30)), now());
    assert_eq!(until(&short, MINUTE), Some(at(NOW + 30)));
    assert_eq!(until(&app(), Duration::MAX), Some(now().after(TICKET_LIFETIME_MAX)));
    assert_eq!(until(&app(), MINUTE), Some(at(NOW + 60)));
}

#[test]
fn an_issuer_needs_the_right_to_issue_and_all_rights_in_the_ticket() {
    let denied = |issuer: Grant, of: &[&str], client: Option<ClientId>| match issue(
        &Verified::trusted(issuer, now()),
        of,
        client,
    ) {
        Err(IssueError::Denied(error)) => Some(error.code()),
        outcome => outcome.map(|_| None).unwrap(),
    };
    let ada = Grant::none().with_subscribe(selector("orders/*")).with_client(client("ada"));
    assert_eq!(denied(ada.clone(), &["orders/1"], None), Some("right_missing"));
    let ada = ada.with_issue(true);
    assert_eq!(denied(ada.clone(), &["orders/1", "news"], None), None, "everyone may read `news`");
    assert_eq!(denied(ada.clone(), &["*"], None), Some("topic_denied"));
    assert_eq!(denied(ada.clone(), &["orders/1"], Some(client("ada"))), None);
    assert_eq!(denied(ada, &["orders/1"], Some(client("bob"))), Some("client_denied"));
}

#[test]
fn a_ticket_without_a_client_gets_the_client_of_its_issuer() {
    let grant = Grant::none().with_issue(true).with_client(client("ada"));
    let grant = grant.with_hear_everyone(false);
    let ticket = issue(&Verified::trusted(grant, now()), &["news"], None).unwrap();
    let opened = open(&shop(), &ticket, NOW).unwrap();
    assert_eq!(opened.grant().client(), Some(&client("ada")));
    assert!(!opened.grant().hear_everyone());
}

#[test]
fn a_ticket_gives_no_right_to_issue_tickets() {
    let bearer = open(&shop(), &issue(&app(), &["a"], None).unwrap(), NOW).unwrap();
    assert!(matches!(issue(&bearer, &["a"], None), Err(IssueError::Denied(_))));
}

#[test]
fn the_first_key_seals_new_tickets_and_every_key_opens_tickets() {
    let (older, newer) = (secret(), other_secret());
    let ticket = issue(&app(), &["a"], None).unwrap();
    let rotating = access("shop", &[newer.clone(), older]);
    assert!(open(&rotating, &ticket, NOW).is_ok());
    let (fresh, _) = rotating.issue(&app(), topics(&["a"]), None, MINUTE).unwrap();
    assert!(open(&access("shop", &[newer]), &fresh, NOW).is_ok());
    assert_eq!(open(&shop(), &fresh, NOW).unwrap_err(), AccessError::KeyUnknown);
}

#[test]
fn a_ticket_is_valid_only_at_its_hub() {
    let ticket = issue(&app(), &["a"], None).unwrap();
    let other = access("blog", &[secret()]);
    assert_eq!(open(&other, &ticket, NOW).unwrap_err(), AccessError::Signature);
}

#[test]
fn every_changed_byte_is_noticed() {
    let ticket = issue(&app(), &["a"], None).unwrap();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&ticket).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let text = BASE64_URL_SAFE_NO_PAD.encode(changed);
        let expected = match at {
            0 => "token_malformed",
            1..=8 => "key_unknown",
            _ => "signature",
        };
        assert_eq!(open(&shop(), &text, NOW).unwrap_err().code(), expected, "byte {at}");
    }
    for len in 0..ticket.len() {
        assert!(open(&shop(), &ticket[..len], NOW).is_err());
    }
    assert_eq!(open(&shop(), &format!("{ticket}="), NOW).unwrap_err().code(), "token_malformed");
}

#[test]
fn the_signature_is_checked_before_the_time() {
    let ticket = issue(&app(), &["a"], None).unwrap();
    let other = access("blog", &[secret()]);
    assert_eq!(open(&other, &ticket, NOW + 100).unwrap_err(), AccessError::Signature);
}

#[test]
fn two_tickets_with_the_same_content_differ() {
    assert_ne!(issue(&app(), &["a"], None).unwrap(), issue(&app(), &["a"], None).unwrap());
}

#[test]
fn tickets_above_the_limit_are_not_issued() {
    let (b, c, d, e) = ("b".repeat(256), "c".repeat(256), "d".repeat(256), "e".repeat(256));
    let f = "f".repeat(200);
    let long = |n: usize| issue(&app(), &[&"a".repeat(n), &b, &c, &d, &e, &f], None);
    let fits = (1..=256).rev().find_map(|n| long(n).ok()).unwrap();
    assert!((TICKET_BYTES_MAX - 2..=TICKET_BYTES_MAX).contains(&fits.len()), "{}", fits.len());
    let error = long(256).unwrap_err();
    assert!(matches!(error, IssueError::Seal(TicketError::TooLong { .. })), "{error}");
    let many = shop().issue(&app(), vec![selector("a"); 257], None, MINUTE).unwrap_err();
    assert!(matches!(many, IssueError::Seal(TicketError::TooManyTopics { .. })), "{many}");
    let long = "A".repeat(TICKET_BYTES_MAX + 1);
    assert_eq!(open(&shop(), &long, NOW).unwrap_err().code(), "token_malformed");
}

#[test]
fn ticket_keys_above_the_limits_are_refused() {
    let keys = |n: usize| TicketKeys::new("shop", &vec![secret(); n]).err();
    let error = TicketError::Keys { keys_max: TICKET_KEYS_MAX };
    assert_eq!(keys(0), Some(error.clone()));
    assert_eq!(keys(1), None);
    assert_eq!(keys(TICKET_KEYS_MAX), None);
    assert_eq!(keys(TICKET_KEYS_MAX + 1), Some(error));
}

#[test]
fn a_server_without_ticket_keys_issues_no_tickets() {
    let none = Access::new(AccessOptions::default());
    let error = none.issue(&app(), topics(&["a"]), None, MINUTE);
    assert_eq!(error, Err(IssueError::NoKey));
    let ticket = issue(&app(), &["a"], None).unwrap();
    assert_eq!(open(&none, &ticket, NOW).unwrap_err(), AccessError::KeyUnknown);
}

#[test]
fn a_ticket_ends_when_one_of_its_keys_is_removed() {
    let with = |app: &Secret, ticket: Secret| {
        let mut keys = Keys::new();
        keys.add(KeyRole::Publish, app).unwrap();
        let tickets = Some(TicketKeys::new("shop", &[ticket]).unwrap());
        Access::new(AccessOptions { keys, tickets, ..AccessOptions::default() })
    };
    let before = with(&other_secret(), secret());
    let header = format!("Bearer {}", "x".repeat(32));
    let app = before.verify(&Presented::new().authorization(header.as_bytes()), now()).unwrap();
    let (ticket, _) = before.issue(&app, topics(&["a"]), None, MINUTE).unwrap();
    let stream = open(&before, &ticket, NOW).unwrap();
    assert_eq!(before.recheck(&stream, &[], now()), Ok(()));
    // The settings are reloaded, and the key of the app is no longer in them.
    let without_app = with(&Secret::generate().unwrap(), secret());
    assert_eq!(without_app.recheck(&stream, &[], now()), Err(AccessError::KeyUnknown));
    assert_eq!(open(&without_app, &ticket, NOW), Err(AccessError::KeyUnknown));
    // The settings are reloaded with another ticket key.
    let without_ticket = with(&other_secret(), Secret::generate().unwrap());
    assert_eq!(without_ticket.recheck(&stream, &[], now()), Err(AccessError::KeyUnknown));
}

#[test]
fn a_ticket_counts_as_issued_at_the_same_time_as_the_token_of_its_issuer() {
    let tokens = Tokens::new(TokenKeys::new().hmac(&secret()), TokenRules::default()).unwrap();
    let tickets = Some(TicketKeys::new("shop", &[other_secret()]).unwrap());
    let access =
        Access::new(AccessOptions { tokens: Some(tokens), tickets, ..AccessOptions::default() });
    let more = r#","sub":"ada","downlink":{"issue":true,"subscribe":["a"]}"#;
    let header = format!("Bearer {}", hs256(&claims(more)));
    let presented = Presented::new().authorization(header.as_bytes());
    // The server verifies the token at 5 s. At 6 s the server gets a revocation of the client. The
    // revocation ends all tokens of the client that were issued at 2 s or earlier.
    let ada = access.verify(&presented, at(NOW + 5)).unwrap();
    let revoked = downlink_access::Revoked::Client(client("ada"));
    let revocation = downlink_access::Revocation { revoked, at: at(NOW + 2) };
    access.revoke(revocation, at(NOW + 6)).unwrap();
    let (ticket, _) = access.issue(&ada, topics(&["a"]), None, MINUTE).unwrap();
    assert_eq!(open(&access, &ticket, NOW + 7), Err(AccessError::Revoked));
}

#[test]
fn each_ticket_has_a_different_id() {
    let id = |ticket: &str| match open(&shop(), ticket, NOW).unwrap().proof() {
        Proof::Ticket { id, .. } => id,
        proof => panic!("{proof:?}"),
    };
    let (one, other) = (issue(&app(), &["a"], None).unwrap(), issue(&app(), &["a"], None).unwrap());
    assert_eq!(id(&one), id(&one));
    assert_ne!(id(&one), id(&other));
}

#[test]
fn the_tickets_of_a_revoked_ticket_key_are_refused() {
    let access = shop();
    let ticket = issue(&app(), &["a"], None).unwrap();
    let Proof::Ticket { sealed_with, .. } = open(&access, &ticket, NOW).unwrap().proof() else {
        panic!("no ticket");
    };
    let revoked = Revoked::Key(sealed_with);
    access.revoke(Revocation { revoked, at: at(NOW + 1) }, at(NOW + 1)).unwrap();
    assert_eq!(open(&access, &ticket, NOW + 2), Err(AccessError::Revoked));
}
