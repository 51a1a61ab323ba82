//! Revocations: rights that end before their credential does.
//!
//! A revocation of a client concerns the credentials issued until its moment. It is forgotten once
//! all of them have ended, which the longest life of a token bounds. Beyond
//! [`REVOCATIONS_MAX`] entries the oldest one becomes a floor: then every credential issued until its
//! moment counts as revoked, whatever its client. So a forgotten entry never gives a right back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use downlink_log::{ClientId, Timestamp, TopicSelector};
use thiserror::Error;

use crate::containment::overlaps;
use crate::jwt::tokens::{LEEWAY, TOKEN_LIFETIME_MAX_DEFAULT};
use crate::secret::KeyId;

/// Remembered revocations of clients and topics: about 30 MB with long names.
pub const REVOCATIONS_MAX: usize = 100_000;

/// Remembered revocations of keys. They do not end by themselves, so there is no floor for them.
pub const REVOKED_KEYS_MAX: usize = 1_000;

/// There is no place for another revoked key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{keys_max} keys are revoked already: remove the key from the configuration instead")]
pub struct RevokedKeysFull {
    /// The limit.
    pub keys_max: usize,
}

/// The subject of a revocation.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Revoked {
    /// Every credential of the client.
    Client(ClientId),
    /// The topics of the client that the selector matches.
    Topic(ClientId, TopicSelector),
    /// Every credential that the key verified, whenever it was issued.
    Key(KeyId),
    /// Every client: the floor.
    Everyone,
}

/// One revocation and its moment, for a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revocation {
    /// The subject.
    pub revoked: Revoked,
    /// Its moment.
    pub at: Timestamp,
}

/// The facts of a credential that decide whether it is revoked.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Issued<'a> {
    /// The client.
    pub client: Option<&'a ClientId>,
    /// The key that verified it.
    pub key: Option<KeyId>,
    /// When it was issued.
    pub at: Option<Timestamp>,
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
/// let issued = |seconds| Issued::new(Some(&ada), None, Some(time(seconds)));
/// assert!(revocations.is_revoked(issued(100), &[], time(200)));
/// assert!(!revocations.is_revoked(issued(101), &[], time(200)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Revocations {
    /// Invariant: `by_time` has the same entries.
    by_client: BTreeMap<(ClientId, Option<TopicSelector>), Timestamp>,
    by_time: BTreeSet<(Timestamp, ClientId, Option<TopicSelector>)>,
    keys: BTreeMap<KeyId, Timestamp>,
    floor: Option<Timestamp>,
    lifetime_max: Duration,
    entries_max: usize,
}

impl<'a> Issued<'a> {
    /// A credential of this client, verified by this key, issued at this time.
    pub const fn new(
        client: Option<&'a ClientId>,
        key: Option<KeyId>,
        at: Option<Timestamp>,
    ) -> Self {
        Self { client, key, at }
    }

    /// Whether it may have been issued at or before a moment. Without a time it may have, and a
    /// time in the future says nothing.
    fn is_until(&self, moment: Timestamp, now: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= moment || at > now.after(LEEWAY))
    }
}

impl Revocations {
    /// No revocations. Tokens live at most this long.
    pub const fn new(lifetime_max: Duration) -> Self {
        Self::with_entries_max(lifetime_max, REVOCATIONS_MAX)
    }

    /// No revocations, and a lower limit of entries.
    pub const fn with_entries_max(lifetime_max: Duration, entries_max: usize) -> Self {
        Self {
            by_client: BTreeMap::new(),
            by_time: BTreeSet::new(),
            keys: BTreeMap::new(),
            floor: None,
            lifetime_max,
            entries_max,
        }
    }

    /// Revokes at a moment, which a store may have kept since an earlier start.
    ///
    /// An earlier moment for the same entry changes nothing. Entries that are not needed any more
    /// are forgotten first.
    ///
    /// # Errors
    ///
    /// [`RevokedKeysFull`] for a key beyond [`REVOKED_KEYS_MAX`].
    ///
    /// # Limits
    ///
    /// [`REVOCATIONS_MAX`]: beyond it, the oldest entry becomes the floor.
    pub fn revoke(
        &mut self,
        Revocation { revoked, at }: Revocation,
        now: Timestamp,
    ) -> Result<(), RevokedKeysFull> {
        self.prune(now);
        match revoked {
            Revoked::Client(client) => self.add((client, None), at),
            Revoked::Topic(client, topic) => self.add((client, Some(topic)), at),
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

    /// Accepts a revoked key again, once it was removed from the configuration.
    pub fn forget_key(&mut self, key: KeyId) {
        self.keys.remove(&key);
    }

    /// Forgets the entries whose credentials have all ended.
    pub fn prune(&mut self, now: Timestamp) {
        // A credential issued at the moment is accepted for its life and the leeway.
        let lifetime_max = self.lifetime_max;
        let is_needed = |at: Timestamp| now <= at.after(lifetime_max).after(2 * LEEWAY);
        self.floor = self.floor.filter(|at| is_needed(*at));
        while let Some((at, ..)) = self.by_time.first()
            && !is_needed(*at)
        {
            self.remove_oldest();
        }
    }

    /// Whether a credential may no longer be used for these selectors.
    pub fn is_revoked(&self, issued: Issued<'_>, asked: &[TopicSelector], now: Timestamp) -> bool {
        if issued.key.is_some_and(|key| self.keys.contains_key(&key)) {
            return true;
        }
        let Some(client) = issued.client else { return false };
        if self.floor.is_some_and(|floor| issued.is_until(floor, now)) {
            return true;
        }
        let first = (client.clone(), None);
        let entries = self.by_client.range(first..).take_while(|((of, _), _)| of == client);
        entries.into_iter().any(|((_, topic), at)| {
            let concerns = |topic| asked.iter().any(|asked| overlaps(topic, asked));
            issued.is_until(*at, now) && topic.as_ref().is_none_or(concerns)
        })
    }

    /// Everything that a store must keep, to be revoked again at the next start.
    pub fn entries(&self) -> impl Iterator<Item = Revocation> + '_ {
        let clients = self.by_client.iter().map(|((client, topic), at)| {
            let client = client.clone();
            let revoked = match topic.clone() {
                Some(topic) => Revoked::Topic(client, topic),
                None => Revoked::Client(client),
            };
            Revocation { revoked, at: *at }
        });
        let keys = self.keys.iter().map(|(key, at)| (Revoked::Key(*key), *at));
        let floor = self.floor.iter().map(|at| (Revoked::Everyone, *at));
        clients.chain(keys.chain(floor).map(|(revoked, at)| Revocation { revoked, at }))
    }

    /// Remembered revocations of clients and topics.
    pub fn len(&self) -> usize {
        self.by_client.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty() && self.keys.is_empty() && self.floor.is_none()
    }

    /// The moment until which all credentials count as revoked, if entries had to be forgotten.
    pub const fn floor(&self) -> Option<Timestamp> {
        self.floor
    }

    fn add(&mut self, key: (ClientId, Option<TopicSelector>), at: Timestamp) {
        let older = self.by_client.get(&key).copied();
        if older.is_some_and(|older| older >= at) {
            return;
        }
        let (client, topic) = key.clone();
        if let Some(older) = older {
            self.by_time.remove(&(older, client.clone(), topic.clone()));
        }
        self.by_time.insert((at, client, topic));
        self.by_client.insert(key, at);
        if self.by_client.len() > self.entries_max
            && let Some(oldest) = self.remove_oldest()
        {
            self.floor = self.floor.max(Some(oldest));
        }
    }

    /// Removes the oldest entry and returns its moment.
    fn remove_oldest(&mut self) -> Option<Timestamp> {
        let (at, client, topic) = self.by_time.pop_first()?;
        self.by_client.remove(&(client, topic));
        Some(at)
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
            // No client id has a NUL.
            Revoked::Topic(client, topic) => {
                add(TOPIC, &[client.as_str().as_bytes(), b"\0", topic.as_str().as_bytes()]);
            }
            Revoked::Key(key) => add(KEY, &[key.as_bytes()]),
            Revoked::Everyone => add(EVERYONE, &[]),
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. `None` for anything else.
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
