//! Opens tickets. Any text that the known key has not sealed is refused, also a sealed ticket with
//! one changed byte. A sealed ticket gives exactly the topics, the client and the end that were
//! sealed.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use downlink_access::{
    Access, AccessOptions, Grant, Presented, Secret, TICKET_BYTES_MAX, TicketKeys, Verified,
};
use downlink_log::{ClientId, Timestamp, TopicSelector};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

#[derive(Arbitrary, Debug)]
struct Contents {
    text: String,
    topics: Vec<String>,
    client: Option<String>,
    lifetime_secs: u16,
    changed_at: usize,
    changed_to: u8,
}

fuzz_target!(|contents: Contents| {
    let Contents { text, topics, client, lifetime_secs, changed_at, changed_to } = contents;
    let secret = Secret::from_file_bytes(&[b'k'; 32]).unwrap();
    let tickets = Some(TicketKeys::new("shop", &[secret]).unwrap());
    let access = Access::new(AccessOptions { tickets, ..AccessOptions::default() });
    let open = |ticket: &str| access.verify(&Presented::new().ticket(ticket), NOW);
    assert!(open(&text).is_err(), "no key has sealed this text");

    let topics: Vec<_> = topics.iter().filter_map(|text| TopicSelector::parse(text).ok()).collect();
    let client = client.and_then(|text| ClientId::new(&text).ok());
    let lifetime = Duration::from_secs(u64::from(lifetime_secs).clamp(1, 3_600));
    let app = Verified::trusted(Grant::app(), NOW);
    let issued = access.issue(&app, topics.clone(), client.clone(), lifetime);
    let Ok((ticket, end)) = issued else { return };
    assert!(ticket.len() <= TICKET_BYTES_MAX);
    let opened = open(&ticket).unwrap();
    assert_eq!(opened.grant().subscribe(), topics);
    assert_eq!(opened.grant().client(), client.as_ref());
    assert_eq!(end, NOW.after(lifetime));
    assert_eq!(opened.grant().until(), Some(end));

    let mut changed = ticket.clone().into_bytes();
    let at = changed_at % changed.len();
    changed[at] = changed_to;
    if let Ok(changed) = String::from_utf8(changed)
        && changed != ticket
    {
        assert!(open(&changed).is_err(), "this ticket was changed");
    }
});
