//! Checks the metrics of the server with promtool, which is part of Prometheus.
//!
//! The server has a subscriber and gets events, so each metric with labels has a sample.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::browser;
use crate::command::{self, command};
use crate::setup::{self, Readiness};
use crate::steps::Outcome;
use crate::workspace::Workspace;

/// The maximum wait for an answer. An answer usually takes milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The step `promtool` of `cargo xtask ci`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = setup::promtool() {
        return Ok(Outcome::Skipped(why));
    }
    browser::build(workspace)?;
    let server = Server::start(workspace, &["dev", "--listen", "127.0.0.1:0", "--store", "none"])?;
    let mut subscriber = server.get("/events?topic=checked", "")?;
    let mut first = String::new();
    subscriber.read_line(&mut first).context("the subscription got no answer")?;
    ensure!(first.contains("200"), "the server refused the subscription: {first}");
    for topic in ["checked", "unread"] {
        let event = format!("POST /events?topic={topic} HTTP/1.1\r\nContent-Length: 5\r\n");
        answer(server.send(&event, "hello")?)?;
    }
    let metrics = answer(server.get("/metrics", "Accept: text/plain\r\n")?)?;
    ensure!(
        metrics.contains("downlink_"),
        "the answer contains no metrics of downlink:\n{metrics}"
    );
    lint(command(&workspace.root, "promtool", &["check", "metrics"]), &metrics)?;
    println!("promtool accepts {} lines", metrics.lines().count());
    Ok(Outcome::Passed)
}

/// Passes the metrics to a tool, which has to succeed and to print nothing.
fn lint(mut tool: Command, metrics: &str) -> anyhow::Result<()> {
    let line = command::line(&tool);
    println!("$ {line}");
    tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool.spawn().with_context(|| format!("cannot start: {line}"))?;
    // Dropping the pipe ends the input. If the tool stops reading early, its output has the reason.
    let written = child
        .stdin
        .take()
        .context("the input of the tool is not piped")?
        .write_all(metrics.as_bytes());
    let output = child.wait_with_output().context("cannot wait for the end of the tool")?;
    let said = [output.stdout, output.stderr].concat();
    if !output.status.success() || !said.is_empty() {
        bail!("{}: {line}\n{}", output.status, String::from_utf8_lossy(&said).trim_end());
    }
    written.context("the tool did not read all of the metrics")
}

/// A new server on a free port. When this value is dropped, the server is killed.
pub(crate) struct Server {
    process: Child,
    /// Host and port.
    pub(crate) address: String,
}

impl Server {
    /// Starts the server with these arguments, and waits until it listens.
    pub(crate) fn start(workspace: &Workspace, words: &[&str]) -> anyhow::Result<Self> {
        let program = workspace.target.join("debug/downlink");
        let mut command = command(Path::new("/"), program, words);
        let line = command::line(&command);
        println!("$ {line}");
        command.stdout(Stdio::piped());
        let process = command.spawn().with_context(|| format!("cannot start: {line}"))?;
        let mut server = Self { process, address: String::new() };
        let output =
            server.process.stdout.take().context("the output of the server is not piped")?;
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let (found, address) = mpsc::channel();
        // The thread reads the output to its end, so that the server can continue to print.
        thread::spawn(move || {
            for line in lines {
                let url = line.split_once("http://").map(|(_, url)| url.trim_end_matches('/'));
                // Only the first address is received. Sending a later address may fail, which does
                // no harm.
                url.map(|url| found.send(url.to_owned()).ok());
            }
        });
        server.address = address
            .recv_timeout(ANSWER_WITHIN)
            .with_context(|| format!("no address was printed by: {line}"))?;
        Ok(server)
    }

    fn get(&self, target: &str, fields: &str) -> anyhow::Result<BufReader<TcpStream>> {
        self.send(&format!("GET {target} HTTP/1.1\r\n{fields}"), "")
    }

    /// Sends a request. Completes the head with the fields that every request has.
    fn send(&self, head: &str, body: &str) -> anyhow::Result<BufReader<TcpStream>> {
        let mut socket = TcpStream::connect(&self.address)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        let request = format!("{head}Host: {}\r\nConnection: close\r\n\r\n{body}", self.address);
        socket.write_all(request.as_bytes())?;
        Ok(BufReader::new(socket))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads an answer until the server closes the connection, and returns the body. The status must be
/// 200, and the body must not be chunked.
fn answer(mut from: BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text).context("no answer")?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer ended early")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "the server answers: {text}");
    ensure!(
        !head.to_ascii_lowercase().contains("transfer-encoding"),
        "the answer is chunked:\n{head}"
    );
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(script: &str) -> Command {
        command(Path::new("/"), "sh", &["-c", script])
    }

    #[test]
    fn a_tool_that_succeeds_without_output_accepts_the_metrics() {
        assert!(lint(tool("cat > /dev/null"), "downlink_up 1\n").is_ok());
    }

    #[test]
    fn output_of_the_tool_is_an_error_even_if_the_tool_succeeds() {
        for script in ["cat", "cat >&2", "cat > /dev/null; exit 3"] {
            let error = lint(tool(script), "no help text\n").unwrap_err().to_string();
            assert!(error.contains(script), "{error}");
        }
    }
}
