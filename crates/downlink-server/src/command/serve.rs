//! `downlink serve` and `downlink dev`: these commands bind or inherit a socket, open the store,
//! print the address, and serve until a signal arrives.
//!
//! The program binds the socket before it opens the store. So if the address is in use, the program
//! ends at once. It then creates no store, and does not wait for a store that another server has
//! open. The server accepts connections only when the store is open. Clients that connect earlier
//! wait in the socket's queue.
//!
//! With an inherited socket, a new server can replace an old one, and no connection is refused. The
//! old server stops accepting connections at once, ends its streams, answers its open requests,
//! commits its events and releases the store. The new server opens the store as soon as the old one
//! has released it, and then accepts the connections that wait in the socket's queue. The new
//! server may start before or after the old one has ended.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use downlink::{
    cluster::NodeMessages,
    hub::Hub,
    relay::Upstream,
    serve::{Listener, REFUSALS_MAX, StopSignal, connections_supported, stop_signal},
};
use downlink_access::Secret;
use downlink_nats::JetStream;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

#[cfg(unix)]
use super::supervisor::tell_supervisor;
use super::{
    config::check_connections,
    exit,
    listening::{Inherited, Listening},
    notices,
    reload::{Reload, Reloader},
};
use crate::{
    access::{AbuseLimits, AccessSettings, Control, KeyFiles, Role},
    address::Address,
    app,
    app::{Forwarder, Source},
    cluster,
    config::Settings,
    logs::Log,
    memory,
};

/// If opening the store takes longer than this, the server logs what it is waiting for. With half
/// the time, it would log a line at every start with a large store. With double the time, a user
/// would wait too long without any output.
const SILENCE: Duration = Duration::from_millis(500);

/// Runs a production server with these settings of access control, which can be read again. If
/// `production` is `None`, runs a development server.
pub(super) fn run(
    mut settings: Settings,
    production: Option<(AccessSettings, Reload)>,
) -> anyhow::Result<()> {
    let log = Log::to_stderr(&settings.log, settings.log_format).map_err(exit::configuration)?;
    memory::keep_pages_small();
    let inherited = Inherited::take()?;
    if let Some(inherited) = &inherited {
        if settings.has_socket_file() {
            return Err(exit::configuration(anyhow!(
                "--socket-mode and --socket-group are for a socket that this server binds, and \
                 its socket is inherited: set them where that socket is bound (SocketMode= and \
                 SocketGroup= in systemd)"
            )));
        }
        settings.listen = inherited.address()?;
        // The previous server may take the whole time of a graceful shutdown before it releases the
        // store.
        let wait = settings.drain_within.saturating_add(app::STORE_WAIT);
        settings.store_wait.get_or_insert(wait);
    }
    let access = production.as_ref().map(|(access, _)| access);
    let admin = access.and_then(|access| access.admin_listen.as_ref());
    settings.check(admin).map_err(exit::configuration)?;
    let control = match access {
        Some(access) => {
            access.check(&settings.listen).and_then(|()| Control::open(&settings, access))
        }
        None => check_development(&settings).map(|()| Control::development()),
    };
    let control = Arc::new(control.map_err(exit::configuration)?);
    check_connections(&settings).map_err(exit::configuration)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(memory::give_back_sometimes)
        .build()?;
    runtime.spawn(memory::keep_giving_back());
    let admin = admin.cloned();
    let abuse = access.map(|access| access.abuse.clone());
    let reloader = production.map(|(access, reload)| {
        let of = (inherited.is_some(), control.key_files());
        reload.of(&settings, access, of, log.level())
    });
    let is_development = reloader.is_none();
    let mode = Mode { is_development, admin, control, abuse, reloader };
    let served = runtime.block_on(serve(settings, mode, inherited));
    // A thread may still be opening the store. The program does not wait for that thread.
    runtime.shutdown_background();
    served
}

/// The properties of a server that are not in its [`Settings`].
struct Mode {
    is_development: bool,
    /// The address of the admin listener, which is a second listener for apps and operators.
    admin: Option<Address>,
    control: Arc<Control>,
    /// The limits of connections to the public listener.
    abuse: Option<AbuseLimits>,
    /// `None` for a development server.
    reloader: Option<Reloader>,
}

/// Checks that only programs on this machine can reach a development server. A Unix socket is also
/// refused, because a proxy can forward the requests of strangers to it.
fn check_development(settings: &Settings) -> anyhow::Result<()> {
    match &settings.listen {
        Address::Tcp(address) if address.ip().is_loopback() => Ok(()),
        address => Err(anyhow!(
            "downlink dev allows everything, so it listens only on a loopback address, not on \
             {address}: start downlink serve, which needs credentials"
        )),
    }
}

async fn serve(
    settings: Settings,
    mut mode: Mode,
    inherited: Option<Inherited>,
) -> anyhow::Result<()> {
    // The signal handlers are installed before clients can connect, so that no signal is missed.
    let reload = (!mode.is_development).then(Arc::<Notify>::default);
    let signals = Signals::listen(reload.clone());
    let mut signals = signals.context("cannot install signal handlers")?;
    let (listening, admin) = listen(&settings, mode.admin.as_ref(), inherited).await?;
    let addresses = Addresses {
        public: listening.address()?,
        admin: admin.as_ref().map(Listening::address).transpose()?,
    };
    let requesters = Arc::<app::Requesters>::default();
    let (source, forwarder) = source(&settings).map_err(exit::configuration)?;
    let (hub, messages) = tokio::select! {
        hub = open(&settings, &requesters, source) => hub?,
        // The server has not accepted any request yet, so it can end without a graceful shutdown.
        () = signals.next() => return Ok(()),
    };
    mode.control.restore_revocations(&settings)?;
    spawn_node_tasks(&mode.control, reload.clone(), &hub, messages.zip(settings.cluster.stream()?));
    spawn_tasks(&mode.control, mode.reloader.take().zip(reload), &hub);
    let counters = Arc::<app::Counters>::default();
    let end = Arc::<Notify>::default();
    let notices = tokio::spawn(notices::write(hub.clone(), counters.clone(), end.clone()));
    let of = |role: Role, connections_max| Serving {
        hub: &hub,
        forwarder: forwarder.as_ref(),
        requesters: &requesters,
        counters: &counters,
        settings: &settings,
        control: &mode.control,
        abuse: mode.abuse.as_ref().filter(|_| role.is_public()),
        role,
        connections_max,
    };
    let admin_max = connections_supported() / ADMIN_CONNECTIONS_PART;
    let role = public_role(mode.is_development, &addresses);
    let admin_connections = if admin.is_some() { admin_max } else { 0 };
    let connections_max = settings.connections_max.or_else(|| {
        // The two listeners share the limit of open files.
        admin.is_some().then(|| public_connections(connections_supported() - admin_connections))
    });
    greet(&addresses, &settings, &mode, connections_max.unwrap_or_else(connections_supported))?;
    #[cfg(unix)]
    tell_supervisor(&[sd_notify::NotifyState::Ready]);
    let public = of(role, connections_max).serve(listening, hub.drain_on(stop(signals)));
    match admin {
        None => public.await?,
        Some(admin) => {
            let role = match &addresses.admin {
                Some(Address::Unix(_)) => Role::AdminSocket,
                _ => Role::Admin,
            };
            let hub = hub.clone();
            let admin = of(role, Some(admin_max)).serve(admin, async move { hub.draining().await });
            tokio::try_join!(public, admin)?;
        }
    }
    // `closed` completes when all events are on the disk.
    hub.close();
    hub.closed().await;
    end.notify_one();
    notices.await.context("the task that watches the counters failed")
}

/// Binds or inherits the socket of the public listener, and binds that of the admin listener.
async fn listen(
    settings: &Settings,
    admin: Option<&Address>,
    inherited: Option<Inherited>,
) -> anyhow::Result<(Listening, Option<Listening>)> {
    let public = match inherited {
        Some(inherited) => inherited.listen()?,
        None => Listening::bind(&settings.listen, "--listen", settings).await?,
    };
    let admin = match admin {
        Some(admin) => Some(Listening::bind(admin, "--admin-listen", settings).await?),
        None => None,
    };
    Ok((public, admin))
}

/// Starts the tasks of access control: one fetches key sets, and one reloads.
fn spawn_tasks(
    control: &Arc<Control>,
    reloads: Option<(Reloader, Arc<Notify>)>,
    hub: &Hub<String>,
) {
    let (key_sets, of_streams) = (Arc::clone(control), hub.clone());
    tokio::spawn(async move { key_sets.fetch_key_sets(&of_streams).await });
    if let Some((reloader, wanted)) = reloads {
        tokio::spawn(reloader.run(wanted, Arc::clone(control), hub.clone()));
    }
}

/// Starts the tasks of a node of a cluster. One applies the messages of other nodes, and one takes
/// over the ticket key that all nodes share. One writes to the log about the connection to the
/// engine, the NATS servers of the cluster.
fn spawn_node_tasks(
    control: &Arc<Control>,
    reload: Option<Arc<Notify>>,
    hub: &Hub<String>,
    node: Option<(NodeMessages, JetStream)>,
) {
    let Some((messages, journal)) = node else { return };
    tokio::spawn(cluster::watch(hub.clone(), journal));
    tokio::spawn(cluster::messages::apply(hub.clone(), Arc::clone(control), messages));
    let (control, hub) = (Arc::clone(control), hub.clone());
    tokio::spawn(async move {
        let Some(secret) = hub.cluster_began().await else { return };
        match cluster::ticket_key(&secret) {
            Ok(key) => control.share_ticket_key(key),
            Err(error) => tracing::error!(%error, "the nodes cannot share a ticket key"),
        }
        reload.iter().for_each(|reload| reload.notify_one());
    });
}

/// The maximum number of connections of the admin listener is the number of connections that the
/// limit of open files allows, divided by this number.
const ADMIN_CONNECTIONS_PART: usize = 8;

/// The maximum number of connections of the public listener. `left` is the number of connections
/// that the admin listener leaves.
///
/// A connection above a limit needs a file descriptor until it has been refused.
/// [`connections_supported`] reserves descriptors for the refusals of one listener, which is the
/// public listener. So this function subtracts [`REFUSALS_MAX`] for the refusals of the admin
/// listener. This number is enough, because the admin listener has no limits for each address. If
/// `left` is small, the function subtracts only half of it.
fn public_connections(left: usize) -> usize {
    left - REFUSALS_MAX.min(left / 2)
}

/// The addresses of the listeners.
struct Addresses {
    public: Address,
    admin: Option<Address>,
}

/// One listener of the server.
struct Serving<'a> {
    hub: &'a Hub<String>,
    forwarder: Option<&'a Arc<Forwarder>>,
    requesters: &'a Arc<app::Requesters>,
    counters: &'a Arc<app::Counters>,
    settings: &'a Settings,
    control: &'a Arc<Control>,
    abuse: Option<&'a AbuseLimits>,
    role: Role,
    connections_max: Option<usize>,
}

impl Serving<'_> {
    async fn serve(
        self,
        listening: Listening,
        drained: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        match listening {
            Listening::Tcp(listener) => self.serve_on(listener, drained).await,
            #[cfg(unix)]
            Listening::Unix(bound) => {
                let (listener, _file) = bound.into_parts();
                self.serve_on(listener, drained).await
            }
        }
    }

    async fn serve_on<L: Listener>(
        self,
        listener: L,
        drained: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let Self { hub, forwarder, requesters, counters, settings, control, .. } = self;
        let Self { abuse, role, connections_max, .. } = self;
        let control = Arc::clone(control);
        let served = (hub.clone(), Arc::clone(requesters), forwarder.cloned());
        let app = app::app(served, settings.clone(), control, role, Arc::clone(counters));
        let is_admin = matches!(role, Role::Admin | Role::AdminSocket);
        let stats = counters.listener(if is_admin { "admin" } else { "public" });
        let mut server = downlink::serve(listener, app)
            .header_timeout(settings.header_timeout)
            .idle_timeout(settings.idle_timeout)
            .answer_at_limit(app::ANSWERED_AT_LIMIT)
            .write_stall_max(settings.write_stall_max)
            .unsent_bytes_max(settings.unsent_bytes_max)
            .drain_within(settings.drain_within)
            .record_stats(&stats);
        if let Some(connections_max) = connections_max {
            server = server.connections_max(connections_max);
        }
        if let Some(abuse) = abuse {
            server = abuse.apply(&settings.listen, server);
        }
        server.with_graceful_shutdown(drained).await?;
        Ok(())
    }
}

/// The role of the public listener.
fn public_role(is_development: bool, addresses: &Addresses) -> Role {
    match (is_development, &addresses.admin) {
        (true, _) => Role::Development,
        (false, None) => Role::Only,
        (false, Some(_)) => Role::Public,
    }
}

/// The place where the hub gets its events from. A relay gets them from its upstream, the server
/// that it follows, and has a forwarder, which sends publishes to the upstream.
fn source(settings: &Settings) -> anyhow::Result<(Source, Option<Arc<Forwarder>>)> {
    if let Some(stream) = settings.cluster.stream()? {
        return Ok((Source::Cluster(stream), None));
    }
    Ok(match upstream(settings)? {
        Some((upstream, forwarder)) => (Source::Upstream(upstream), Some(forwarder)),
        None => (Source::Publishers, None),
    })
}

/// The upstream of a relay, and the forwarder of its publishes. `None` if the server is no relay.
fn upstream(settings: &Settings) -> anyhow::Result<Option<(Upstream, Arc<Forwarder>)>> {
    let Some(follow) = &settings.follow else { return Ok(None) };
    let file = settings.follow_key_file.as_deref();
    let key = file.map(|file| {
        let read = Secret::read(file);
        read.with_context(|| format!("cannot use the key file {}", file.display()))
    });
    let key = key.transpose()?;
    let mut upstream = follow.upstream.clone();
    if let Some(key) = &key {
        let file = file.map_or_else(String::new, |file| file.display().to_string());
        upstream = upstream
            .bearer(&key.text())
            .with_context(|| format!("cannot use the key file {file}"))?;
    }
    Ok(Some((upstream, Arc::new(Forwarder::new(follow, key.as_ref())?))))
}

/// Makes the hub (the log of events with its subscriptions) and opens its store. If another server
/// still has the store open, this can take long.
async fn open(
    settings: &Settings,
    requesters: &Arc<app::Requesters>,
    source: Source,
) -> anyhow::Result<(Hub<String>, Option<NodeMessages>)> {
    let (owned, requesters) = (settings.clone(), Arc::clone(requesters));
    let mut opening = tokio::task::spawn_blocking(move || app::hub(&owned, &requesters, source));
    let opened = match tokio::time::timeout(SILENCE, &mut opening).await {
        Ok(opened) => opened,
        Err(_elapsed) => {
            let (wait, store) = (app::store_wait(settings), settings.store.display());
            tracing::info!("opening {store}; waiting up to {wait:?} if another server has it open");
            opening.await
        }
    };
    opened.context("opening the store did not complete")?.with_context(|| match settings.store() {
        Some(file) => format!("cannot keep history in {}", file.display()),
        None => "cannot keep history".to_owned(),
    })
}

/// Prints the addresses, and two commands that a user can paste into a shell.
fn greet(
    addresses: &Addresses,
    settings: &Settings,
    mode: &Mode,
    connections_max: usize,
) -> anyhow::Result<()> {
    let Reached { place, curl, url } = Reached::by(&addresses.public);
    let admin = addresses.admin.as_ref().map(Reached::by);
    let version = crate::VERSION;
    let mut out = io::stdout().lock();
    writeln!(out, "downlink {version} is listening on {place}")?;
    if mode.is_development {
        writeln!(
            out,
            "  development: every program on this machine may do everything; for production, \
             start downlink serve"
        )?;
    }
    if let Some(admin) = &admin {
        writeln!(out, "  for apps and operators: {}", admin.place)?;
    }
    // If there is an admin listener, the commands use it, because the public listener then accepts
    // no keys. On an admin socket, the commands need no key.
    let is_trusted = matches!(addresses.admin, Some(Address::Unix(_)));
    let (curl, url) = match &admin {
        Some(admin) => (&admin.curl, &admin.url),
        None => (&curl, &url),
    };
    let files = mode.control.key_files();
    let key = match files {
        Some(files) if !is_trusted => {
            format!("-H \"Authorization: Bearer $(cat {})\" ", quoted(&files.publish))
        }
        _ => String::new(),
    };
    writeln!(out, "  subscribe:  curl {curl}{key}-N '{url}/events?topic=news'")?;
    writeln!(out, "  publish:    curl {curl}{key}-d 'hello' '{url}/events?topic=news'")?;
    if mode.is_development {
        writeln!(out, "  page:       {url}/")?;
    }
    for (what, file) in files.into_iter().flat_map(KeyFiles::made) {
        writeln!(out, "  {what} {}", file.display())?;
    }
    if files.is_some() && settings.store().is_none() {
        writeln!(out, "  revocations are in memory only and are lost at a restart")?;
    }
    if let Some(follow) = &settings.follow {
        writeln!(out, "  relay of {}", follow.url)?;
    }
    if let Some(hub) = settings.cluster.hub() {
        writeln!(out, "  node of the cluster {hub}")?;
    }
    let mebibytes = settings.history_bytes_max >> 20;
    let has_cache = settings.follow.is_some() || settings.cluster.is_node();
    let kept = if has_cache { "a cache of the history is" } else { "history is kept" };
    match settings.store() {
        Some(file) => writeln!(
            out,
            "  {kept} in {} ({mebibytes} MiB of it in memory); up to {connections_max} connections",
            file.display()
        )?,
        None => writeln!(
            out,
            "  history is in memory only ({mebibytes} MiB at most) and is lost at a restart; up \
             to {connections_max} connections"
        )?,
    }
    out.flush().context("cannot write to stdout")
}

/// A path as one word of a shell's command line. The path becomes absolute, because the user may
/// paste the command in another folder.
fn quoted(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// How a user of this machine can reach the server with curl.
struct Reached {
    place: String,
    /// The options that curl needs besides the URL.
    curl: String,
    url: String,
}

impl Reached {
    fn by(address: &Address) -> Self {
        let address = match address {
            Address::Tcp(address) => address,
            Address::Unix(path) => {
                let curl = format!("--unix-socket {} ", quoted(path));
                return Self { place: address.to_string(), curl, url: "http://localhost".into() };
            }
        };
        let url = match address.ip() {
            ip if ip.is_unspecified() && ip.is_ipv4() => {
                format!("http://127.0.0.1:{}", address.port())
            }
            ip if ip.is_unspecified() => format!("http://[::1]:{}", address.port()),
            _ => format!("http://{address}"),
        };
        Self { place: url.clone(), curl: String::new(), url }
    }
}

/// The exit code after a second signal. Shells report the same code if Ctrl-C ended a program.
const ENDED_AT_ONCE: i32 = 130;

/// The signals that end the server, and SIGHUP.
///
/// SIGHUP makes a production server reload. It ends a development server, because a closing
/// terminal sends it. A production server that was started in a terminal also ends when this
/// terminal has closed. Without a handler, SIGHUP would kill the program without a graceful
/// shutdown.
struct Signals {
    stop: StopSignal,
    /// `None` if SIGHUP was already ignored when the program started, for example because of
    /// `nohup`. The server then also ignores SIGHUP.
    #[cfg(unix)]
    hangup: Option<Signal>,
    /// Asks a production server to reload.
    reload: Option<Arc<Notify>>,
    had_terminal: bool,
}

impl Signals {
    /// Installs the handlers.
    fn listen(reload: Option<Arc<Notify>>) -> io::Result<Self> {
        let stop = stop_signal()?;
        #[cfg(unix)]
        let hangup = if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            stop,
            #[cfg(unix)]
            hangup,
            reload,
            had_terminal: has_terminal(),
        })
    }

    /// Completes at the next signal that ends the server.
    async fn next(&mut self) {
        #[cfg(unix)]
        while let Some(hangup) = &mut self.hangup {
            tokio::select! {
                () = &mut self.stop => return,
                _ = hangup.recv() => {}
            }
            match &self.reload {
                Some(reload) if !self.had_terminal || has_terminal() => reload.notify_one(),
                _ => return,
            }
        }
        (&mut self.stop).await;
    }
}

/// Whether the process has a terminal. A process loses its terminal when the terminal closes, and
/// it gets SIGHUP only afterwards.
fn has_terminal() -> bool {
    let opened = std::fs::File::open("/dev/tty");
    !opened.is_err_and(|error| error.raw_os_error() == Some(libc::ENXIO))
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "no safe function returns the action of a signal")]
fn is_hangup_ignored() -> bool {
    // SAFETY: a C struct of integers and pointers may have all bytes zero.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the new action is null, so the call changes nothing, and `now` is valid for writes.
    let found = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut now) };
    found == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// Waits for the first signal. After that, a second signal ends the program at once.
async fn stop(mut signals: Signals) {
    signals.next().await;
    tracing::info!("shutting down; a second signal ends the server at once");
    #[cfg(unix)]
    tell_supervisor(&[sd_notify::NotifyState::Stopping]);
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(ENDED_AT_ONCE);
    });
}
