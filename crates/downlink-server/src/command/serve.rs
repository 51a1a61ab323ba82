//! `downlink serve`: binds or takes over a socket, says where, and serves until a signal.
//!
//! With a socket that was handed over, a restart is in place: the server that ends stops accepting at
//! once, ends its streams, answers the requests it has, commits what it has taken, and lets go of the
//! store; the next one opens the store as soon as that has happened, and only then accepts what has
//! queued in the socket meanwhile. They may overlap, or follow each other.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use downlink::{
    hub::Hub,
    serve::{Listener, StopSignal, stop_signal},
};
use tracing_subscriber::EnvFilter;

use super::listening::{Inherited, Listening};
use crate::{address::Address, app, config::Settings, memory};

pub(super) fn run(mut settings: Settings) -> anyhow::Result<()> {
    log_to_stderr()?;
    memory::keep_pages_small();
    let inherited = Inherited::take()?;
    if let Some(inherited) = &inherited {
        settings.listen = inherited.address()?;
        // The server before this one may take all the time that it has to drain.
        let wait = settings.drain_within.saturating_add(app::STORE_WAIT);
        settings.store_wait.get_or_insert(wait);
    }
    settings.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(memory::give_back_sometimes)
        .build()?;
    runtime.spawn(memory::keep_giving_back());
    runtime.block_on(serve(settings, inherited))
}

async fn serve(settings: Settings, inherited: Option<Inherited>) -> anyhow::Result<()> {
    // The store first: whoever connects waits in the socket until there is a hub to speak to. A
    // signal ends the program here, as it has promised nothing yet.
    let hub = app::hub(&settings).with_context(|| match settings.store() {
        Some(file) => format!("cannot keep history in {}", file.display()),
        None => "cannot keep history".to_owned(),
    })?;
    let listening = match inherited {
        Some(inherited) => inherited.listen()?,
        None => Listening::bind(&settings.listen).await?,
    };
    let address = listening.address()?;
    let served = match listening {
        Listening::Tcp(listener) => serve_on(listener, &address, &hub, &settings).await,
        #[cfg(unix)]
        Listening::Unix(bound) => {
            let (listener, _file) = bound.into_parts();
            serve_on(listener, &address, &hub, &settings).await
        }
    };
    served?;
    // What is on its way to the disk arrives there.
    hub.close();
    hub.closed().await;
    Ok(())
}

async fn serve_on<L: Listener>(
    listener: L,
    address: &Address,
    hub: &Hub<String>,
    settings: &Settings,
) -> anyhow::Result<()> {
    let mut server = downlink::serve(listener, app::app(hub.clone(), settings.clone()))
        .header_timeout(settings.header_timeout)
        .write_stall_max(settings.write_stall_max)
        .unsent_bytes_max(settings.unsent_bytes_max)
        .drain_within(settings.drain_within);
    if let Some(connections_max) = settings.connections_max {
        server = server.connections_max(connections_max);
    }
    // Before anybody knows that we are here: a signal that comes now is heard.
    let signals = stop_signal().context("signals cannot be heard")?;
    greet(address, settings, server.connections_allowed())?;
    #[cfg(unix)]
    tell_supervisor(sd_notify::NotifyState::Ready);
    server.with_graceful_shutdown(hub.drain_on(stop(signals))).await?;
    Ok(())
}

/// Says how far we are to whoever started us and wants to know (`Type=notify` in systemd).
#[cfg(unix)]
fn tell_supervisor(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the supervisor cannot be told");
    }
}

/// The first lines a person sees: where it is, and two commands that work when pasted.
fn greet(address: &Address, settings: &Settings, connections_max: usize) -> anyhow::Result<()> {
    let Reached { place, curl, url } = Reached::by(address);
    let version = crate::VERSION;
    let mut out = io::stdout().lock();
    writeln!(out, "downlink {version} is open for business at {place}")?;
    writeln!(out, "  subscribe:  curl {curl}-N '{url}/events?topic=news'")?;
    writeln!(out, "  publish:    curl {curl}-d 'hello' '{url}/events?topic=news'")?;
    writeln!(out, "  page:       {url}/")?;
    let mebibytes = settings.history_bytes_max >> 20;
    match settings.store() {
        Some(file) => writeln!(
            out,
            "  history is kept in {} ({mebibytes} MiB of it in memory); up to {connections_max} \
             connections",
            file.display()
        )?,
        None => writeln!(
            out,
            "  history is in memory ({mebibytes} MiB at most) and gone with a restart; up to \
             {connections_max} connections"
        )?,
    }
    out.flush().context("cannot write to stdout")
}

/// How a person of this machine reaches an address.
struct Reached {
    place: String,
    /// What curl has to be told besides the address.
    curl: String,
    url: String,
}

impl Reached {
    fn by(address: &Address) -> Self {
        let address = match address {
            Address::Tcp(address) => address,
            Address::Unix(path) => {
                let curl = format!("--unix-socket '{}' ", path.display());
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

/// The exit code of a program that a signal ends, as shells count it.
const ENDED_AT_ONCE: i32 = 130;

/// Completes with the first signal. A second one ends the program at once.
async fn stop(mut signals: StopSignal) {
    (&mut signals).await;
    tracing::info!("shutting down; a second signal ends at once");
    #[cfg(unix)]
    tell_supervisor(sd_notify::NotifyState::Stopping);
    tokio::spawn(async move {
        signals.await;
        std::process::exit(ENDED_AT_ONCE);
    });
}

fn log_to_stderr() -> anyhow::Result<()> {
    let wanted = std::env::var("DOWNLINK_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&wanted).with_context(|| {
        format!("DOWNLINK_LOG={wanted:?} is not understood; say error, warn, info, debug or trace")
    })?;
    let colours = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    // A subscriber that is already there, as in tests, stays.
    let _ = log.with_writer(io::stderr).try_init();
    Ok(())
}
