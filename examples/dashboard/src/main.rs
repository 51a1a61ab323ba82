//! The program. It listens, prints example requests, and serves until Ctrl-C.
//!
//! The first argument sets the port. If it is missing, the environment variable `PORT` sets the
//! port. The default is 8080. Port 0 means any free port.

use std::{
    env,
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use downlink::serve::stop_signal;
use tokio::net::TcpListener;

/// The default port.
const PORT: u16 = 8080;

/// The maximum duration of a shutdown. The server ends open streams at once. A shutdown takes this
/// long only if a client has stopped reading.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dashboard: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let listener = bind(port(env::args().nth(1).or_else(|| env::var("PORT").ok()))?).await?;
    let stopped = stop_signal()?;
    greet(listener.local_addr()?);
    let hub = dashboard::hub()?;
    tokio::spawn(dashboard::publish_samples(hub.clone(), fastrand::u64(..)));
    let app = dashboard::app(hub);
    downlink::serve(listener, app)
        .with_graceful_shutdown(stopped)
        .drain_within(DRAIN_WITHIN)
        .await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the user who started the program reads this output")]
fn greet(address: SocketAddr) {
    println!("listening on http://{address}/ (Ctrl-C stops the program)");
    println!("  open it, or:");
    println!("  curl -N http://{address}/events");
}

fn port(given: Option<String>) -> Result<u16, String> {
    match given.as_deref() {
        None | Some("") => Ok(PORT),
        Some(text) => text.parse().map_err(|_| {
            format!("{text:?} is not a port: give a number from 0 (any free port) to 65535")
        }),
    }
}

async fn bind(port: u16) -> Result<TcpListener, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use: stop the other program, or choose another port. \
             `cargo run -p dashboard -- 0` uses any free port"
        ),
        _ => format!("cannot listen on {address}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_set_by_the_argument_or_is_the_default() {
        assert_eq!(port(None), Ok(8080));
        assert_eq!(port(Some(String::new())), Ok(8080));
        assert_eq!(port(Some("0".into())), Ok(0));
        assert_eq!(port(Some("65535".into())), Ok(65_535));
    }

    #[test]
    fn invalid_port_is_named_in_the_error() {
        for text in ["65536", "-1", "http"] {
            let error = port(Some(text.into())).unwrap_err();
            assert!(error.contains(&format!("{text:?} is not a port")), "{error}");
        }
    }
}
