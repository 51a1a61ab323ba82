//! `downlink health`: asks a server whether it is ready or alive. Container runtimes and scripts run
//! this command, because a container of this program has neither a shell nor curl.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::{
    output::{printed, shown},
    runtime::block_on,
    server_url::ServerUrl,
};

/// The maximum time for the whole request. A server that is in order answers within milliseconds.
/// Docker and Kubernetes usually wait longer for a check, so the user sees the error of this
/// command.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The maximum number of bytes of the answer that the command reads. The server's answers have a few
/// hundred bytes.
const ANSWER_BYTES_MAX: usize = 16 << 10;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The address of the server: a URL, or `unix:` and the path of a socket.
    #[arg(env = "DOWNLINK_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: ServerUrl,
    /// Ask only whether the server is alive (/healthz). By default, the command asks whether the
    /// server takes subscriptions and events (/readyz).
    #[arg(long)]
    live: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    block_on(check(arguments))
}

async fn check(arguments: &Arguments) -> anyhow::Result<()> {
    let url = &arguments.url;
    let path = if arguments.live { "/healthz" } else { "/readyz" };
    let request = url.get(path)?.timeout(ANSWER_WITHIN);
    let (status, body) = async { read(request.send().await?).await }
        .await
        .map_err(reqwest::Error::without_url)
        .with_context(|| format!("no answer from {url}"))?;
    if status != StatusCode::OK {
        bail!("{url} answers {path} with {}: {}", status.as_u16(), reason(&body));
    }
    printed(writeln!(io::stdout(), "{}", shown(body.trim_end())))
}

/// The status and the beginning of the body. The command reads no more than the beginning, because
/// another program may listen at the address.
async fn read(mut response: Response) -> reqwest::Result<(StatusCode, String)> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let free = ANSWER_BYTES_MAX - body.len();
        body.extend_from_slice(chunk.get(..free).unwrap_or(&chunk));
        if body.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok((response.status(), String::from_utf8_lossy(&body).into_owned()))
}

/// What the server says about a failure: the member `detail` of its answer, or the first line of an
/// answer that is not from a downlink server.
fn reason(body: &str) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    match serde_json::from_str::<Problem>(body) {
        Ok(problem) => problem.detail,
        Err(_) => body.lines().next().unwrap_or("the answer has no text").to_owned(),
    }
}
