//! The connection to one of the servers.
//!
//! A client of `async-nats` normally reconnects by itself, and then sends the requests that were
//! waiting, also those that were given up long ago. Here each client has one connection and never
//! reconnects: when the connection ends, its waiting requests are dropped, and callers learn of it
//! at once. The next request makes a new client, at the next server. So a request is sent at most
//! until its connection is found dead. Bytes that a paused server has in the buffers of its sockets
//! may still be read by it later.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use async_nats::{
    Client, ConnectOptions, ReconnectToServer, Server, ServerAddr, ServerInfo, connection::State,
};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::settings::{ConnectSettings, Credentials, ServerUrl};

/// The maximum time for connecting to one server, with the lookup of its name. The request that
/// needs the connection may give up earlier, after [`REQUEST_WITHIN`](crate::REQUEST_WITHIN). The
/// attempt then ends too, and the next request begins at the next server.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// The maximum time for connecting to one address of a server. A server in another region answers
/// within a second, also with TLS. A name often has two addresses, of which one may not answer.
const ADDRESS_WITHIN: Duration = Duration::from_millis(1_400);
/// The time between two pings. The client gives up a connection when two pings have no answer and a
/// third is due, so within three seconds.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// The time without a usable answer after which a connection is given up, although its server
/// answers pings. Such a server may be cut off from the other servers of its cluster. During an
/// election, no server answers, so a shorter time would only cause more connections.
pub const UNUSABLE_AFTER: Duration = Duration::from_secs(3);
/// The maximum number of requests that wait for the socket. A node has at most eight entries on
/// their way, and few other requests.
const REQUESTS_MAX: usize = 64;
/// The maximum number of messages that wait for a tail. The client drops further messages. A tail
/// asks for fewer messages, so this happens only if a server sends more than it was asked for.
pub(crate) const MESSAGES_MAX: usize = 1_024;

/// A connection that was alive when it was returned.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    number: u64,
}

/// The servers, and the newest connection to one of them.
pub(crate) struct Connections {
    settings: ConnectSettings,
    /// Held while a connection is made, so that all requests wait for the same one.
    current: AsyncMutex<Current>,
    /// The reason of the newest failed attempt, until an attempt succeeds. Held alone and never
    /// across an await.
    error: Mutex<Option<String>>,
    /// The number of a connection, and since when no request over it has had a usable answer. Held
    /// alone and never across an await.
    unanswered: Mutex<Option<(u64, Instant)>>,
}

/// A request over a connection. If it is dropped before [`answered`](Self::answered) is called, the
/// connection has not given a usable answer.
pub(crate) struct Asking<'a> {
    unanswered: &'a Mutex<Option<(u64, Instant)>>,
    number: u64,
}

impl Asking<'_> {
    /// Notes that the request had a usable answer.
    pub(crate) fn answered(self) {
        self.unanswered.lock().take_if(|(number, _)| *number == self.number);
        std::mem::forget(self);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut unanswered = self.unanswered.lock();
        if unanswered.is_none_or(|(number, _)| number != self.number) {
            *unanswered = Some((self.number, Instant::now()));
        }
    }
}

#[derive(Debug, Default)]
struct Current {
    connection: Option<Connection>,
    /// The number of attempts. It selects the next server, and names the connections.
    attempts: u64,
}

impl Connections {
    /// The settings have at least one server.
    pub(crate) fn new(settings: ConnectSettings) -> Self {
        let (current, error, unanswered) = Default::default();
        Self { settings, current, error, unanswered }
    }

    /// Notes a request over a connection.
    pub(crate) fn ask(&self, connection: &Connection) -> Asking<'_> {
        Asking { unanswered: &self.unanswered, number: connection.number }
    }

    /// Whether a connection is alive, but has given no usable answer for [`UNUSABLE_AFTER`].
    fn is_unusable(&self, connection: &Connection) -> bool {
        self.unanswered.lock().is_some_and(|(number, since)| {
            number == connection.number && since.elapsed() > UNUSABLE_AFTER
        })
    }

    /// The current connection, or a new one if it has ended. Tries each server once; `None` if none
    /// of them can be reached.
    pub(crate) async fn get(&self) -> Option<Connection> {
        let mut current = self.current.lock().await;
        let is_usable = |connection: &Connection| {
            connection.client.connection_state() == State::Connected
                && !self.is_unusable(connection)
        };
        current.connection = current.connection.take().filter(is_usable);
        for _ in &self.settings.servers {
            if current.connection.is_some() {
                break;
            }
            let number = current.attempts;
            // If this future is dropped during the attempt, the next call begins at the next server.
            current.attempts += 1;
            let client = self.connect(self.server(number)).await;
            current.connection = client.map(|client| Connection { client, number });
        }
        current.connection.clone()
    }

    fn server(&self, attempt: u64) -> &ServerUrl {
        let servers = &self.settings.servers;
        &servers[(attempt % servers.len() as u64) as usize]
    }

    /// Stops using a connection that seems to be dead.
    pub(crate) async fn give_up(&self, connection: &Connection) {
        let mut current = self.current.lock().await;
        let is_other = |other: &Connection| other.number != connection.number;
        current.connection = current.connection.take().filter(is_other);
    }

    /// The reason why the newest attempt to connect failed, if it failed.
    pub(crate) fn error(&self) -> Option<String> {
        self.error.lock().clone()
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
