//! `downlink serve`: binds, says where, and serves until a signal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
};

use anyhow::{Context as _, anyhow};
use downlink::serve::{StopSignal, stop_signal};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::{app, config::Settings, memory};

/// Connections that may wait to be accepted: a storm of reconnecting clients waits here.
const BACKLOG: u32 = 4_096;

pub(super) fn run(settings: Settings) -> anyhow::Result<()> {
    settings.check()?;
    log_to_stderr()?;
    memory::keep_pages_small();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(memory::give_back_sometimes)
        .build()?;
    runtime.spawn(memory::keep_giving_back());
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let hub = app::hub(&settings).with_context(|| match settings.store() {
        Some(file) => format!("cannot keep history in {}", file.display()),
        None => "cannot keep history".to_owned(),
    })?;
    let listener = bind(settings.listen)?;
    let address = listener.local_addr()?;
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
    greet(address, &settings, server.connections_allowed())?;
    server.with_graceful_shutdown(hub.drain_on(stop(signals))).await?;
    // What is on its way to the disk arrives there.
    hub.close();
    hub.closed().await;
    Ok(())
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{address} is in use by another program; choose another address with --listen, such \
             as --listen {}:{}",
            address.ip(),
            address.port().checked_add(1).unwrap_or(8080)
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is not an address of this machine; choose another one with --listen")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("this user may not listen on {address}; choose a port above 1023 with --listen")
        }
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    })
}

/// The first lines a person sees: where it is, and two commands that work when pasted.
fn greet(address: SocketAddr, settings: &Settings, connections_max: usize) -> anyhow::Result<()> {
    let reached = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => format!("127.0.0.1:{}", address.port()),
        ip if ip.is_unspecified() => format!("[::1]:{}", address.port()),
        _ => address.to_string(),
    };
    let url = format!("http://{reached}");
    let version = crate::VERSION;
    let mut out = io::stdout().lock();
    writeln!(out, "downlink {version} is open for business at {url}")?;
    writeln!(out, "  subscribe:  curl -N '{url}/events?topic=news'")?;
    writeln!(out, "  publish:    curl -d 'hello' '{url}/events?topic=news'")?;
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

/// The exit code of a program that a signal ends, as shells count it.
const ENDED_AT_ONCE: i32 = 130;

/// Completes with the first signal. A second one ends the program at once.
async fn stop(mut signals: StopSignal) {
    (&mut signals).await;
    tracing::info!("shutting down; a second signal ends at once");
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
