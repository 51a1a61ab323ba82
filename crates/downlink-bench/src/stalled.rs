//! Readers that stop reading, and come back: whether each resumes exactly or is told what it missed.
//!
//! They connect before anything is published, read nothing while the load lasts, and then, one after the
//! other, read what there is and reconnect with the last id they have. Apart from the books: a reader
//! that may miss events by agreement has an account of its own.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use downlink_proto::{DecodedEvent, Decoder, Item};
use serde::Serialize;

use super::{
    books::Books,
    plan::Plan,
    record::{Carry, Record, Scanner},
    response::Response,
};

/// Silence after which a reader that came back has not got what it is due.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long all of them may take to come back, so that a server that sends nothing ends.
const RETURN_MAX: Duration = Duration::from_secs(120);
/// How often one may have to reconnect: once for the stall, and once more to be fair.
const RECONNECTS_MAX: usize = 2;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// The type of the events that announce a gap.
pub(super) const GAP: &str = "downlink.gap";

/// The readers, connected.
#[derive(Debug)]
pub(super) struct Stalled {
    readers: Vec<Reader>,
}

/// How they came back.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Returns {
    pub(super) readers: u64,
    /// Those whose connection the server had ended meanwhile.
    pub(super) cut: u64,
    /// Sockets that the server still held for them when the load ended.
    pub(super) still_open: Option<usize>,
    /// Those who missed nothing.
    pub(super) exact: u64,
    /// Those who were told once what they missed.
    pub(super) one_gap: u64,
    /// Those who missed something without being told, were told more than once, got something twice
    /// or out of order, or did not get the newest.
    pub(super) failed: u64,
    /// Why the first of those failed.
    pub(super) problem: Option<String>,
}

#[derive(Debug)]
struct Reader {
    number: usize,
    connection: Connection,
    decoder: Decoder,
    story: Story,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    response: Response,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Read {
    Newest,
    Silent,
    Ended,
}

impl Stalled {
    /// Connects them; nothing if the plan has none.
    ///
    /// # Errors
    ///
    /// If one of them gets no event stream.
    pub(super) fn open(plan: &Plan, run: u32) -> anyhow::Result<Option<Self>> {
        let open = |number: usize| -> anyhow::Result<Reader> {
            let number = plan.connections + number;
            let mut decoder = Decoder::default();
            let connection = connect(plan, number, &mut decoder)?;
            Ok(Reader { number, connection, decoder, story: Story::new(run) })
        };
        let readers: Vec<Reader> = (0..plan.stalled).map(open).collect::<anyhow::Result<_>>()?;
        Ok((!readers.is_empty()).then_some(Self { readers }))
    }

    /// Lets each of them read up to the newest event, and judges what it got.
    pub(super) fn come_back(
        self,
        plan: &Plan,
        books: &Books,
        still_open: Option<usize>,
    ) -> Returns {
        let end = Instant::now() + RETURN_MAX;
        let newest = (0..books.published).rev().find(|number| !books.refused.contains(number));
        let readers = self.readers.len() as u64;
        let mut returns = Returns { readers, still_open, ..Returns::default() };
        for mut reader in self.readers {
            let (was_cut, problem) = reader.come_back(plan, newest, end);
            returns.cut += u64::from(was_cut);
            match problem.map_or_else(|| reader.story.end(books), Err) {
                Ok(0) => returns.exact += 1,
                Ok(_) => returns.one_gap += 1,
                Err(why) => {
                    returns.failed += 1;
                    returns.problem.get_or_insert(why);
                }
            }
        }
        returns
    }
}

impl Reader {
    /// Reads up to the newest event. Says whether the connection had been cut, and what went wrong.
    fn come_back(
        &mut self,
        plan: &Plan,
        newest: Option<u64>,
        end: Instant,
    ) -> (bool, Option<String>) {
        for reconnects in 0..=RECONNECTS_MAX {
            let was_cut = reconnects > 0;
            match self.read_to(newest, end) {
                Read::Newest => return (was_cut, None),
                Read::Silent => return (was_cut, Some("the newest event did not come".to_owned())),
                Read::Ended => {}
            }
            self.decoder.handle_end();
            match connect(plan, self.number, &mut self.decoder) {
                Ok(connection) => self.connection = connection,
                Err(error) => return (true, Some(format!("it could not come back: {error:#}"))),
            }
        }
        (true, Some("its connection ended again and again".to_owned()))
    }

    fn read_to(&mut self, newest: Option<u64>, end: Instant) -> Read {
        let mut buffer = vec![0; READ_BYTES];
        let mut silence = Instant::now();
        loop {
            while let Some(item) = self.decoder.poll_item() {
                if let Item::Event(event) = item {
                    self.story.event(&event);
                    silence = Instant::now();
                }
            }
            if self.story.last >= newest {
                return Read::Newest;
            }
            if silence.elapsed() > SILENCE_MAX || Instant::now() > end {
                return Read::Silent;
            }
            match self.connection.read(&mut buffer, &mut self.decoder) {
                Ok(()) => {}
                Err(error) if is_pause(&error) => {}
                Err(_) => return Read::Ended,
            }
        }
    }
}

/// Whether nothing is there, which is not an end.
fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// Asks for the stream, after the decoder's last id, and reads the head of the answer.
fn connect(plan: &Plan, number: usize, decoder: &mut Decoder) -> anyhow::Result<Connection> {
    let mut stream = TcpStream::connect(plan.subscribe_address)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let last = Some(decoder.last_event_id()).filter(|id| !id.is_empty());
    stream.write_all(&plan.resume_request(number, last))?;
    let mut connection = Connection { stream, response: Response::new() };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        connection.read(&mut buffer, decoder).context("a reader that is to stall got no answer")?;
        match connection.response.head() {
            None => {}
            Some(head) if head.status == 200 && head.is_event_stream => return Ok(connection),
            Some(head) => bail!("a reader that is to stall was answered with {}", head.status),
        }
    }
}

impl Connection {
    /// Reads once; an end of the stream is an error.
    fn read(&mut self, buffer: &mut [u8], decoder: &mut Decoder) -> io::Result<()> {
        if self.response.is_ended() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let read = self.stream.read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut result = Ok(());
        let fed = self.response.feed(&buffer[..read], &mut |body| {
            if result.is_ok() {
                result = decoder.handle_bytes(body);
            }
        });
        fed.map_err(io::Error::other)?;
        result.map_err(io::Error::other)
    }
}

/// What one reader got, over all its connections.
#[derive(Debug)]
struct Story {
    run: u32,
    scanner: Scanner,
    /// The number of the newest event.
    last: Option<u64>,
    /// Times it was told that it missed something.
    gaps: u64,
    /// Whether it was told since the last event.
    is_told: bool,
    /// Holes that it was not told of, as the numbers in them.
    untold: Vec<std::ops::Range<u64>>,
    /// Events that came twice or after a later one.
    disorder: u64,
}

impl Story {
    fn new(run: u32) -> Self {
        let (last, scanner, untold) = (None, Scanner::new(), Vec::new());
        Self { run, scanner, last, gaps: 0, is_told: false, untold, disorder: 0 }
    }

    fn event(&mut self, event: &DecodedEvent) {
        if event.event_type == GAP {
            self.gaps += 1;
            self.is_told = true;
            return;
        }
        let mut found = None;
        self.scanner.scan(&mut Carry::default(), event.data.as_bytes(), |record| {
            found = Some(record);
        });
        if let Some(Record { number, .. }) = found.filter(|record| record.run == self.run) {
            self.record(number);
        }
    }

    fn record(&mut self, number: u64) {
        let next = self.last.map_or(0, |last| last + 1);
        if number < next {
            self.disorder += 1;
            return;
        }
        if number > next && !self.is_told {
            self.untold.push(next..number);
        }
        self.is_told = false;
        self.last = Some(number);
    }

    /// How often it was told of a gap, at most once, or what is wrong.
    fn end(&self, books: &Books) -> Result<u64, String> {
        let was_published = |number: &u64| !books.refused.contains(number);
        let untold = self.untold.iter().cloned().flatten().filter(was_published).count();
        match (untold, self.disorder, self.gaps) {
            (0, 0, gaps @ 0..=1) => Ok(gaps),
            (0, 0, gaps) => Err(format!("it was told of {gaps} gaps")),
            (0, disorder, _) => Err(format!("it got {disorder} events twice or out of order")),
            (untold, ..) => Err(format!("it missed {untold} events without being told")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::Pace;
    use super::*;

    fn books(published: u64, refused: &[u64]) -> Books {
        let mut books = Books::new(1, 1, Pace::window(16)).unwrap();
        for number in 0..published {
            let (place, _) = books.publish(0, 0);
            if refused.contains(&number) {
                books.refuse(place);
            }
        }
        books
    }

    fn event(event_type: &'static str, data: String) -> DecodedEvent {
        let mut decoder = Decoder::default();
        let text = format!("event: {event_type}\ndata: {data}\n\n");
        decoder.handle_bytes(text.as_bytes()).unwrap();
        match decoder.poll_item() {
            Some(Item::Event(event)) => event,
            other => panic!("no event but {other:?}"),
        }
    }

    /// A story from letters: `0` to `9` are events of that number, `g` is a gap.
    fn end(story: &str, refused: &[u64]) -> Result<u64, String> {
        let mut told = Story::new(1);
        for letter in story.chars() {
            told.event(&match letter.to_digit(10) {
                None => event(GAP, "{}".to_owned()),
                Some(digit) => {
                    let record = Record { run: 1, number: digit.into(), due_ns: 0 };
                    event("message", record.payload(100))
                }
            });
        }
        told.end(&books(10, refused))
    }

    #[test]
    fn a_reader_that_gets_all_is_exact() {
        assert_eq!(end("0123456789", &[]), Ok(0));
        assert_eq!(end("0124", &[3]), Ok(0), "what was refused is not missed");
    }

    #[test]
    fn a_hole_of_which_one_is_told_is_a_gap() {
        assert_eq!(end("01g789", &[]), Ok(1));
        assert_eq!(end("g789", &[]), Ok(1));
    }

    #[test]
    fn every_other_hole_is_a_failure() {
        assert_eq!(end("01789", &[]), Err("it missed 5 events without being told".to_owned()));
        assert_eq!(end("0g13", &[]), Err("it missed 1 events without being told".to_owned()));
        assert_eq!(end("0g3g7", &[]), Err("it was told of 2 gaps".to_owned()));
        let disorder = Err("it got 1 events twice or out of order".to_owned());
        assert_eq!(end("0112", &[]), disorder);
        assert_eq!(end("1g0", &[0]), disorder);
    }

    #[test]
    fn events_of_another_run_are_not_in_the_story() {
        let mut story = Story::new(1);
        let foreign = Record { run: 2, number: 7, due_ns: 0 };
        story.event(&event("message", foreign.payload(100)));
        assert_eq!((story.last, story.end(&books(0, &[]))), (None, Ok(0)));
    }
}
