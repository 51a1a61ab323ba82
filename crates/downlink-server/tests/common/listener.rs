//! A reader that stays connected until the test drops it. Tests of single cases use it.

use downlink_proto::{DecodedEvent, Decoder, Item};
use serde_json::Value;

use crate::{
    node::Node,
    patiently,
    socket::{Connection, Progress},
};

/// An open event stream.
pub(crate) struct Listener {
    connection: Connection,
    decoder: Decoder,
    has_ended: bool,
    /// The event `downlink.open`.
    pub(crate) opened: DecodedEvent,
}

impl Listener {
    /// Subscribes. An empty last event id is not sent. Panics if the server refuses the request.
    pub(crate) async fn open(node: &Node, query: &str, last: &str) -> Self {
        let opened = Self::try_open(node, query, last).await;
        opened.unwrap_or_else(|head| panic!("{}: {head}\n{}", node.name, node.log()))
    }

    /// Subscribes, and waits for `downlink.open`. Returns the head of the answer if the server
    /// refuses the request.
    pub(crate) async fn try_open(node: &Node, query: &str, last: &str) -> Result<Self, String> {
        patiently(async {
            let asked = Connection::ask(node.address, query, last).await;
            let mut connection = asked.expect("the server listens");
            let mut decoder = Decoder::default();
            loop {
                if let Some(opened) = next_of(&mut decoder) {
                    assert_eq!(opened.event_type, "downlink.open");
                    return Ok(Self { connection, decoder, has_ended: false, opened });
                }
                match connection.read(usize::MAX, &mut decoder).await.1 {
                    Progress::Open => {}
                    Progress::Refused(head) => return Err(head),
                    other => panic!("the stream ended before its first event: {other:?}"),
                }
            }
        })
        .await
    }

    /// The next event or gap. `None` if the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<DecodedEvent> {
        patiently(async {
            loop {
                if let Some(event) = next_of(&mut self.decoder) {
                    return Some(event);
                }
                if self.has_ended {
                    return None;
                }
                let progress = self.connection.read(usize::MAX, &mut self.decoder).await.1;
                self.has_ended = progress != Progress::Open;
            }
        })
        .await
    }

    /// The data of the next event, which must not be a gap.
    pub(crate) async fn data(&mut self) -> String {
        let event = self.next().await.expect("the stream is open");
        assert!(!event.event_type.starts_with("downlink."), "{event:?}");
        event.data
    }

    /// The next event, which must be a gap.
    pub(crate) async fn gap(&mut self) -> Gap {
        Gap::of(&self.next().await.expect("the stream is open"))
    }

    /// Everything up to the event with this data, each event and gap as text.
    pub(crate) async fn until(&mut self, data: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let event = self.next().await;
            let event = event.unwrap_or_else(|| panic!("the stream ends after {all:?}"));
            let is_last = event.data == data;
            all.push(match event.event_type.starts_with("downlink.") {
                true => format!("{:?}", Gap::of(&event)),
                false => format!("{} {}", event.last_event_id, event.data),
            });
            if is_last {
                return all;
            }
        }
    }

    /// Reads events to the end of the stream, and returns their data.
    pub(crate) async fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            rest.push(event.data);
        }
        rest
    }

    pub(crate) fn last_event_id(&self) -> &str {
        self.decoder.last_event_id()
    }
}

fn next_of(decoder: &mut Decoder) -> Option<DecodedEvent> {
    loop {
        match decoder.poll_item()? {
            Item::Event(event) if event.event_type == "downlink.alive" => {}
            Item::Event(event) => return Some(event),
            _ => {}
        }
    }
}

/// A gap notice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Gap {
    pub(crate) reason: String,
    pub(crate) after: Option<String>,
    pub(crate) until: Option<String>,
    pub(crate) oldest: Option<String>,
    /// The id of the notice.
    pub(crate) id: String,
}

impl Gap {
    fn of(event: &DecodedEvent) -> Self {
        assert_eq!(event.event_type, "downlink.gap", "{event:?}");
        let body: Value = serde_json::from_str(&event.data).expect("JSON");
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        Self {
            reason: text("reason").expect("a gap has a reason"),
            after: text("after"),
            until: text("until"),
            oldest: text("oldest"),
            id: event.last_event_id.to_string(),
        }
    }
}
