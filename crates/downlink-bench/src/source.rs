//! A publisher that outlives its server: one request at a time, waiting for each answer.
//!
//! It keeps what became of every event, by its number: only what was answered well counts as kept.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{plan::Plan, record::Record, response::Response};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How often one looks whether the server is back.
const LOOK: Duration = Duration::from_millis(2);
/// Bytes read at a time: an answer.
const READ_BYTES: usize = 4 << 10;

/// What became of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// Acknowledged.
    Kept,
    /// No answer, or a bad one: it may be kept or not.
    Cut,
}

#[derive(Debug)]
pub(super) struct Source {
    plan: Plan,
    run: u32,
    stream: Option<TcpStream>,
    /// By the events' numbers.
    pub(super) answers: Vec<Answer>,
    problem: Option<String>,
}

impl Source {
    pub(super) fn new(plan: Plan, run: u32) -> Self {
        Self { plan, run, stream: None, answers: Vec::new(), problem: None }
    }

    /// Publishes the next event and waits for the answer.
    pub(super) fn publish_next(&mut self) -> Answer {
        let answer = match self.publish_once() {
            Ok(()) => Answer::Kept,
            Err(error) => {
                self.problem = Some(format!("{error:#}"));
                self.stream = None;
                Answer::Cut
            }
        };
        self.answers.push(answer);
        answer
    }

    /// Publishes so many; says the number of the newest.
    ///
    /// # Errors
    ///
    /// If one of them is not acknowledged.
    pub(super) fn publish(&mut self, events: u64) -> anyhow::Result<u64> {
        for _ in 0..events {
            if self.publish_next() == Answer::Cut {
                bail!("publishing failed: {}", self.problem.take().unwrap_or_default());
            }
        }
        (self.answers.len() as u64).checked_sub(1).context("nothing was published")
    }

    /// Waits until the server accepts connections again.
    ///
    /// # Errors
    ///
    /// If it does not within this time.
    pub(super) fn wait_for_server(&mut self, time: Duration) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            match self.connected() {
                Ok(_) => return Ok(()),
                Err(error) if since.elapsed() > time => {
                    return Err(error).context("the server did not come back");
                }
                Err(_) => thread::sleep(LOOK),
            }
        }
    }

    fn connected(&mut self) -> io::Result<&mut TcpStream> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.plan.publish_address)?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn publish_once(&mut self) -> anyhow::Result<()> {
        let record = Record { run: self.run, number: self.answers.len() as u64, due_ns: 0 };
        let payload = record.payload(self.plan.payload_bytes);
        let request = self.plan.publish_request(0, &[(0, payload)]);
        let stream = self.connected()?;
        stream.write_all(&request)?;
        let (mut response, mut buffer) = (Response::new(), [0; READ_BYTES]);
        while !response.is_ended() {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                bail!("the connection ended before the answer");
            }
            response.feed(&buffer[..read], &mut |_| ())?;
        }
        match response.head() {
            Some(head) if (200..300).contains(&head.status) => Ok(()),
            head => bail!("answered with {}", head.map_or(0, |head| head.status)),
        }
    }
}
