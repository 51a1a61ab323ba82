//! A link carries the connections from one process to another, and the test can cut it. The bytes
//! of the connections pass through the test.
//!
//! A link does not lose, change or reorder bytes of a connection that stays open. A silent link
//! holds the bytes back, as a network does during an interruption. A closed link ends its
//! connections.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// The maximum number of bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// What happens to the bytes of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    Open,
    /// Bytes wait, and new connections get no answer.
    Silent,
    /// All connections are closed, even new ones.
    Closed,
}

/// A link. Clones are the same link. It works until the runtime of the test ends.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<watch::Sender<Flow>>);

impl Link {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Flow::Open)))
    }

    pub(crate) fn set(&self, flow: Flow) {
        self.0.send_replace(flow);
    }

    /// Listens at a new address, and passes connections on to the address `to`. Returns the new
    /// address.
    pub(crate) async fn listen(&self, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let flow = self.0.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *flow.borrow() != Flow::Closed {
                    tokio::spawn(pass(client, to, flow.clone()));
                }
            }
        });
        address
    }
}

/// Passes the bytes of a connection on until one side ends it or the link is closed.
async fn pass(client: TcpStream, to: SocketAddr, mut flow: watch::Receiver<Flow>) {
    if flow.wait_for(|flow| *flow != Flow::Silent).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = pass_bytes(from_client, to_server, flow.clone()) => {}
        _ = pass_bytes(from_server, to_client, flow.clone()) => {}
        _ = flow.wait_for(|flow| *flow == Flow::Closed) => {}
    }
}

async fn pass_bytes(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        flow.wait_for(|flow| *flow != Flow::Silent).await.map_err(io::Error::other)?;
        to.write_all(&bytes[..read]).await?;
    }
}
