//! Tests of revocations, which make tokens and tickets invalid: which ones they affect, how long
//! they are kept, and their limits. The server keeps the latest moment of all forgotten revocations
//! (the floor). It refuses every client's credentials that were issued at or before the floor.

use std::time::Duration;

use downlink_access::{
    Access, AccessError, AccessOptions, Grant, Issued, KeyId, Presented, REVOCATIONS_MAX,
    REVOKED_KEYS_MAX, REVOKED_TOPICS_PER_CLIENT_MAX, Revocation, Revocations, Revoked,
    RevokedKeysFull, TICKET_LIFETIME_MAX, TicketKeys, TokenKeys, TokenRules, Tokens, Verified,
};
use downlink_log::{ClientId, Timestamp};

use crate::support::*;

const DAY: u64 = 24 * 60 * 60;

fn of(name: &str) -> Revoked {
    Revoked::Client(client(name))
}

fn add(revocations: &mut Revocations, revoked: Revoked, moment: u64) {
    revocations.revoke(Revocation { revoked, at: at(moment) }, at(moment)).unwrap();
}

fn revoked(all: &[(Revoked, u64)]) -> Revocations {
    let mut revocations = Revocations::default();
    all.iter().for_each(|(revoked, moment)| add(&mut revocations, revoked.clone(), *moment));
    revocations
}

fn issued(client: &ClientId, moment: u64) -> Issued {
    Issued::new(Some(client), None, at(moment))
}

#[test]
fn a_client_loses_credentials_issued_up_to_the_time_of_the_revocation() {
    let revocations = revoked(&[(of("ada"), NOW)]);
    let (ada, bob) = (client("ada"), client("bob"));
    let is = |who, moment| revocations.is_revoked(issued(who, moment), &[], at(NOW + 100));
    assert!(is(&ada, NOW - 1));
    assert!(is(&ada, NOW));
    assert!(!is(&ada, NOW + 1));
    assert!(!is(&ada, NOW + 130));
    assert!(is(&ada, NOW + 131), "a token with a future time of issue must be revoked too");
    assert!(!is(&bob, NOW - 1));
    assert!(!revocations.is_revoked(Issued::new(None, None, now()), &[], now()));
}

#[test]
fn a_revoked_topic_is_refused_and_so_is_every_selector_that_matches_it() {
    let room = Revoked::Topic(client("ada"), selector("rooms/7"));
    let revocations = revoked(&[(room, NOW), (of("aaa"), NOW), (of("zoe"), NOW)]);
    let ada = client("ada");
    let is = |topics: &[&str], moment| {
        let topics: Vec<_> = topics.iter().map(|text| selector(text)).collect();
        revocations.is_revoked(issued(&ada, moment), &topics, at(NOW + 100))
    };
    assert!(is(&["rooms/7"], NOW));
    assert!(is(&["rooms/8", "rooms/*"], NOW));
    assert!(!is(&["rooms/8", "rooms/7/typing"], NOW));
    assert!(!is(&["rooms/7"], NOW + 1));
    assert!(!is(&[], NOW));
}

#[test]
fn a_key_stays_revoked_until_it_is_explicitly_forgotten() {
    let key = KeyId::from_bytes([7; 8]);
    let mut revocations = revoked(&[(Revoked::Key(key), NOW)]);
    let with_key = Issued::new(None, Some(key), at(NOW + 50));
    assert!(revocations.is_revoked(with_key, &[], at(NOW + 100)));
    revocations.prune(at(NOW + 1_000 * DAY));
    assert!(revocations.is_revoked(with_key, &[], at(NOW + 1_000 * DAY)));
    revocations.forget_key(key);
    assert!(!revocations.is_revoked(with_key, &[], now()));
}

#[test]
fn the_later_of_two_revocations_counts() {
    let mut revocations = revoked(&[(of("ada"), NOW + 10), (of("ada"), NOW)]);
    let ada = client("ada");
    assert!(revocations.is_revoked(issued(&ada, NOW + 10), &[], at(NOW + 100)));
    add(&mut revocations, of("ada"), NOW + 20);
    assert!(revocations.is_revoked(issued(&ada, NOW + 20), &[], at(NOW + 100)));
    assert_eq!(revocations.len(), 1);
}

#[test]
fn a_revocation_is_kept_as_long_as_a_token_may_live() {
    let mut revocations = revoked(&[(of("ada"), NOW)]);
    // A token lives for at most a day. Clocks may differ by 30 s at the start of the token's life,
    // and by 30 s at its end.
    let last = NOW + DAY + 60;
    revocations.prune(at(last));
    assert_eq!(revocations.len(), 1);
    revocations.prune(at(last + 1));
    assert_eq!((revocations.len(), revocations.floor()), (0, Some(now())));
}

#[test]
fn a_revoked_token_is_never_accepted_again() {
    let mut revocations = revoked(&[(of("ada"), NOW)]);
    let tokens = hmac_tokens();
    let token = hs256(&format!(r#"{{"sub":"ada","iat":{NOW},"exp":{}}}"#, NOW + 30 * DAY));
    for later in [0, 1, DAY - 1, DAY, DAY + 29, DAY + 30, DAY + 60, DAY + 61, 29 * DAY] {
        let time = at(NOW + later);
        revocations.prune(time);
        let is_accepted = tokens.verify(&token, time).is_ok_and(|token| {
            let issued = Issued::new(token.grant.client(), Some(token.key), token.issued_at);
            !revocations.is_revoked(issued, &[], time)
        });
        assert!(!is_accepted, "the token was accepted {later} s after its revocation");
    }
}

#[test]
fn above_the_limit_the_oldest_revocation_is_forgotten_and_its_time_becomes_the_floor() {
    let mut revocations = Revocations::with_entries_max(Duration::from_secs(DAY), 2);
    add(&mut revocations, of("ada"), NOW);
    add(&mut revocations, of("bob"), NOW + 10);
    assert_eq!((revocations.len(), revocations.floor()), (2, None));
    add(&mut revocations, of("cy"), NOW + 20);
    assert_eq!((revocations.len(), revocations.floor()), (2, Some(now())));
    let (ada, eve) = (client("ada"), client("eve"));
    let is = |who, moment| revocations.is_revoked(issued(who, moment), &[], at(NOW + 100));
    assert!(is(&ada, NOW));
    assert!(is(&eve, NOW), "the floor must apply to every client");
    assert!(!is(&eve, NOW + 1));
    revocations.prune(at(NOW + 2 * DAY));
    assert_eq!((revocations.len(), revocations.floor()), (0, Some(at(NOW + 20))));
}

#[test]
fn the_default_limit_of_revocations_applies() {
    let mut revocations = Revocations::default();
    for n in 0..REVOCATIONS_MAX {
        add(&mut revocations, of(&n.to_string()), NOW);
    }
    assert_eq!((revocations.len(), revocations.floor()), (REVOCATIONS_MAX, None));
    add(&mut revocations, of("one more"), NOW + 1);
    assert_eq!((revocations.len(), revocations.floor()), (REVOCATIONS_MAX, Some(now())));
}

/// A user may revoke its own topics. Even if a user revokes more topics than the list can hold, the
/// credentials of other users must stay valid.
#[test]
fn a_client_with_too_many_revoked_topics_is_revoked_as_a_whole() {
    // Room for all topics of Ada, for Ada as a whole client, and for Bob.
    const ENTRIES_MAX: usize = REVOKED_TOPICS_PER_CLIENT_MAX + 2;
    let mut revocations = Revocations::with_entries_max(Duration::from_secs(DAY), ENTRIES_MAX);
    let (ada, bob) = (client("ada"), client("bob"));
    let room = |n: usize| Revoked::Topic(ada.clone(), selector(&format!("rooms/{n}")));
    let is = |revocations: &Revocations, who, moment| {
        revocations.is_revoked(issued(who, moment), &[], at(NOW + 100))
    };
    add(&mut revocations, of("bob"), NOW);
    for n in (0..REVOKED_TOPICS_PER_CLIENT_MAX).chain([0]) {
        add(&mut revocations, room(n), NOW + 20);
    }
    assert_eq!((revocations.len(), revocations.floor()), (ENTRIES_MAX - 1, None));
    assert!(!is(&revocations, &ada, NOW + 10));
    add(&mut revocations, room(REVOKED_TOPICS_PER_CLIENT_MAX), NOW + 15);
    assert_eq!((revocations.len(), revocations.floor()), (2, None));
    assert!(is(&revocations, &ada, NOW + 20) && !is(&revocations, &ada, NOW + 21));
    for n in 0..ENTRIES_MAX * 3 {
        add(&mut revocations, room(n), NOW + 30);
    }
    assert_eq!(revocations.floor(), None);
    assert!(is(&revocations, &bob, NOW) && !is(&revocations, &bob, NOW + 1));
}

#[test]
fn revoked_keys_above_the_limit_are_refused() {
    let mut revocations = Revocations::default();
    let key = |n: usize| {
        let revoked = Revoked::Key(KeyId::from_bytes((n as u64).to_be_bytes()));
        Revocation { revoked, at: now() }
    };
    (0..REVOKED_KEYS_MAX).for_each(|n| revocations.revoke(key(n), now()).unwrap());
    let error = RevokedKeysFull { keys_max: REVOKED_KEYS_MAX };
    assert_eq!(revocations.revoke(key(REVOKED_KEYS_MAX), now()), Err(error));
    assert_eq!(
        revocations.revoke(key(0), now()),
        Ok(()),
        "a key that is already revoked needs no room"
    );
}

#[test]
fn every_kind_of_revocation_can_be_stored_and_read_again() {
    let mut before = Revocations::with_entries_max(Duration::from_secs(DAY), 3);
    let room = Revoked::Topic(client("a*{b}"), selector("rooms/{x}/*"));
    for (n, revoked) in
        [of("old"), of("ada"), room, Revoked::Key(KeyId::from_bytes([9; 8])), of("bob")]
            .into_iter()
            .enumerate()
    {
        add(&mut before, revoked, NOW + n as u64);
    }
    let kept: Vec<Vec<u8>> = before.entries().map(|entry| entry.to_bytes()).collect();
    assert_eq!(kept.len(), 5, "three entries for clients, one key and one floor are expected");
    let mut after = Revocations::with_entries_max(Duration::from_secs(DAY), 3);
    for bytes in &kept {
        after.revoke(Revocation::from_bytes(bytes).unwrap(), at(NOW + 10)).unwrap();
    }
    let entries = |revocations: &Revocations| revocations.entries().collect::<Vec<_>>();
    assert_eq!(entries(&after), entries(&before));
}

#[test]
fn bytes_that_are_not_a_revocation_are_refused() {
    let entry = |revoked| Revocation { revoked, at: Timestamp::from_millis(1) }.to_bytes();
    let ada = entry(of("ada"));
    assert_eq!(Revocation::from_bytes(&ada[..8]), None);
    assert_eq!(
        Revocation::from_bytes(&ada[..9]),
        None,
        "a revocation with an empty client name was accepted"
    );
    assert_eq!(Revocation::from_bytes(&[&[9], &ada[1..]].concat()), None);
    assert_eq!(Revocation::from_bytes(&[entry(Revoked::Everyone), vec![0]].concat()), None);
    assert_eq!(Revocation::from_bytes(b""), None);
}

/// In this test, a ticket lives longer than any token. The app issues the ticket before the
/// revocation.
#[test]
fn a_revoked_ticket_stays_revoked_even_if_tokens_live_for_only_a_minute() {
    let minute = Duration::from_secs(60);
    let rules = TokenRules { lifetime_max: minute, ..TokenRules::default() };
    let access = Access::new(AccessOptions {
        tokens: Some(Tokens::new(TokenKeys::new().hmac(&secret()), rules).unwrap()),
        tickets: Some(TicketKeys::new("shop", &[secret()]).unwrap()),
        ..AccessOptions::default()
    });
    let app = Verified::trusted(Grant::app(), now());
    let topics = vec![selector("orders/7")];
    let (ticket, _) = access.issue(&app, topics, Some(client("ada")), TICKET_LIFETIME_MAX).unwrap();
    access.revoke(Revocation { revoked: of("ada"), at: at(NOW + 1) }, at(NOW + 1)).unwrap();
    // A later revocation makes the server forget entries that are no longer needed.
    access.revoke(Revocation { revoked: of("bob"), at: at(NOW + 200) }, at(NOW + 200)).unwrap();
    let opened = access.verify(&Presented::new().ticket(&ticket), at(NOW + 200));
    assert_eq!(opened, Err(AccessError::Revoked));
}

/// The clock of a server may be wrong for a while, for example after the start of a machine.
#[test]
fn a_clock_that_jumps_ahead_and_back_undoes_no_revocation() {
    let mut revocations = revoked(&[(of("ada"), NOW)]);
    revocations.prune(at(NOW + 1_000 * DAY));
    let ada = client("ada");
    assert!(revocations.is_revoked(issued(&ada, NOW), &[], at(NOW + 100)));
    assert!(!revocations.is_revoked(issued(&ada, NOW + 1), &[], at(NOW + 100)));
}
