//! Tests of open streams: the memory that a server keeps for each stream, and which streams end
//! after a revocation or a reload of the settings.

use std::mem::size_of;
use std::sync::Arc;
use std::time::Duration;

use downlink_access::{
    Access, AccessError, AccessOptions, Grant, KeyRole, KeySetCache, Keys, Presented, Revocation,
    Revoked, Secret, StreamGrant, TicketKeys, TokenKeys, Tokens, Verified,
};
use downlink_log::{Address, Selection, Topic};
use jsonwebtoken::Algorithm;

use crate::support::*;

/// The settings of a server with one publish key, tokens, one ticket key and public topics.
struct Server {
    publish: Secret,
    ticket: Secret,
    public: Vec<&'static str>,
}

impl Server {
    fn new() -> Self {
        Self { publish: other_secret(), ticket: secret(), public: vec!["news/*"] }
    }

    fn options(&self) -> AccessOptions {
        let mut keys = Keys::new();
        keys.add(KeyRole::Publish, &self.publish).unwrap();
        AccessOptions {
            public: self.public.iter().map(|text| selector(text)).collect(),
            keys,
            tokens: Some(hmac_tokens()),
            tickets: Some(TicketKeys::new("shop", std::slice::from_ref(&self.ticket)).unwrap()),
        }
    }

    fn access(&self) -> Access {
        Access::new(self.options())
    }
}

fn another_secret() -> Secret {
    Secret::from_file_bytes(&[b'y'; 32]).unwrap()
}

fn bearer(text: &str) -> String {
    format!("Bearer {text}")
}

/// A token of `ada` for the topics below `orders`.
fn token_of_ada() -> String {
    bearer(&hs256(&claims(r#","sub":"ada","downlink":{"subscribe":["orders/*"]}"#)))
}

fn publish_key() -> String {
    bearer(&"x".repeat(32))
}

/// A ticket for `orders/7` that the app has issued to `ada`.
fn ticket_of_ada(access: &Access) -> String {
    let header = publish_key();
    let app = Presented::new().authorization(header.as_bytes());
    let app = access.verify(&app, now()).unwrap();
    let (topics, ada) = (vec![selector("orders/7")], Some(client("ada")));
    access.issue(&app, topics, ada, Duration::from_secs(600)).unwrap().0
}

fn admit(access: &Access, presented: &Presented<'_>, asked: &Selection) -> StreamGrant {
    let verified = access.subscribe(presented, asked, now()).unwrap();
    access.admit(&verified, asked, now()).unwrap()
}

/// The open streams of these tests: of a stranger (a caller without credentials), of an app with a
/// key, of a user with a token, and of a browser with a ticket.
fn open_streams(access: &Access) -> [(StreamGrant, Selection); 4] {
    let (key, token, ticket) = (publish_key(), token_of_ada(), ticket_of_ada(access));
    let stranger = Presented::new();
    let open = |presented: Presented<'_>, topics: &[&str]| {
        let asked = asked(topics, None);
        (admit(access, &presented, &asked), asked)
    };
    [
        open(stranger, &["news/a"]),
        open(stranger.authorization(key.as_bytes()), &["*"]),
        open(stranger.authorization(token.as_bytes()), &["orders/7", "news/a"]),
        open(stranger.ticket(&ticket), &["orders/7"]),
    ]
}

/// For each stream of [`open_streams`], the code of the error that ends it, or `open`.
fn codes(streams: &mut [(StreamGrant, Selection); 4]) -> [&'static str; 4] {
    let later = at(NOW + 10);
    streams.each_mut().map(|(stream, asked)| {
        let outcome = stream.check(asked, later);
        outcome.err().map_or("open", |error| error.code())
    })
}

#[test]
fn the_grant_of_a_stream_takes_24_bytes() {
    assert_eq!(size_of::<StreamGrant>(), 24);
    assert_eq!(size_of::<Option<StreamGrant>>(), 24);
    assert!(size_of::<Verified>() <= 160, "{}", size_of::<Verified>());
}

#[test]
fn streams_stay_open_if_a_reload_changes_nothing() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    assert_eq!(codes(&mut streams), ["open"; 4]);
    access.reload(Server::new().options());
    assert_eq!(codes(&mut streams), ["open"; 4]);
}

#[test]
fn a_removed_publish_key_ends_its_streams_and_the_streams_of_its_tickets() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    access.reload(Server { publish: another_secret(), ..Server::new() }.options());
    assert_eq!(codes(&mut streams), ["open", "key_unknown", "open", "key_unknown"]);
    let header = publish_key();
    let presented = Presented::new().authorization(header.as_bytes());
    assert_eq!(access.verify(&presented, now()), Err(AccessError::KeyUnknown));
}

#[test]
fn a_removed_ticket_key_ends_the_streams_of_tickets() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    access.reload(Server { ticket: another_secret(), ..Server::new() }.options());
    assert_eq!(codes(&mut streams), ["open", "open", "open", "key_unknown"]);
    access.reload(AccessOptions { tickets: None, ..Server::new().options() });
    assert_eq!(codes(&mut streams), ["open", "open", "open", "key_unknown"]);
}

#[test]
fn streams_of_tokens_end_when_the_server_no_longer_accepts_tokens() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    access.reload(AccessOptions { tokens: None, ..Server::new().options() });
    assert_eq!(codes(&mut streams), ["open", "open", "key_unknown", "open"]);
}

#[test]
fn a_topic_that_is_no_longer_public_ends_the_streams_that_rely_on_it() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    access.reload(Server { public: vec!["blog"], ..Server::new() }.options());
    assert_eq!(codes(&mut streams), ["token_missing", "open", "topic_denied", "open"]);
    access.reload(Server { public: vec![], ..Server::new() }.options());
    assert_eq!(codes(&mut streams), ["token_missing", "open", "topic_denied", "open"]);
    access.reload(Server { public: vec!["news/{x}"], ..Server::new() }.options());
    assert_eq!(codes(&mut streams), ["open"; 4]);
}

#[test]
fn a_revoked_client_loses_its_streams() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    let revoke = |revoked| access.revoke(Revocation { revoked, at: now() }, at(NOW + 1)).unwrap();
    revoke(Revoked::Client(client("bob")));
    assert_eq!(codes(&mut streams), ["open"; 4]);
    revoke(Revoked::Topic(client("ada"), selector("orders/8")));
    assert_eq!(codes(&mut streams), ["open"; 4]);
    revoke(Revoked::Topic(client("ada"), selector("orders/{id}")));
    assert_eq!(codes(&mut streams), ["open", "open", "revoked", "revoked"]);
    access.reload(Server::new().options());
    assert_eq!(codes(&mut streams), ["open", "open", "revoked", "revoked"]);
}

#[test]
fn a_revoked_key_ends_its_streams_and_a_forgotten_key_is_accepted_again() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    let header = publish_key();
    let presented = Presented::new().authorization(header.as_bytes());
    let key = access.verify(&presented, now()).unwrap().key().unwrap();
    access.revoke(Revocation { revoked: Revoked::Key(key), at: now() }, now()).unwrap();
    assert_eq!(codes(&mut streams), ["open", "revoked", "open", "revoked"]);
    access.forget_key(key);
    assert_eq!(codes(&mut streams), ["open"; 4]);
}

#[test]
fn after_a_change_every_stream_needs_a_new_check_of_its_rights() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    let outdated = |streams: &[(StreamGrant, Selection); 4]| {
        streams.iter().filter(|(stream, _)| stream.is_outdated()).count()
    };
    assert_eq!(outdated(&streams), 0);
    let revoked = Revoked::Client(client("bob"));
    access.revoke(Revocation { revoked, at: now() }, now()).unwrap();
    assert_eq!(outdated(&streams), 4);
    assert_eq!((codes(&mut streams), outdated(&streams)), (["open"; 4], 0));
    access.without_keys().reload(Server::new().options());
    assert_eq!(outdated(&streams), 4);
    codes(&mut streams);
    access.note_change();
    assert_eq!(outdated(&streams), 4);
}

#[test]
fn streams_stay_open_after_the_app_has_dropped_its_access() {
    let access = Server::new().access();
    let mut streams = open_streams(&access);
    drop(access);
    assert_eq!(codes(&mut streams), ["open"; 4]);
    let [.., (browser, _)] = &streams;
    assert_eq!(browser.register(1), Ok(None));
}

#[test]
fn the_newest_stream_of_a_ticket_displaces_the_older_one() {
    let access = Server::new().access();
    let ticket = ticket_of_ada(&access);
    let asked = asked(&["orders/7"], None);
    let open = || admit(&access, &Presented::new().ticket(&ticket), &asked);
    let (first, second) = (open(), open());
    assert!(first.has_ticket());
    assert_eq!(first.register(7), Ok(None));
    assert_eq!(second.register(8), Ok(Some(7)));
    first.remove(7);
    assert_eq!(
        open().register(9),
        Ok(Some(8)),
        "the end of the first stream must not remove the second stream"
    );
    assert_eq!(access.ticket_disputes(), 2);
    open().remove(9);
    assert_eq!(open().register(10), Ok(None));
}

#[test]
fn streams_without_a_ticket_displace_no_other_stream() {
    let access = Server::new().access();
    let [(stranger, _), (app, _), (user, _), _] = open_streams(&access);
    for stream in [&stranger, &app, &user] {
        assert!(!stream.has_ticket());
        assert_eq!((stream.register(7), stream.register(8)), (Ok(None), Ok(None)));
    }
    assert_eq!(access.ticket_disputes(), 0);
}

#[test]
fn a_stream_is_not_admitted_beyond_its_grant() {
    let access = Server::new().access();
    let header = token_of_ada();
    let presented = Presented::new().authorization(header.as_bytes());
    let user = access.verify(&presented, now()).unwrap();
    let admit = |topics: &[&str], of| access.admit(&user, &asked(topics, of), now());
    assert!(admit(&["orders/7"], Some("ada")).is_ok());
    assert_eq!(admit(&["chat"], None).unwrap_err().code(), "topic_denied");
    assert_eq!(admit(&[], Some("bob")).unwrap_err().code(), "client_denied");
}

#[test]
fn a_reload_applies_to_every_clone() {
    let access = Server::new().access();
    let clone = access.without_keys();
    let asked = asked(&["blog"], None);
    assert!(clone.subscribe(&Presented::new(), &asked, now()).is_err());
    access.reload(Server { public: vec!["blog"], ..Server::new() }.options());
    assert!(clone.subscribe(&Presented::new(), &asked, now()).is_ok());
}

/// A user who was removed from a room can no longer publish there either.
#[test]
fn a_client_cannot_publish_to_a_topic_that_was_revoked_for_it() {
    let access = Server::new().access();
    let more = r#","sub":"ada","downlink":{"publish":["rooms/*"]}"#;
    let header = bearer(&hs256(&claims(more)));
    let presented = Presented::new().authorization(header.as_bytes());
    let ada = access.verify(&presented, now()).unwrap();
    let revoked = Revoked::Topic(client("ada"), selector("rooms/7"));
    access.revoke(Revocation { revoked, at: now() }, now()).unwrap();
    let publish = |topics: &[&str]| {
        let address = |name: &&str| Address::Topic(Topic::new(name).unwrap());
        let addresses: Vec<Address> = topics.iter().map(address).collect();
        access.check_publish(&ada, &addresses, now())
    };
    assert_eq!(publish(&["rooms/8"]), Ok(()));
    assert_eq!(publish(&["rooms/7"]), Err(AccessError::Revoked));
    assert_eq!(publish(&["rooms/8", "rooms/7"]), Err(AccessError::Revoked));
    assert_eq!(publish(&["orders"]).unwrap_err().code(), "topic_denied");
}

/// A trusted grant belongs to no key, because the app itself has verified the user.
#[test]
fn a_trusted_grant_can_be_revoked_like_any_other_grant() {
    let access = Server::new().access();
    let grant = Grant::none().with_client(client("ada")).with_subscribe(selector("a"));
    let asked = asked(&["a"], Some("ada"));
    let mut stream = access.admit(&Verified::trusted(grant, now()), &asked, now()).unwrap();
    let revoked = Revoked::Client(client("ada"));
    access.revoke(Revocation { revoked, at: at(NOW + 1) }, at(NOW + 1)).unwrap();
    assert_eq!(stream.check(&asked, at(NOW + 2)), Err(AccessError::Revoked));
}

/// Threads can send these types to each other and share them.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<StreamGrant>();
};

/// The issuer cannot be reached for a day. The streams of its users stay open, but streams whose
/// rights were revoked must still end.
#[test]
fn revoked_rights_end_even_if_the_key_set_cannot_be_fetched() {
    let cache = Arc::new(KeySetCache::new());
    let fetched_at = at(NOW - 23 * 3_600 - 1_800);
    assert!(cache.poll_fetch(fetched_at));
    cache.fetched(fetched_at, include_bytes!("../fixtures/keys.json")).unwrap();
    let options = |public: &[&str]| {
        let keys = TokenKeys::new().key_set(Arc::clone(&cache));
        let tokens = Some(Tokens::new(keys, issuer_rules()).unwrap());
        let public = public.iter().map(|text| selector(text)).collect();
        AccessOptions { public, tokens, ..AccessOptions::default() }
    };
    let more = r#","iss":"https://issuer.example","aud":"downlink","sub":"ada""#;
    let header = r#"{"alg":"ES256","kid":"es256"}"#;
    let header = bearer(&token(header, &claims(more), &es256(), Algorithm::ES256));
    let presented = Presented::new().authorization(header.as_bytes());
    let asked = asked(&["news"], None);
    let open = |access: &Access| admit(access, &presented, &asked);
    // At this time, the key set is older than a day.
    let later = at(NOW + 3_599);
    let access = Access::new(options(&["news"]));
    let mut stream = open(&access);
    let mut check = || stream.check(&asked, later).map_err(|error| error.code());
    assert_eq!(check(), Ok(()));
    let revoked = Revoked::Client(client("ada"));
    access.revoke(Revocation { revoked, at: later }, later).unwrap();
    assert_eq!(check(), Err("revoked"));
    let access = Access::new(options(&["news"]));
    let mut stream = open(&access);
    access.reload(options(&["blog"]));
    let closed = stream.check(&asked, later);
    assert_eq!(closed.unwrap_err().code(), "topic_denied");
}
