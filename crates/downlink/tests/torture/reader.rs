//! A reader disconnects at random bytes, resumes after its last id, and records what it receives.

use std::sync::Arc;

use downlink_proto::{DecodedEvent, Decoder, Item};
use fastrand::Rng;

use super::ledger::{Hole, Seen};
use super::patiently;
use super::wire::{Connection, Manner, Turn};
use super::world::{Selection, World};

/// The receive window of a slow reader, in bytes.
pub(crate) const NARROW: u32 = 4 << 10;

/// The behaviour of a reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// The maximum number of events that are published while the reader is disconnected.
    pub(crate) away_max: u64,
    /// The maximum number of events that are published during a pause in reading.
    pub(crate) pause_max: u64,
    pub(crate) window_bytes: Option<u32>,
    /// True if the reader requests its streams in all ways of [`Manner`]. False if it sends only
    /// plain requests.
    pub(crate) odd: bool,
}

/// One subscriber across all its connections.
#[derive(Debug)]
pub(crate) struct Reader {
    name: String,
    pub(crate) selection: Selection,
    habits: Habits,
    rng: Rng,
    decoder: Decoder,
    /// The events and gaps that the reader received. There is one record for each epoch of the hub.
    pub(crate) lives: Vec<Life>,
    /// True if the last event was a `downlink.open` without an id. The hub sends such an event only
    /// before a gap, so the next event must be a `downlink.gap`.
    owed_a_gap: bool,
    pub(crate) connections: usize,
    /// The number of connections that ended in the middle of a frame.
    pub(crate) cut_frames: usize,
}

/// Everything that a reader received in one epoch.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) epoch: String,
    pub(crate) seen: Seen,
    /// The offset in the last id that the reader received.
    position: u64,
}

impl Reader {
    pub(crate) fn new(name: String, selection: Selection, habits: Habits, rng: Rng) -> Self {
        let (decoder, lives) = (Decoder::default(), Vec::new());
        let (connections, cut_frames, owed_a_gap) = (0, 0, false);
        Self { name, selection, habits, rng, decoder, lives, owed_a_gap, connections, cut_frames }
    }

    /// Connects and disconnects until the test's last event is published. Then connects once more,
    /// and reads up to the last event. Returns the last connection, which is still open.
    pub(crate) async fn run(mut self, world: Arc<World>) -> (Self, Connection) {
        while world.last().is_none() {
            self.visit(&world).await;
            let away = self.rng.u64(0..=self.habits.away_max);
            world.published_more(away).await;
        }
        let connection = patiently(self.catch_up(&world)).await;
        (self, connection)
    }

    /// Connects, and reads up to the test's last event. The reader reconnects only if the
    /// connection breaks.
    pub(crate) async fn stay(mut self, world: Arc<World>) -> (Self, Connection) {
        let connection = patiently(self.catch_up(&world)).await;
        (self, connection)
    }

    /// Reads from one connection up to a random byte.
    async fn visit(&mut self, world: &World) {
        let mut left = match self.rng.u8(0..10) {
            0..3 => self.rng.usize(0..1_000),
            3..9 => self.rng.usize(0..50_000),
            _ => usize::MAX,
        };
        let Some(mut connection) = self.connect(world).await else { return };
        while left > 0 {
            if self.rng.u8(0..64) == 0 {
                world.published_more(self.rng.u64(0..=self.habits.pause_max)).await;
            }
            let (read, turn) = tokio::select! {
                read = connection.read(left, &mut self.decoder) => read,
                () = world.over() => break,
            };
            self.take_items(world);
            if turn != Turn::Open {
                break;
            }
            left -= read;
        }
        self.cut_frames += usize::from(!connection.is_between_frames());
        self.decoder.handle_end();
    }

    async fn catch_up(&mut self, world: &World) -> Connection {
        loop {
            let Some(mut connection) = self.connect(world).await else { continue };
            let mut turn = Turn::Open;
            // The test stops the server when every reader is done. A reader may have the last event
            // before it connects. It still waits until its stream has begun. Otherwise the server
            // could stop first, and would refuse the request of this reader.
            while turn == Turn::Open && !(connection.has_begun() && self.is_done(world)) {
                turn = connection.read(usize::MAX, &mut self.decoder).await.1;
                self.take_items(world);
            }
            self.decoder.handle_end();
            if turn == Turn::Open {
                return connection;
            }
        }
    }

    async fn connect(&mut self, world: &World) -> Option<Connection> {
        self.owed_a_gap = false;
        let last_event_id = self.decoder.last_event_id();
        let (query, window) = (&self.selection.query, self.habits.window_bytes);
        let manner = if self.habits.odd { self.rng.choice(Manner::ALL)? } else { Manner::Plain };
        let asking = Connection::ask(&world.place, query, last_event_id, window, manner);
        let connection = patiently(asking).await.ok()?;
        // On a busy machine, `ask` may fail before the server has accepted the connection. Only a
        // connection that did not fail counts.
        self.connections += 1;
        Some(connection)
    }

    /// Whether the reader has received the test's last event, or a later id.
    fn is_done(&self, world: &World) -> bool {
        let position = self.lives.last().map(|life| life.position);
        world.last().is_some_and(|last| position >= Some(last))
    }

    fn take_items(&mut self, world: &World) {
        while let Some(item) = self.decoder.poll_item() {
            if let Item::Event(event) = item {
                self.take(&event, world);
            }
        }
    }

    fn take(&mut self, event: &DecodedEvent, world: &World) {
        let owed_a_gap = std::mem::take(&mut self.owed_a_gap);
        let is_gap = event.event_type == "downlink.gap";
        assert!(
            is_gap || !owed_a_gap,
            "{}: a downlink.gap must follow a downlink.open without an id, not {event:?}",
            self.name
        );
        match &*event.event_type {
            "downlink.open" if !event.has_own_id => {
                assert!(
                    !self.lives.is_empty(),
                    "{}: a reader that connects without an id must get an id in downlink.open",
                    self.name
                );
                self.owed_a_gap = true;
            }
            "downlink.open" if self.lives.is_empty() => {
                let (_, since) = split(&event.last_event_id);
                self.begin(event, since, world);
            }
            "downlink.open" | "downlink.alive" => {
                if event.has_own_id {
                    self.move_to(event);
                }
            }
            "downlink.gap" => self.take_gap(event, world),
            "message" => {
                let offset = self.move_to(event);
                let number = event.data.split_whitespace().next().unwrap().parse().unwrap();
                self.lives.last_mut().unwrap().seen.events.push((offset, number));
            }
            other => panic!("{}: no event of the type {other} was published", self.name),
        }
    }

    /// Begins the record of another epoch. From then on, the reader must get all of its events with
    /// an offset above `since`.
    fn begin(&mut self, event: &DecodedEvent, since: u64, world: &World) {
        let (epoch, position) = split(&event.last_event_id);
        let seen = Seen { since, ..Seen::default() };
        self.lives.push(Life { epoch: epoch.to_owned(), seen, position });
        world.note_arrival();
    }

    fn take_gap(&mut self, event: &DecodedEvent, world: &World) {
        let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        let (after, reason) = (gap["after"].as_str().unwrap(), gap["reason"].as_str().unwrap());
        let (epoch, after) = split(after);
        let life = self.lives.last_mut().expect("a reader gets a gap only if it already has an id");
        assert_eq!(epoch, life.epoch, "{}: {event:?}", self.name);
        match reason {
            "evicted" | "lagged" => {
                let until = split(gap["until"].as_str().unwrap()).1;
                let events_before = life.seen.events.len();
                life.seen.holes.push(Hole { after, until, events_before });
                self.move_to(event);
            }
            "new_epoch" => {
                assert_ne!(split(&event.last_event_id).0, life.epoch, "{}: {gap}", self.name);
                self.begin(event, 0, world);
            }
            _ => panic!("{}: an unexpected gap: {gap}", self.name),
        }
    }

    /// Moves the reader to the id of this event, and returns the offset in the id. The id must be
    /// of the current epoch, and the offset must not decrease.
    fn move_to(&mut self, event: &DecodedEvent) -> u64 {
        let (epoch, offset) = split(&event.last_event_id);
        let life = self.lives.last_mut().expect("the first event of a reader is downlink.open");
        assert_eq!(epoch, life.epoch, "{}: {event:?}", self.name);
        assert!(
            offset >= life.position,
            "{}: the id of an event is before offset {}: {event:?}",
            self.name,
            life.position
        );
        life.position = offset;
        offset
    }

    pub(crate) fn holes(&self) -> usize {
        self.lives.iter().map(|life| life.seen.holes.len()).sum()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Splits an id that the hub has made into the epoch and the offset.
fn split(id: &str) -> (&str, u64) {
    let (epoch, offset) = id.split_once('-').expect("an id of the hub contains a dash");
    (epoch, offset.parse().expect("an id of the hub ends with an offset"))
}
