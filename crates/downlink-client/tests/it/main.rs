//! The client over real sockets, against a server that sends exact bytes.

mod build;
mod connection;
mod control;
mod publisher;
mod reconnect;
mod request;
mod scripted;
mod waits;
