//! A forwarder works like a load balancer. Its address stays the same while it connects its clients
//! to one server after another.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// Forwards connections to the current server.
pub(crate) struct Forwarder {
    pub(crate) url: String,
    to: Arc<Mutex<SocketAddr>>,
}

impl Forwarder {
    pub(crate) fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("the listener is bound"));
        let to = Arc::new(Mutex::new(address.parse().expect("an address")));
        let target = Arc::clone(&to);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let address = *target.lock().expect("no thread panicked");
                // If the server has ended, the client's connection is closed at the end of this
                // loop's body.
                if let Ok(server) = TcpStream::connect(address) {
                    copy_both_ways(&client, &server);
                }
            }
        });
        Self { url, to }
    }

    pub(crate) fn turn_to(&self, address: &str) {
        *self.to.lock().expect("no thread panicked") = address.parse().expect("an address");
    }
}

fn copy_both_ways(client: &TcpStream, server: &TcpStream) {
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (
            from.try_clone().expect("the connection is open"),
            to.try_clone().expect("the connection is open"),
        );
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
