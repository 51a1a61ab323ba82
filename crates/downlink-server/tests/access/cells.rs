//! The requests of the tables in `docs/ACCESS.md`. Each row of a table is an endpoint, and each
//! column is a credential.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::{
    credentials::{
        self, Credentials, EVE, Signer, Tickets, claims, of_a_user, operator_but, tampered,
    },
    request::Request,
};

/// The origin of pages that may use the servers of the table.
pub(crate) const PAGE: &str = "https://app.example";

/// A row of each table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Endpoint {
    Subscribe,
    SubscribeWithTicket,
    Publish,
    PublishBatch,
    PublishStream,
    Tickets,
    Revoke,
    Finish,
    Topics,
    Clients,
    Disconnect,
    Metrics,
    Follow,
    FollowEnd,
    Page,
    Module,
    Healthz,
    Readyz,
    Preflight,
}

/// The rows in the order of the tables.
pub(crate) const ENDPOINTS: [(&str, Endpoint); 19] = [
    ("GET /events", Endpoint::Subscribe),
    ("GET /events?ticket=", Endpoint::SubscribeWithTicket),
    ("POST /events", Endpoint::Publish),
    ("POST /events/batch", Endpoint::PublishBatch),
    ("POST /events (stream)", Endpoint::PublishStream),
    ("POST /tickets", Endpoint::Tickets),
    ("POST /revoke", Endpoint::Revoke),
    ("POST /finish", Endpoint::Finish),
    ("GET /topics", Endpoint::Topics),
    ("GET /clients", Endpoint::Clients),
    ("DELETE /clients", Endpoint::Disconnect),
    ("GET /metrics", Endpoint::Metrics),
    ("GET /follow", Endpoint::Follow),
    ("GET /follow/end", Endpoint::FollowEnd),
    ("GET /", Endpoint::Page),
    ("GET /downlink.js", Endpoint::Module),
    ("GET /healthz", Endpoint::Healthz),
    ("GET /readyz", Endpoint::Readyz),
    ("OPTIONS /events", Endpoint::Preflight),
];

/// A column of each table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Credential {
    Nothing,
    UnknownKey,
    BadSignature,
    WrongAlgorithm,
    AlgorithmNone,
    PublicKeyAsSecret,
    Expired,
    Early,
    WrongAudience,
    WrongIssuer,
    Revoked,
    OtherClient,
    OtherTopic,
    Right,
}

/// The columns in the order of the tables.
pub(crate) const CREDENTIALS: [(&str, Credential); 14] = [
    ("none", Credential::Nothing),
    ("unknown key", Credential::UnknownKey),
    ("bad signature", Credential::BadSignature),
    ("wrong algorithm", Credential::WrongAlgorithm),
    ("alg: none", Credential::AlgorithmNone),
    ("public key as secret", Credential::PublicKeyAsSecret),
    ("expired", Credential::Expired),
    ("not yet valid", Credential::Early),
    ("wrong audience", Credential::WrongAudience),
    ("wrong issuer", Credential::WrongIssuer),
    ("revoked", Credential::Revoked),
    ("other client", Credential::OtherClient),
    ("other topic", Credential::OtherTopic),
    ("right", Credential::Right),
];

impl Endpoint {
    /// Whether the request needs the rights of an operator.
    fn is_for_operators(self) -> bool {
        matches!(self, Self::Clients | Self::Metrics | Self::Follow | Self::FollowEnd | Self::Page)
    }

    /// The request without a credential. It names this client and this topic if the endpoint takes
    /// them.
    fn request(self, client: &str, topic: &str, is_other_client: bool) -> Request {
        // An ordinary token has no right to publish to a client. So a publish names the client only
        // in the column "other client".
        let to = if is_other_client { format!("&client={client}") } else { String::new() };
        match self {
            Self::Subscribe => Request::get(format!("/events?topic={topic}&client={client}")),
            Self::SubscribeWithTicket => unreachable!("a ticket is not a header"),
            Self::Publish => Request::post(format!("/events?topic={topic}{to}"), "hello"),
            Self::PublishBatch => {
                let client = if is_other_client { Value::from(client) } else { Value::Null };
                let line = serde_json::json!({ "topic": topic, "client": client, "data": 1 });
                Request::post("/events/batch", format!("{line}\n"))
            }
            Self::PublishStream => Request::post(format!("/events?topic={topic}{to}"), "1\n")
                .header("Content-Type", "application/x-ndjson"),
            Self::Tickets => Request::post(format!("/tickets?topic={topic}&client={client}"), ""),
            Self::Revoke => Request::post(format!("/revoke?client={client}&topic={topic}"), ""),
            Self::Finish => Request::post(format!("/finish?topic={topic}"), ""),
            Self::Topics => Request::get(format!("/topics?topic={topic}")),
            Self::Clients => Request::get("/clients"),
            Self::Disconnect => Request::new("DELETE", format!("/clients?client={client}")),
            Self::Metrics => Request::get("/metrics"),
            Self::Follow => Request::get("/follow"),
            Self::FollowEnd => Request::get("/follow/end"),
            Self::Page => Request::get("/"),
            Self::Module => Request::get("/downlink.js"),
            Self::Healthz => Request::get("/healthz"),
            Self::Readyz => Request::get("/readyz"),
            Self::Preflight => Request::new("OPTIONS", "/events")
                .header("Origin", PAGE)
                .header("Access-Control-Request-Method", "GET"),
        }
    }
}

/// A user and a topic for one request. No other request uses this user or this topic, because a
/// topic can be finished only once, and a revocation applies to every token of its client.
struct Fresh {
    user: String,
    number: usize,
}

impl Fresh {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { user: format!("user-{number}"), number }
    }

    /// The ordinary request of the user.
    fn request(&self, endpoint: Endpoint) -> Request {
        endpoint.request(&self.user, &format!("rooms/{}", self.number), false)
    }
}

/// The sender of the requests of a table.
pub(crate) struct Sender {
    pub(crate) keys: Credentials,
    pub(crate) tickets: Tickets,
    /// Whether the listener takes keys.
    pub(crate) sends_keys: bool,
}

impl Sender {
    /// The requests of one cell. All of them must get the answer that the cell names.
    pub(crate) fn requests(&self, endpoint: Endpoint, credential: Credential) -> Vec<Request> {
        if endpoint == Endpoint::SubscribeWithTicket {
            return vec![Request::get(format!("/events?ticket={}", self.ticket(credential)))];
        }
        let fresh = Fresh::new();
        let Fresh { user, number } = &fresh;
        let request = match credential {
            Credential::Nothing => return vec![fresh.request(endpoint)],
            Credential::Right => return self.right(endpoint),
            Credential::OtherClient => endpoint.request("bob", &format!("rooms/{number}"), true),
            Credential::OtherTopic => endpoint.request(user, &format!("other/{number}"), false),
            _ => fresh.request(endpoint),
        };
        let sent = match credential {
            Credential::OtherClient | Credential::OtherTopic => self.keys.user(user),
            bad => self.bad_token(bad),
        };
        vec![request.bearer(&sent)]
    }

    /// A request with each credential that has the right to do what the endpoint does.
    fn right(&self, endpoint: Endpoint) -> Vec<Request> {
        let with_token = |signer| {
            let fresh = Fresh::new();
            let claims = match endpoint.is_for_operators() {
                true => operator_but(&[]),
                false => claims(Some(&fresh.user), of_a_user()),
            };
            fresh.request(endpoint).bearer(&self.keys.token(signer, &claims))
        };
        let mut right = [Signer::Rs256, Signer::Es256, Signer::Hs256].map(with_token).to_vec();
        if self.sends_keys {
            let with_key = |key: String| Fresh::new().request(endpoint).bearer(&key);
            right.push(with_key(self.keys.admin_key()));
            right.extend((!endpoint.is_for_operators()).then(|| with_key(self.keys.publish_key())));
        }
        right
    }

    /// A token of an operator with the fault that the column names.
    fn bad_token(&self, credential: Credential) -> String {
        let keys = &self.keys;
        let operator = operator_but(&[]);
        let signed = |claims: &Value| keys.token(Signer::Rs256, claims);
        match credential {
            Credential::UnknownKey => "dlk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".to_owned(),
            Credential::BadSignature => keys.with_a_bad_signature(&operator),
            Credential::WrongAlgorithm => keys.token(Signer::Es384, &operator),
            Credential::AlgorithmNone => keys.unsigned(&operator),
            Credential::PublicKeyAsSecret => keys.token(Signer::PublicKeyAsSecret, &operator),
            Credential::Expired => signed(&credentials::expired()),
            Credential::Early => signed(&credentials::early()),
            Credential::WrongAudience => signed(&operator_but(&[("aud", "shop".into())])),
            Credential::WrongIssuer => {
                signed(&operator_but(&[("iss", "https://other.example".into())]))
            }
            Credential::Revoked => signed(&operator_but(&[("sub", EVE.into())])),
            Credential::Nothing
            | Credential::OtherClient
            | Credential::OtherTopic
            | Credential::Right => unreachable!("{credential:?} is not a bad token"),
        }
    }

    /// A ticket with the fault that the column names. For some columns, another parameter of the
    /// query follows the ticket.
    fn ticket(&self, credential: Credential) -> String {
        let tickets = &self.tickets;
        match credential {
            Credential::Nothing => String::new(),
            Credential::UnknownKey => tickets.unknown.clone(),
            Credential::BadSignature => tampered(&tickets.good),
            // The first byte is the version of the format, which decides the cipher.
            Credential::WrongAlgorithm => format!("B{}", &tickets.good[1..]),
            // The server must not accept a token in the place of a ticket.
            Credential::AlgorithmNone | Credential::PublicKeyAsSecret => self.bad_token(credential),
            Credential::Expired => tickets.expired.clone(),
            Credential::Early => tickets.early.clone(),
            Credential::WrongAudience => tickets.of_another_hub.clone(),
            Credential::WrongIssuer => tickets.of_another_issuer.clone(),
            Credential::Revoked => tickets.revoked.clone(),
            Credential::OtherClient => format!("{}&client=bob", tickets.good),
            Credential::OtherTopic => format!("{}&topic=other/1", tickets.good),
            Credential::Right => tickets.good.clone(),
        }
    }
}
