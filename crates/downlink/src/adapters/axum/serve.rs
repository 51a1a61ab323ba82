//! The parts of `axum::serve` that [`serve`](crate::serve()) also offers: the peer's address as an
//! extractor, and axum's listeners.

use std::fmt;
use std::io;

use axum::extract::ConnectInfo;
use http::Extensions;

/// Adds the peer's address to the extensions of a request, for axum's extractor `ConnectInfo`.
pub(crate) fn insert_connect_info<Addr>(extensions: &mut Extensions, peer: &Addr)
where
    Addr: Clone + Send + Sync + 'static,
{
    extensions.insert(ConnectInfo(peer.clone()));
}

/// Wraps a listener made for `axum::serve`, for use with [`serve`](crate::serve()).
///
/// axum's listeners handle errors themselves: they log each error and pause for a second.
#[derive(Clone, Copy, Debug)]
pub struct AxumListener<L>(pub L);

impl<L> crate::serve::Listener for AxumListener<L>
where
    L: axum::serve::Listener,
    L::Addr: Clone + fmt::Debug + Sync + 'static,
{
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> io::Result<(L::Io, L::Addr)> {
        Ok(self.0.accept().await)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.0.local_addr()
    }
}

impl<L, F> crate::serve::Listener for axum::serve::TapIo<L, F>
where
    L: axum::serve::Listener,
    L::Addr: Clone + fmt::Debug + Sync + 'static,
    F: FnMut(&mut L::Io) + Send + 'static,
{
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> io::Result<(L::Io, L::Addr)> {
        Ok(axum::serve::Listener::accept(self).await)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        axum::serve::Listener::local_addr(self)
    }
}
