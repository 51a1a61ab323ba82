//! Presence: the users in each room. A user is in a room as long as at least one of the user's
//! streams of this room is open. A user with two tabs counts as one user.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use downlink::Hub;
use serde::Serialize;

use crate::{RoomEvent, access::topic};

/// The users in a room.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct People {
    /// The version of the list. It increases with each change, so a reader can tell which of two
    /// lists is newer.
    pub version: u64,
    /// The users, sorted by name.
    pub people: Vec<String>,
}

/// A user has joined or left a room.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PresenceEvent {
    /// The user.
    pub user: String,
    /// Whether the user has joined.
    pub came: bool,
    /// The users in the room after the change.
    #[serde(flatten)]
    pub now: People,
}

#[derive(Default)]
struct Table {
    /// For each room and each user in it, the number of the user's streams. Invariant: no room in
    /// the map is empty, and no number is 0.
    streams: HashMap<String, BTreeMap<String, usize>>,
    version: u64,
}

impl Table {
    fn people(&self, room: &str) -> People {
        let streams = self.streams.get(room);
        let people = streams.map(|users| users.keys().cloned().collect()).unwrap_or_default();
        People { version: self.version, people }
    }
}

/// The users in all rooms. Clones share the same users.
///
/// The lock is held for one read or change, and never across an await or a publish. No other lock
/// is taken while it is held.
#[derive(Clone)]
pub(crate) struct Presence {
    table: Arc<Mutex<Table>>,
    hub: Hub<RoomEvent>,
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence")
            .field("rooms", &self.lock().streams.len())
            .finish_non_exhaustive()
    }
}

impl Presence {
    pub(crate) fn new(hub: Hub<RoomEvent>) -> Self {
        Self { table: Arc::default(), hub }
    }

    pub(crate) fn people(&self, room: &str) -> People {
        self.lock().people(room)
    }

    /// Counts one stream of a user in a room. The stream counts until the returned guard is
    /// dropped.
    pub(crate) fn enter(&self, room: &str, user: &str) -> Here {
        let here = Here { presence: self.clone(), room: room.into(), user: user.into() };
        let mut table = self.lock();
        let users = table.streams.entry(room.into()).or_default();
        let streams = users.entry(user.into()).or_default();
        *streams += 1;
        let is_first = *streams == 1;
        if is_first {
            table.version += 1;
        }
        let now = table.people(room);
        drop(table);
        if is_first {
            here.tell(true, now);
        }
        here
    }

    fn leave(&self, room: &str, user: &str) -> Option<People> {
        let mut table = self.lock();
        let users = table.streams.get_mut(room)?;
        let streams = users.get_mut(user)?;
        *streams -= 1;
        if *streams > 0 {
            return None;
        }
        users.remove(user);
        if users.is_empty() {
            table.streams.remove(room);
        }
        table.version += 1;
        Some(table.people(room))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The guard of one stream of a user in a room. While it exists, the stream counts.
pub(crate) struct Here {
    presence: Presence,
    room: String,
    user: String,
}

impl Here {
    /// Publishes the change to the room. A closed hub has no readers, so the error is ignored.
    fn tell(&self, came: bool, now: People) {
        let event = PresenceEvent { user: self.user.clone(), came, now };
        let publish = self.presence.hub.to_segments(topic(&self.room)).event("presence");
        let _closed = publish.publish(RoomEvent::Presence(event));
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(now) = self.presence.leave(&self.room, &self.user) {
            self.tell(false, now);
        }
    }
}
