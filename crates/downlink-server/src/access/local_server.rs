//! A small HTTP server on this machine, for tests of the requests that the server itself sends.
//!
//! The server runs in a thread with its own runtime. So if a test pauses the clock of its runtime,
//! the clock of the server goes on. When the server stops, all its connections break, as they do
//! when a process ends.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use axum::Router;
use tokio::{net::TcpListener, sync::oneshot};

/// A running server. It stops when it is dropped.
pub(super) struct LocalServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LocalServer {
    /// Starts a server on a free port.
    pub(super) fn start(router: Router) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), router)
    }

    /// Starts a server at an address.
    pub(super) fn start_at(address: SocketAddr, router: Router) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (bound, address_of) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind(address).await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let address = address_of.recv().unwrap();
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
