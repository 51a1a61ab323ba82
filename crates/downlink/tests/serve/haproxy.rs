//! Tests of the PROXY protocol with a real HAProxy, which inherits its listening socket from the
//! test. If HAProxy is not installed, the tests are skipped and print a message.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use downlink::serve::{AsService, PeerAddr, Serve};
use downlink::{Frame, Sse};
use futures_util::stream;
use tokio::sync::Notify;

use super::per_address::connect_from;
use super::wire::{Path, Tcp, Unix, Wire};
use super::{Running, patiently};

/// A running HAProxy. Dropping this value ends the process.
struct HaProxy {
    process: Child,
    front: SocketAddr,
    folder: std::path::PathBuf,
}

impl HaProxy {
    /// Starts HAProxy in front of the address `app`. `send` is the setting that makes HAProxy send
    /// the PROXY header. Returns `None` if HAProxy is not installed.
    fn start(app: &str, send: &str) -> Option<Self> {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let front = socket.local_addr().expect("the listener is bound");
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).expect("the socket is open");
        let folder = std::env::temp_dir().join(format!(
            "downlink-haproxy-{}-{}",
            std::process::id(),
            front.port()
        ));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        let file = folder.join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             listen front\n  bind fd@{}\n  option httpchk GET /health\n  \
             server app {app} {send} check check-{send} inter 200ms\n",
            socket.as_raw_fd()
        )
        // The setting for health checks is the same for both versions of the header.
        .replace("check-send-proxy-v2", "check-send-proxy");
        std::fs::write(&file, text).expect("the file can be written");
        let program =
            Command::new("haproxy").arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).spawn();
        match program {
            Ok(process) => Some(Self { process, front, folder }),
            Err(error) => {
                eprintln!("skipped, because HAProxy cannot be started: {error}");
                None
            }
        }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An app with a stream that begins with the peer's address. When a health check comes from HAProxy
/// itself and not from one of its clients, the app notifies `checked`.
fn app(checked: Arc<Notify>) -> Router {
    let text = |Extension(peer): Extension<PeerAddr>| async move { format!("{peer:?}") };
    let events = |Extension(peer): Extension<PeerAddr>| async move {
        let mut first = Some(Frame::comment(&format!("peer {peer:?}")));
        Sse::new(stream::poll_fn(move |_| match first.take() {
            Some(frame) => std::task::Poll::Ready(Some(frame)),
            None => std::task::Poll::Pending,
        }))
    };
    let health = move |Extension(peer): Extension<PeerAddr>| async move {
        if matches!(peer, PeerAddr::Unix) || peer.ip().is_some_and(|ip| ip == SELF) {
            checked.notify_one();
        }
    };
    Router::new().route("/", get(text)).route("/events", get(events)).route("/health", get(health))
}

/// The address from which HAProxy connects.
const SELF: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn settings<L, A, Kind>(serve: Serve<L, A, Kind>) -> Serve<L, A, Kind>
where
    L: downlink::serve::Listener,
{
    let proxies = ["127.0.0.1", "unix"].map(|text| text.parse().expect("the text is a proxy"));
    serve
        .trusted_proxies(proxies)
        .proxy_protocol(true)
        .connections_per_address_max(NonZeroU32::MIN)
        .connects_per_address("1/h,burst:100".parse().expect("the text is a rate"))
}

/// Sends requests through HAProxy, from two addresses of this machine.
async fn clients_keep_their_addresses<W: Wire>(send: &str, place: impl Fn(&W::Place) -> String) {
    let checked = Arc::new(Notify::new());
    let running =
        Running::<W>::with::<Router, AsService>(app(Arc::clone(&checked)), settings).await;
    let Some(haproxy) = HaProxy::start(&place(&running.place), send) else { return };
    for host in [2, 3] {
        let connect = async |host: u8, path: &str| {
            let mut client = connect_from(host, haproxy.front).await.expect("HAProxy listens");
            let own = client.io.local_addr().expect("the client is connected");
            client.get(path, "").await;
            (client, format!("Tcp({own})"))
        };
        let (mut stream, own) = connect(host, "/events").await;
        stream.sees(&format!(": peer {own}\n\n")).await;
        let (beyond, _) = connect(host, "/").await;
        let refused = beyond.rest().await;
        assert!(refused.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{refused}");
        drop(stream);
        // When the server has noticed the end of the stream, the address may connect again.
        loop {
            let (mut again, own) = connect(host, "/").await;
            let answer = again.answer().await;
            if answer.status.starts_with("HTTP/1.1 200 ") {
                assert_eq!(answer.body, own);
                break;
            }
        }
    }
    patiently(checked.notified()).await;
}

#[tokio::test]
async fn clients_keep_their_addresses_with_header_version_1_over_tcp() {
    clients_keep_their_addresses::<Tcp>("send-proxy", SocketAddr::to_string).await;
}

#[tokio::test]
async fn clients_keep_their_addresses_with_header_version_2_over_tcp() {
    clients_keep_their_addresses::<Tcp>("send-proxy-v2", SocketAddr::to_string).await;
}

#[tokio::test]
async fn clients_keep_their_addresses_with_both_header_versions_over_a_unix_socket() {
    let place = |path: &Path| format!("unix@{}", path.as_path().display());
    clients_keep_their_addresses::<Unix>("send-proxy", place).await;
    clients_keep_their_addresses::<Unix>("send-proxy-v2", place).await;
}
