//! The queue of lines that wait for stderr, and the thread that writes them.
//!
//! The program that reads stderr may be slow, or may have stopped. Then only the thread waits for
//! it. When the queue is full, further lines are left out and counted. The queue keeps some room
//! that lines about requests cannot use, so a storm of requests does not displace a warning.
//!
//! The crate `tracing-appender` has such a thread too. But if this thread does not end in time, the
//! crate prints a message to stdout. If the reader of stdout has stopped, this print blocks, and
//! the program does not end. The crate also does not count failed writes.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::filter::ACCESS;

/// The maximum size of the waiting lines about requests. With lines of 400 bytes, these are 10,000
/// lines, so a restart of a proxy with 10,000 streams leaves out no line.
const REQUESTS_BYTES_MAX: usize = 4 << 20;

/// The maximum size of all waiting lines.
const ALL_BYTES_MAX: usize = REQUESTS_BYTES_MAX + (1 << 20);

/// How long the end of the program waits for the thread. A reader that takes longer has probably
/// stopped.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The pause before another write to a stderr that never blocks and has no room.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// A buffer that has grown larger than this shrinks to this size after it has been written.
const BUFFER_KEPT: usize = 64 << 10;

/// A handle to the queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Notified when there are lines to write, and when the queue is closed.
    to_write: Condvar,
    /// Notified when the thread has written all lines of a closed queue.
    written: Condvar,
}

/// The lock is held while one line is copied. No other lock is taken meanwhile.
#[derive(Debug, Default)]
struct Waiting {
    /// Whole lines, each with its line end.
    lines: Vec<u8>,
    left_out: u64,
    is_closed: bool,
    is_over: bool,
}

impl Queue {
    /// Starts the thread, which writes to `output`.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self::default();
        let shared = Arc::clone(&queue.0);
        thread::Builder::new()
            .name("downlink-log".to_owned())
            .spawn(move || shared.write_all(output))?;
        Ok(queue)
    }

    /// The number of lines that were left out, because the queue was full or a write failed.
    pub(super) fn left_out(&self) -> u64 {
        self.0.waiting.lock().left_out
    }

    /// Waits until all lines are written, but at most a second. Later lines are left out.
    pub(super) fn close(&self) {
        let mut waiting = self.0.waiting.lock();
        waiting.is_closed = true;
        self.0.to_write.notify_one();
        self.0.written.wait_while_for(&mut waiting, |waiting| !waiting.is_over, FLUSH_WITHIN);
    }

    /// Adds a line that is not about a request.
    pub(super) fn push_always(&self, line: &str) {
        self.push(line.as_bytes(), ALL_BYTES_MAX);
    }

    fn push(&self, line: &[u8], bytes_max: usize) {
        let mut waiting = self.0.waiting.lock();
        if waiting.is_closed || waiting.lines.len() + line.len() > bytes_max {
            waiting.left_out += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        self.0.to_write.notify_one();
    }
}

impl Shared {
    /// Writes lines until the queue is closed and empty.
    fn write_all(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        // Whether the output so far ends in the middle of a line, because a write has failed.
        let mut is_cut = false;
        loop {
            let mut waiting = self.waiting.lock();
            let is_idle = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.is_closed;
            self.to_write.wait_while(&mut waiting, is_idle);
            if waiting.lines.is_empty() {
                waiting.is_over = true;
                self.written.notify_one();
                return;
            }
            mem::swap(&mut batch, &mut waiting.lines);
            drop(waiting);
            if is_cut {
                // Without this line end, the next line would continue the cut line.
                batch.insert(0, b'\n');
            }
            let rest = write(&mut output, &batch);
            let written = &batch[..batch.len() - rest.len()];
            is_cut = written.last().map_or(is_cut, |last| *last != b'\n');
            let lost = rest.iter().filter(|byte| **byte == b'\n').count();
            if lost > 0 {
                self.waiting.lock().left_out += lost as u64;
            }
            batch.clear();
            batch.shrink_to(BUFFER_KEPT);
        }
    }
}

/// Writes as much as possible. Returns the bytes that could not be written.
fn write<'a>(output: &mut impl Write, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => break,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another program may have made stderr non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::park_timeout(RETRY_AFTER)
            }
            Err(_) => break,
        }
    }
    bytes
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { queue: self, bytes_max: ALL_BYTES_MAX }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> LineWriter<'a> {
        let is_request = line.target() == ACCESS;
        let bytes_max = if is_request { REQUESTS_BYTES_MAX } else { ALL_BYTES_MAX };
        LineWriter { queue: self, bytes_max }
    }
}

/// Puts one line into the queue. `tracing-subscriber` passes a whole line in one call.
#[derive(Debug)]
pub(super) struct LineWriter<'a> {
    queue: &'a Queue,
    bytes_max: usize,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.bytes_max);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// An output that waits for permission before each write.
    struct Slow {
        permits: Receiver<bool>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.permits.recv().unwrap_or(false) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.send(bytes.to_owned()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Queue, Sender<bool>, Receiver<Vec<u8>>) {
        let ((allow, permits), (written, read)) = (channel(), channel());
        (Queue::start(Slow { permits, written }).unwrap(), allow, read)
    }

    #[test]
    fn lines_are_written_in_order_until_the_queue_is_closed() {
        let (queue, allow, read) = slow();
        for number in 0..100 {
            allow.send(true).unwrap();
            queue.push(format!("{number}\n").as_bytes(), ALL_BYTES_MAX);
        }
        queue.close();
        let written: Vec<u8> = read.try_iter().flatten().collect();
        let due: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!((String::from_utf8(written).unwrap(), queue.left_out()), (due, 0));
        queue.push(b"late\n", ALL_BYTES_MAX);
        assert_eq!(queue.left_out(), 1);
    }

    #[test]
    fn a_full_queue_leaves_out_lines_about_requests_before_other_lines() {
        let (queue, _allow, _read) = slow();
        let line = [b'x'; 1 << 20];
        // The thread takes the first line, and then waits for a permit for ever.
        queue.push(b"first\n", ALL_BYTES_MAX);
        while !queue.0.waiting.lock().lines.is_empty() {
            thread::yield_now();
        }
        while queue.left_out() == 0 {
            queue.push(&line, REQUESTS_BYTES_MAX);
        }
        queue.push(b"a warning\n", ALL_BYTES_MAX);
        assert_eq!(queue.left_out(), 1);
        queue.push(&line, ALL_BYTES_MAX);
        assert_eq!(queue.left_out(), 2);
    }

    #[test]
    fn lines_that_cannot_be_written_count_as_left_out() {
        let (queue, allow, read) = slow();
        allow.send(false).unwrap();
        queue.push(b"one\n", ALL_BYTES_MAX);
        while queue.left_out() == 0 {
            thread::yield_now();
        }
        allow.send(true).unwrap();
        queue.push(b"two\n", ALL_BYTES_MAX);
        queue.close();
        assert_eq!((read.recv().unwrap(), queue.left_out()), (b"two\n".to_vec(), 1));
    }

    /// An output that takes three bytes, fails once, and then takes everything.
    #[derive(Clone, Default)]
    struct Failing(Arc<Mutex<Vec<u8>>>, Arc<Mutex<u8>>);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut calls = self.1.lock();
            *calls += 1;
            let taken = match *calls {
                1 => 3,
                2 => return Err(io::ErrorKind::StorageFull.into()),
                _ => bytes.len(),
            };
            self.0.lock().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_after_a_cut_line_begins_on_its_own_line() {
        let output = Failing::default();
        let queue = Queue::start(output.clone()).unwrap();
        queue.push(b"first\n", ALL_BYTES_MAX);
        while queue.left_out() == 0 {
            thread::yield_now();
        }
        queue.push(b"second\n", ALL_BYTES_MAX);
        queue.close();
        assert_eq!(*output.0.lock(), b"fir\nsecond\n");
        assert_eq!(queue.left_out(), 1);
    }

    /// A reader that has stopped must not keep the program from ending.
    #[test]
    fn the_end_does_not_wait_for_a_reader_that_has_stopped() {
        let (queue, _allow, read) = slow();
        queue.push(b"one\n", ALL_BYTES_MAX);
        queue.close();
        assert!(read.try_recv().is_err());
    }
}
