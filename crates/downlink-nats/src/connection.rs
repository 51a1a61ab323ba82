//! The connection to one of the servers.
//!
//! A client of `async-nats` normally reconnects by itself, and then sends the requests that were
//! waiting, also those that were given up long ago. Here each client has one connection and never
//! reconnects: when the connection ends, its waiting requests are dropped, and callers learn of it
//! at once. The next request makes a new client, at the next server. So no request is sent after
//! its connection was found dead. But a paused server may later read the bytes that are already in
//! the buffers of its sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{
    Client, ConnectOptions, ReconnectToServer, Server, ServerAddr, ServerInfo, connection::State,
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::{ConnectSettings, Credentials, ServerUrl};

/// The maximum time for connecting to one server, with the lookup of its name. The request that
/// needs the connection may give up earlier, after [`REQUEST_WITHIN`](crate::REQUEST_WITHIN). The
/// attempt goes on for the other requests and for the next one.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// The maximum time for connecting to one address of a server. A server in another region answers
/// within a second, also with TLS. A name often has two addresses, of which one may not answer.
const ADDRESS_WITHIN: Duration = Duration::from_millis(1_400);
/// The time between two pings. The client gives up a connection when two pings have no answer and a
/// third is due, so within three seconds.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// The time without a usable answer after which a connection is given up, although its server
/// answers pings. An answer is not usable if it leaves the outcome unknown, or if it describes a
/// stream without a leader. A server that is cut off from its cluster gives only such answers, or
/// none. During an election, no server gives a usable answer, so a shorter time would only cause
/// more connections.
pub const UNUSABLE_AFTER: Duration = Duration::from_secs(3);
/// The maximum number of requests that wait for the socket. A node has at most eight entries on
/// their way, and few other requests.
const REQUESTS_MAX: usize = 64;
/// The maximum number of requests of one connection that have no answer, also if their callers have
/// given up. The client remembers each of them for as long as the connection lasts. When so many
/// are not answered, the connection is replaced, so they take at most some hundred kilobytes.
pub const UNANSWERED_MAX: usize = 1_024;
/// The maximum number of messages that wait for a tail. The client drops further messages. A tail
/// asks for fewer messages, so this happens only if a server sends more than it was asked for.
pub(crate) const MESSAGES_MAX: usize = 8_192;

/// A connection that was alive when it was returned.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    number: u64,
    /// A request has a slot until it is answered.
    slots: Arc<Semaphore>,
    /// Held alone and never across an await.
    usable: Arc<Mutex<Usable>>,
}

/// The servers, and the newest connection to one of them.
pub(crate) struct Connections {
    connector: Arc<Connector>,
    /// Held alone and never across an await.
    current: Mutex<Current>,
}

/// Connects to the servers in turn.
struct Connector {
    settings: ConnectSettings,
    /// The number of attempts. It selects the next server, and names the connections. Nothing else
    /// depends on it, so its accesses are relaxed.
    attempts: AtomicU64,
    /// The reason of the newest failed attempt, until an attempt succeeds. Held alone and never
    /// across an await.
    error: Mutex<Option<String>>,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// The attempt for which all requests without a connection wait. If no request waits for it any
    /// more, the attempt pauses until the next request.
    attempt: Option<Shared<BoxFuture<'static, Option<Connection>>>>,
}

/// The usable answers of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Usable {
    /// The time of the newest usable answer.
    answered_at: Option<Instant>,
    /// When the first request after `answered_at` began that has ended without a usable answer.
    asked_at: Option<Instant>,
}

/// A request over a connection. If it is dropped before it has [`ended`](Self::end), it has no
/// answer and keeps its slot.
pub(crate) struct Asking {
    usable: Arc<Mutex<Usable>>,
    at: Instant,
    slot: Option<OwnedSemaphorePermit>,
    is_usable: bool,
}

impl Asking {
    /// Notes that the client has forgotten the request, and whether its answer was usable.
    pub(crate) fn end(mut self, is_usable: bool) {
        self.slot = None;
        self.is_usable = is_usable;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.forget();
        }
        let mut usable = self.usable.lock();
        if self.is_usable {
            *usable = Usable { answered_at: Some(Instant::now()), asked_at: None };
        } else if usable.answered_at.is_none_or(|at| at < self.at) {
            usable.asked_at = Some(usable.asked_at.map_or(self.at, |at| at.min(self.at)));
        }
    }
}

impl Connection {
    /// Notes a request; `None` if the connection has no slot for it.
    pub(crate) fn ask(&self) -> Option<Asking> {
        let slot = Some(Arc::clone(&self.slots).try_acquire_owned().ok()?);
        let (usable, at) = (Arc::clone(&self.usable), Instant::now());
        Some(Asking { usable, at, slot, is_usable: false })
    }

    /// Whether the connection can be used: it is alive, it has a slot for a request, and no request
    /// has waited for [`UNUSABLE_AFTER`] for the next usable answer.
    fn is_usable(&self) -> bool {
        let asked_at = self.usable.lock().asked_at;
        self.client.connection_state() == State::Connected
            && asked_at.is_none_or(|at| at.elapsed() < UNUSABLE_AFTER)
            && self.slots.available_permits() > 0
    }
}

impl Connections {
    /// The settings have at least one server.
    pub(crate) fn new(settings: ConnectSettings) -> Self {
        let (attempts, error) = Default::default();
        let connector = Arc::new(Connector { settings, attempts, error });
        Self { connector, current: Mutex::default() }
    }

    /// The current connection, or a new one if it has ended. Tries each server once; `None` if none
    /// of them can be reached.
    ///
    /// If the future is dropped, the attempt goes on for the other callers.
    pub(crate) async fn get(&self) -> Option<Connection> {
        let attempt = {
            let mut current = self.current.lock();
            current.connection = current.connection.take().filter(Connection::is_usable);
            if let Some(connection) = &current.connection {
                return Some(connection.clone());
            }
            let begin = || Arc::clone(&self.connector).connect_to_any().boxed().shared();
            current.attempt.get_or_insert_with(begin).clone()
        };
        let connection = attempt.clone().await;
        let mut current = self.current.lock();
        if current.attempt.take_if(|it| it.ptr_eq(&attempt)).is_some() {
            current.connection = connection.clone();
        }
        connection
    }

    /// Stops using a connection that seems to be dead.
    pub(crate) fn give_up(&self, connection: &Connection) {
        let is_it = |it: &mut Connection| it.number == connection.number;
        self.current.lock().connection.take_if(is_it);
    }

    /// The reason why the newest attempt to connect failed, if it failed.
    pub(crate) fn error(&self) -> Option<String> {
        self.connector.error.lock().clone()
    }
}

impl Connector {
    /// Tries each server once.
    async fn connect_to_any(self: Arc<Self>) -> Option<Connection> {
        let servers = &self.settings.servers;
        for _ in servers {
            let number = self.attempts.fetch_add(1, Ordering::Relaxed);
            let server = &servers[(number % servers.len() as u64) as usize];
            if let Some(client) = self.connect(server).await {
                let (slots, usable) = (Arc::new(Semaphore::new(UNANSWERED_MAX)), Arc::default());
                return Some(Connection { client, number, slots, usable });
            }
        }
        None
    }

    async fn connect(&self, server: &ServerUrl) -> Option<Client> {
        let connecting = tokio::time::timeout(CONNECT_WITHIN, self.try_connect(server));
        let result = connecting.await.unwrap_or_else(|_| Err("no answer".into()));
        let error = result.as_ref().err();
        *self.error.lock() = error.map(|error| format!("cannot connect to {server}: {error}"));
        result.ok()
    }

    async fn try_connect(&self, server: &ServerUrl) -> Result<Client, async_nats::Error> {
        let ConnectSettings { credentials, tls, .. } = &self.settings;
        let mut options = once()
            .name("downlink")
            .connection_timeout(ADDRESS_WITHIN)
            .ping_interval(PING_EVERY)
            .client_capacity(REQUESTS_MAX)
            .subscription_capacity(MESSAGES_MAX)
            .require_tls(tls.is_required);
        if tls.is_first {
            options = options.tls_first();
        }
        if let Some(path) = &tls.root_certificates {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &tls.client_certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        options = match credentials.clone() {
            Credentials::None => options,
            Credentials::File(path) => options.credentials_file(path).await?,
            Credentials::UserAndPassword { user, password } => {
                options.user_and_password(user, password)
            }
            Credentials::Token(token) => options.token(token),
        };
        let addrs = [server.addr().clone(), nowhere()?];
        Ok(options.connect(&addrs[..]).await?)
    }
}

/// Options for a client that connects once. When the connection has ended, the client asks for the
/// next server and gets an address at which no server can listen. After one such attempt it ends.
fn once() -> ConnectOptions {
    let next = |servers: Vec<Server>, newest: ServerInfo| async move {
        let is_first = newest.server_id.is_empty();
        let server = if is_first { servers.first() } else { servers.last() };
        let delay = Some(Duration::ZERO);
        server.map(|server| ReconnectToServer { addr: server.addr.clone(), delay })
    };
    ConnectOptions::new()
        .ignore_discovered_servers()
        .max_reconnects(1)
        .reconnect_to_server_callback(next)
}

/// An address without a listener: no socket can listen on port 0.
fn nowhere() -> Result<ServerAddr, std::io::Error> {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string().parse()
}
