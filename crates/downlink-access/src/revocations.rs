//! Revocations, which end credentials early.
//!
//! A revocation of a client ends the credentials that were issued to this client at or before the
//! moment of the revocation. The server forgets a revocation after the longest life of a token. If
//! there are more than [`REVOCATIONS_MAX`], it also forgets the oldest one.
//!
//! The server keeps the latest moment of all forgotten revocations. This moment is the floor. A
//! credential of any client counts as revoked if it was issued at or before the floor. So a revoked
//! credential never becomes valid again, even if the clock of the server was wrong when the server
//! forgot the revocation.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::time::Duration;

use downlink_log::{ClientId, Timestamp, TopicSelector};
use thiserror::Error;

use crate::containment::overlaps;
use crate::jwt::tokens::{LEEWAY, TOKEN_LIFETIME_MAX_DEFAULT, Tokens};
use crate::secret::KeyId;

/// The maximum number of remembered revocations of clients and topics. With client ids of 36 bytes
/// they take about 20 MB, and with the longest names about 100 MB.
pub const REVOCATIONS_MAX: usize = 100_000;

/// The maximum number of topics for which the rights of one client are revoked. With a further
/// topic, all credentials of the client are revoked instead. Without this limit, a user who may
/// revoke its own rights could fill the list with topics. The server would then forget older
/// revocations, and the floor would rise. Every other client would lose the credentials that were
/// issued at or before the floor.
pub const REVOKED_TOPICS_PER_CLIENT_MAX: usize = 256;

/// The maximum number of revoked keys. A key does not expire, so its revocation cannot be
/// forgotten.
pub const REVOKED_KEYS_MAX: usize = 1_000;

/// Too many keys are revoked.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{keys_max} keys are revoked already: remove the key from the configuration instead")]
pub struct RevokedKeysFull {
    /// The limit.
    pub keys_max: usize,
}

/// The rights that a revocation ends.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Revoked {
    // This variant is the first one, because the searches for the entries of a client begin at it.
    /// The credentials of every client. A store keeps the floor as a revocation of this kind.
    Everyone,
    /// The credentials of this client.
    Client(ClientId),
    /// The rights of this client to subscribe and to publish to the topics that the selector
    /// matches.
    Topic(ClientId, TopicSelector),
    /// Every credential that this key verified, and every ticket that it sealed, whenever they were
    /// issued.
    Key(KeyId),
}

/// One revocation, as a store keeps it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revocation {
    /// The rights that this revocation ends.
    pub revoked: Revoked,
    /// The time of the revocation. Credentials that are issued later are revoked only if `revoked`
    /// is a key.
    pub at: Timestamp,
}

/// Eight bytes of a hash of a client id. An open stream keeps them instead of the id, to save
/// memory.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct ClientTag(NonZero<u64>);

impl ClientTag {
    pub(crate) fn of(client: &ClientId) -> Self {
        let hash = KeyId::of("client", client.as_str().as_bytes());
        let number = u64::from_be_bytes(*hash.as_bytes());
        Self(NonZero::new(number).unwrap_or(NonZero::<u64>::MAX))
    }
}

/// The facts of a credential that decide whether it is revoked.
#[derive(Clone, Copy, Debug)]
pub struct Issued {
    pub(crate) client: Option<ClientTag>,
    /// The key that verified the credential. For a ticket, also the ticket key that sealed it.
    pub(crate) keys: [Option<KeyId>; 2],
    pub(crate) at: Timestamp,
}

impl Issued {
    /// A credential of this client, verified by this key, issued at this time.
    pub fn new(client: Option<&ClientId>, key: Option<KeyId>, at: Timestamp) -> Self {
        Self { client: client.map(ClientTag::of), keys: [key, None], at }
    }

    /// Whether the credential may have been issued at or before the moment. The answer is also true
    /// if the time of issue is in the future: some clock is wrong then, so the real time of issue
    /// is unknown.
    fn is_until(&self, moment: Timestamp, now: Timestamp) -> bool {
        self.at <= moment || self.at > now.after(LEEWAY)
    }
}

/// The remembered revocations.
///
/// ```
/// use downlink_access::{Issued, Revocation, Revocations, Revoked};
/// use downlink_log::{ClientId, Timestamp};
/// let time = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
/// let ada = ClientId::new("ada")?;
/// let mut revocations = Revocations::default();
/// let revocation = Revocation { revoked: Revoked::Client(ada.clone()), at: time(100) };
/// revocations.revoke(revocation, time(100))?;
/// let issued = |seconds| Issued::new(Some(&ada), None, time(seconds));
/// assert!(revocations.is_revoked(issued(100), &[], time(200)));
/// assert!(!revocations.is_revoked(issued(101), &[], time(200)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Revocations {
    /// The entries for clients and topics.
    /// Invariant: `by_time` has the same entries.
    by_client: BTreeMap<(ClientTag, Revoked), Timestamp>,
    by_time: BTreeSet<(Timestamp, ClientTag, Revoked)>,
    keys: BTreeMap<KeyId, Timestamp>,
    floor: Option<Timestamp>,
    lifetime_max: Duration,
    entries_max: usize,
}

impl Revocations {
    /// Makes an empty list, for tokens that live at most this long.
    ///
    /// Revocations are remembered for at least [`TOKEN_LIFETIME_MAX_DEFAULT`], because a ticket may
    /// live longer than a token.
    pub fn new(lifetime_max: Duration) -> Self {
        Self::with_entries_max(lifetime_max, REVOCATIONS_MAX)
    }

    /// Makes an empty list that has at most `entries_max` entries for clients and topics.
    pub fn with_entries_max(lifetime_max: Duration, entries_max: usize) -> Self {
        Self {
            by_client: BTreeMap::new(),
            by_time: BTreeSet::new(),
            keys: BTreeMap::new(),
            floor: None,
            lifetime_max: lifetime_max.max(TOKEN_LIFETIME_MAX_DEFAULT),
            entries_max,
        }
    }

    /// Remembers revocations at least for the longest life of these tokens. A shorter life than
    /// before changes nothing, because tokens with a longer life may still be in use.
    pub(crate) fn remember_for(&mut self, tokens: Option<&Tokens>) {
        self.lifetime_max =
            tokens.map_or(self.lifetime_max, |tokens| tokens.lifetime_max().max(self.lifetime_max));
    }

    /// Adds a revocation. Its moment (`at`) may be earlier than `now`, for example if the
    /// revocation comes from a store.
    ///
    /// If the same entry already has a later moment, nothing changes. Entries that are no longer
    /// needed are forgotten first.
    ///
    /// # Errors
    ///
    /// [`RevokedKeysFull`] for a key beyond [`REVOKED_KEYS_MAX`].
    ///
    /// # Limits
    ///
    /// Beyond [`REVOCATIONS_MAX`] entries, the oldest one is forgotten and its moment becomes the
    /// floor. Beyond [`REVOKED_TOPICS_PER_CLIENT_MAX`] topics of a client, the whole client is
    /// revoked.
    pub fn revoke(
        &mut self,
        Revocation { revoked, at }: Revocation,
        now: Timestamp,
    ) -> Result<(), RevokedKeysFull> {
        self.prune(now);
        match revoked {
            Revoked::Client(ref client) => self.add((ClientTag::of(client), revoked), at),
            Revoked::Topic(ref client, _) => {
                let entry = (ClientTag::of(client), revoked.clone());
                let topics = self.topics(entry.0);
                if topics.len() < REVOKED_TOPICS_PER_CLIENT_MAX || topics.contains_key(&entry) {
                    self.add(entry, at);
                } else {
                    self.revoke_whole(client.clone(), topics, at);
                }
            }
            Revoked::Everyone => self.floor = self.floor.max(Some(at)),
            Revoked::Key(key) => {
                if self.keys.len() >= REVOKED_KEYS_MAX && !self.keys.contains_key(&key) {
                    return Err(RevokedKeysFull { keys_max: REVOKED_KEYS_MAX });
                }
                let moment = self.keys.entry(key).or_insert(at);
                *moment = at.max(*moment);
            }
        }
        Ok(())
    }

    /// Removes the revocation of a key. The key then needs no place in the list of revoked keys,
    /// which has a limit. First remove the key from the configuration. If the configuration still
    /// has the key, it becomes valid again.
    pub fn forget_key(&mut self, key: KeyId) {
        self.keys.remove(&key);
    }

    /// Forgets the entries whose credentials have all ended.
    pub fn prune(&mut self, now: Timestamp) {
        // The clocks of an issuer and of this server may each be wrong by the leeway.
        let remembered_for = self.lifetime_max.saturating_add(2 * LEEWAY);
        while let Some((at, ..)) = self.by_time.first()
            && at.after(remembered_for) < now
        {
            self.forget_oldest();
        }
    }

    /// Whether a credential may no longer be used for these topics.
    pub fn is_revoked(&self, issued: Issued, asked: &[TopicSelector], now: Timestamp) -> bool {
        if issued.keys.iter().flatten().any(|key| self.keys.contains_key(key)) {
            return true;
        }
        let Some(client) = issued.client else { return false };
        if self.floor.is_some_and(|floor| issued.is_until(floor, now)) {
            return true;
        }
        let concerns = |revoked: &Revoked| match revoked {
            Revoked::Topic(_, topic) => asked.iter().any(|asked| overlaps(topic, asked)),
            _ => true,
        };
        self.by_client
            .range((client, Revoked::Everyone)..)
            .take_while(|((of, _), _)| *of == client)
            .any(|((_, revoked), at)| issued.is_until(*at, now) && concerns(revoked))
    }

    /// Whether this revocation is known, or a later revocation of the same rights.
    pub fn holds(&self, Revocation { revoked, at }: &Revocation) -> bool {
        let known = match revoked {
            Revoked::Client(client) | Revoked::Topic(client, _) => {
                let entry = (ClientTag::of(client), revoked.clone());
                self.by_client.get(&entry).copied().max(self.floor)
            }
            Revoked::Everyone => self.floor,
            Revoked::Key(key) => self.keys.get(key).copied(),
        };
        known >= Some(*at)
    }

    /// Everything that a store must keep. At its next start, the server has to revoke each entry
    /// again.
    pub fn entries(&self) -> impl Iterator<Item = Revocation> + '_ {
        let clients = self.by_client.iter().map(|((_, revoked), at)| (revoked.clone(), *at));
        let keys = self.keys.iter().map(|(key, at)| (Revoked::Key(*key), *at));
        let floor = self.floor.iter().map(|at| (Revoked::Everyone, *at));
        clients.chain(keys).chain(floor).map(|(revoked, at)| Revocation { revoked, at })
    }

    /// The number of remembered revocations of clients and topics.
    pub fn len(&self) -> usize {
        self.by_client.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty() && self.keys.is_empty() && self.floor.is_none()
    }

    /// The latest moment of a forgotten entry. `None` if no entry was forgotten.
    pub const fn floor(&self) -> Option<Timestamp> {
        self.floor
    }

    /// The topics for which the rights of a client are revoked.
    fn topics(&self, client: ClientTag) -> BTreeMap<(ClientTag, Revoked), Timestamp> {
        let entries = self.by_client.range((client, Revoked::Everyone)..);
        let entries = entries.take_while(|((of, _), _)| *of == client);
        let topics = entries.filter(|((_, revoked), _)| matches!(revoked, Revoked::Topic(..)));
        topics.map(|(entry, at)| (entry.clone(), *at)).collect()
    }

    /// Revokes a whole client, and removes the entries for its topics.
    fn revoke_whole(
        &mut self,
        client: ClientId,
        topics: BTreeMap<(ClientTag, Revoked), Timestamp>,
        at: Timestamp,
    ) {
        let latest = topics.values().copied().fold(at, Timestamp::max);
        for (entry, at) in topics {
            self.by_client.remove(&entry);
            self.by_time.remove(&(at, entry.0, entry.1));
        }
        self.add((ClientTag::of(&client), Revoked::Client(client)), latest);
    }

    fn add(&mut self, entry: (ClientTag, Revoked), at: Timestamp) {
        let older = self.by_client.get(&entry).copied();
        if older.is_some_and(|older| older >= at) {
            return;
        }
        let (tag, revoked) = entry.clone();
        if let Some(older) = older {
            self.by_time.remove(&(older, tag, revoked.clone()));
        }
        self.by_time.insert((at, tag, revoked));
        self.by_client.insert(entry, at);
        if self.by_client.len() > self.entries_max {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((at, tag, revoked)) = self.by_time.pop_first() {
            self.by_client.remove(&(tag, revoked));
            self.floor = self.floor.max(Some(at));
        }
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new(TOKEN_LIFETIME_MAX_DEFAULT)
    }
}

const CLIENT: u8 = 1;
const TOPIC: u8 = 2;
const KEY: u8 = 3;
const EVERYONE: u8 = 4;

impl Revocation {
    /// The bytes for a store: a kind, the moment, and the names.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut add = |kind: u8, parts: &[&[u8]]| {
            bytes.push(kind);
            bytes.extend(self.at.as_millis().to_be_bytes());
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        };
        match &self.revoked {
            Revoked::Client(client) => add(CLIENT, &[client.as_str().as_bytes()]),
            // A NUL separates the two names, because no client id contains a NUL.
            Revoked::Topic(client, topic) => {
                add(TOPIC, &[client.as_str().as_bytes(), b"\0", topic.as_str().as_bytes()]);
            }
            Revoked::Key(key) => add(KEY, &[key.as_bytes()]),
            Revoked::Everyone => add(EVERYONE, &[]),
        }
        bytes
    }

    /// Reads the bytes that [`to_bytes`](Self::to_bytes) wrote. `None` for any other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (at, rest) = rest.split_first_chunk()?;
        let at = Timestamp::from_millis(u64::from_be_bytes(*at));
        let text = || std::str::from_utf8(rest).ok();
        let revoked = match *kind {
            CLIENT => Revoked::Client(ClientId::new(text()?).ok()?),
            TOPIC => {
                let (client, topic) = text()?.split_once('\0')?;
                Revoked::Topic(ClientId::new(client).ok()?, TopicSelector::parse(topic).ok()?)
            }
            KEY => Revoked::Key(KeyId::from_bytes(rest.try_into().ok()?)),
            EVERYONE if rest.is_empty() => Revoked::Everyone,
            _ => return None,
        };
        Some(Self { revoked, at })
    }
}
