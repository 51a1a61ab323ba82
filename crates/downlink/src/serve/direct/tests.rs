//! Tests of the drivers (the tasks that serve many event streams) with bodies that misbehave. The
//! connections are pairs of Unix sockets.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::lanes::LANE_TURN;
use super::{
    Arrival, ConnectionFuture, DirectStreams, HandedOver, PolledBytes as Polled, Socket, start,
};
use crate::http::{Moment, Spread, driven};
use crate::serve::drain::Drain;
use crate::serve::limits::ServeLimits;
use crate::serve::peer_socket::{CLOSE_LINGER, PeerSocket};
use crate::serve::stats::ServeStats;

/// The maximum time of one wait. It is far more than any of these tests needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The maximum number of polls of a body that is always ready, or that always wakes itself. After
/// that, the body ends.
const RESTLESS_MAX: usize = 100_000;

/// A body that calls a closure in each poll. The body may panic when it is dropped.
struct Fake {
    poll: Box<dyn FnMut(&mut Context<'_>) -> Polled + Send>,
    panics: bool,
}

impl Fake {
    fn new(poll: impl FnMut(&mut Context<'_>) -> Polled + Send + 'static) -> Option<Self> {
        Some(Self { poll: Box::new(poll), panics: false })
    }

    /// A body that yields this text and then stays pending.
    fn saying(text: &'static str) -> Option<Self> {
        let mut text = Some(text);
        Self::new(move |_| match text.take() {
            Some(text) => Poll::Ready(Some(Ok(Bytes::from_static(text.as_bytes())))),
            None => Poll::Pending,
        })
    }

    /// A body that yields this text and then the result of `end`.
    fn ending(text: &'static str, end: fn() -> Polled) -> Option<Self> {
        let mut text = Some(text);
        Self::new(move |_| match text.take() {
            Some(text) => Poll::Ready(Some(Ok(Bytes::from_static(text.as_bytes())))),
            None => end(),
        })
    }

    fn panicking_in_drop(mut self) -> Self {
        self.panics = true;
        self
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        assert!(!self.panics, "a user's body may panic here");
    }
}

impl HandedOver for Option<Fake> {
    fn prefetch(&self) -> bool {
        self.is_some()
    }

    fn poll_body(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        (self.as_mut().get_mut().as_mut().expect("the body has not been dropped").poll)(cx)
    }

    fn drop_body(mut self: Pin<&mut Self>) {
        self.set(None);
    }

    fn drop_stalled(mut self: Pin<&mut Self>) {
        self.set(None);
    }

    fn go_on(self: Pin<&mut Self>, socket: Socket, requests: Option<Bytes>) -> ConnectionFuture {
        Box::pin(async move {
            if requests.is_some() {
                return;
            }
            let io: tokio::net::UnixStream = socket.into_io().expect("a runtime is running");
            PeerSocket::new(io, &limits(), &ServeStats::new(), ()).close().await;
        })
    }
}

fn limits() -> ServeLimits {
    let second = Duration::from_secs(1);
    ServeLimits {
        drain_within: second,
        reconnection: Spread::between(second, second),
        header_timeout: second,
        idle_timeout: second,
        write_stall_max: second,
        unsent_bytes_max: 0,
        connections_max: 1,
    }
}

/// The drivers of a server, without the rest of the server.
struct Rig {
    streams: DirectStreams,
    tasks: JoinSet<()>,
    resumed: UnboundedReceiver<ConnectionFuture>,
}

impl Rig {
    fn new() -> Self {
        let drain = Arc::new(Drain::new(limits().reconnection));
        let (sender, resumed) = unbounded_channel();
        let mut tasks = JoinSet::new();
        let stall_max = limits().write_stall_max;
        let stats = ServeStats::new();
        let streams =
            start::<tokio::net::UnixStream>(&mut tasks, &drain, stall_max, &sender, &stats);
        Self { streams, tasks, resumed }
    }

    /// Hands a body over to a driver, and returns the peer's socket.
    fn hand_over(&self, body: Option<Fake>, keep_alive: bool) -> tokio::net::UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        ours.set_nonblocking(true).expect("sockets can be non-blocking");
        theirs.set_nonblocking(true).expect("sockets can be non-blocking");
        self.push(ours.into(), body, keep_alive);
        tokio::net::UnixStream::from_std(theirs).expect("a runtime is running")
    }

    fn push(&self, socket: OwnedFd, body: Option<Fake>, keep_alive: bool) {
        let (socket, stream, input) = (Socket(socket), Box::pin(body), Bytes::new());
        self.streams.push(Arrival { socket, stream, input, keep_alive, times_stalls: true });
    }

    /// The next connection whose stream has ended.
    async fn next_resumed(&mut self) -> ConnectionFuture {
        patiently(self.resumed.recv()).await.expect("the drivers are running")
    }

    async fn all_ended(&self) {
        patiently(self.streams.all_ended()).await;
    }

    /// Asserts that a further stream is served.
    async fn serves(&self) {
        let mut peer = self.hand_over(Fake::saying("hello"), false);
        assert_eq!(patiently(read(&mut peer, 10)).await, "5\r\nhello\r\n");
    }
}

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait took too long")
}

async fn read(peer: &mut tokio::net::UnixStream, len: usize) -> String {
    let mut bytes = vec![0; len];
    peer.read_exact(&mut bytes).await.expect("the connection is open");
    String::from_utf8(bytes).expect("the bytes are text")
}

async fn rest(mut peer: tokio::net::UnixStream) -> io::Result<String> {
    let mut text = String::new();
    patiently(peer.read_to_string(&mut text)).await?;
    Ok(text)
}

#[tokio::test]
async fn a_driver_survives_a_socket_that_cannot_be_watched() {
    let rig = Rig::new();
    // The kernel cannot watch files.
    let file = File::open(std::env::current_exe().expect("the program has a path"))
        .expect("the program can be read");
    rig.push(OwnedFd::from(file), Fake::saying("never"), true);
    rig.all_ended().await;
    rig.serves().await;
}

#[tokio::test]
async fn a_body_that_wakes_itself_lets_other_tasks_run() {
    let mut rig = Rig::new();
    let ran = Arc::new(AtomicBool::new(false));
    let (seen, mut polls) = (Arc::clone(&ran), 0);
    let _peer = rig.hand_over(
        Fake::new(move |cx| {
            polls += 1;
            if polls > RESTLESS_MAX || seen.load(Ordering::Relaxed) {
                assert!(polls < RESTLESS_MAX, "no other task ran");
                return Poll::Ready(None);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }),
        true,
    );
    let polled = Arc::clone(&ran);
    let other = tokio::spawn(async move {
        // This task is polled twice, so that the driver starts in between.
        tokio::task::yield_now().await;
        polled.store(true, Ordering::Relaxed);
    });
    other.await.expect("no task panicked");
    drop(rig.next_resumed().await);
}

#[tokio::test]
async fn a_body_of_empty_frames_lets_other_streams_run() {
    let rig = Rig::new();
    let (polls, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, seen) = (Arc::clone(&polls), Arc::clone(&done));
    let _peer = rig.hand_over(
        Fake::new(move |_| {
            let polls = count.fetch_add(1, Ordering::Relaxed);
            let over = polls > RESTLESS_MAX || seen.load(Ordering::Relaxed);
            Poll::Ready((!over).then(|| Ok(Bytes::new())))
        }),
        true,
    );
    rig.serves().await;
    done.store(true, Ordering::Relaxed);
    assert!(
        polls.load(Ordering::Relaxed) < RESTLESS_MAX,
        "the other stream waited until this body gave up"
    );
}

#[tokio::test]
async fn a_body_that_panics_when_dropped_does_not_affect_other_streams() {
    let mut rig = Rig::new();
    let mut beside = rig.hand_over(Fake::saying("hello"), false);
    assert_eq!(patiently(read(&mut beside, 10)).await, "5\r\nhello\r\n");
    let ended = || Poll::Ready(None);
    let body = Fake::ending("a", ended).map(Fake::panicking_in_drop);
    let mut peer = rig.hand_over(body, true);
    assert_eq!(patiently(read(&mut peer, 11)).await, "1\r\na\r\n0\r\n\r\n");
    drop(rig.next_resumed().await);
    assert_eq!(rig.streams.len(), 1);
    rig.serves().await;
}

#[tokio::test]
async fn the_end_of_the_drivers_closes_all_streams_even_if_their_bodies_panic() {
    let mut rig = Rig::new();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let body = Fake::saying("hello").map(Fake::panicking_in_drop);
        let mut peer = rig.hand_over(body, false);
        assert_eq!(patiently(read(&mut peer, 10)).await, "5\r\nhello\r\n");
        peers.push(peer);
    }
    rig.tasks.shutdown().await;
    assert_eq!(rig.streams.len(), 0);
    for peer in peers {
        assert_eq!(rest(peer).await.expect("the connection was not reset"), "");
    }
    // The drivers have ended, so a late stream is closed at once.
    let late = rig.hand_over(Fake::saying("never"), false);
    assert_eq!(rest(late).await.expect("the connection was not reset"), "");
    rig.all_ended().await;
}

/// Ends a stream whose socket has unread input, and returns the text that the peer got. Like a TCP
/// socket, a Unix socket that is closed with unread input sends a reset.
async fn with_unread_input(end: fn() -> Polled, keep_alive: bool) -> String {
    let mut rig = Rig::new();
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets can be made");
    ours.set_nonblocking(true).expect("sockets can be non-blocking");
    theirs.set_nonblocking(true).expect("sockets can be non-blocking");
    let mut peer = tokio::net::UnixStream::from_std(theirs).expect("a runtime is running");
    peer.write_all(b"more than the request").await.expect("the socket has room");
    rig.push(ours.into(), Fake::ending("last words", end), keep_alive);
    let closing = rig.next_resumed().await;
    rig.all_ended().await;
    let (text, ()) = tokio::join!(rest(peer), closing);
    text.expect("the connection was not reset")
}

#[tokio::test]
async fn a_body_that_ends_causes_no_reset_even_with_unread_input() {
    assert_eq!(
        with_unread_input(|| Poll::Ready(None), false).await,
        "a\r\nlast words\r\n0\r\n\r\n"
    );
}

#[tokio::test]
async fn a_body_that_fails_causes_no_reset_even_with_unread_input() {
    let cut = || Poll::Ready(Some(Err("cut".into())));
    assert_eq!(with_unread_input(cut, true).await, "a\r\nlast words\r\n");
    assert_eq!(with_unread_input(|| panic!("bug"), true).await, "a\r\nlast words\r\n");
}

/// A careful close waits for the peer after the last bytes (see `peer_socket`). The body has
/// set a timer that is due during this wait.
#[tokio::test(start_paused = true)]
async fn a_timer_of_the_body_does_not_shorten_the_careful_close() {
    let mut rig = Rig::new();
    let begun = Instant::now();
    let mut polls = 0;
    let body = Fake::new(move |cx| {
        polls += 1;
        if polls > 1 {
            return Poll::Ready(None);
        }
        assert!(
            driven::wake_at(cx, Moment::at(begun + CLOSE_LINGER / 4)),
            "no driver polls the body"
        );
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    let mut peer = rig.hand_over(body, false);
    assert_eq!(read(&mut peer, 5).await, "0\r\n\r\n");
    rig.next_resumed().await.await;
    assert!(begun.elapsed() >= CLOSE_LINGER, "{:?}", begun.elapsed());
}

/// The lanes (the numbers of the driver's queues) of the polled bodies, in the order of the polls,
/// and the waker of each body.
#[derive(Default)]
struct Roll {
    called: Vec<u32>,
    wakers: Vec<(u32, Waker)>,
}

#[tokio::test]
async fn a_reader_of_a_quiet_topic_waits_for_one_turn_of_a_busy_topic() {
    const BUSY: u32 = 7;
    const QUIET: u32 = 8;
    const READERS: usize = 200;

    let (rig, roll) = (Rig::new(), Arc::new(Mutex::new(Roll::default())));
    let mut peers = Vec::new();
    for lane in [[BUSY; READERS].as_slice(), &[QUIET]].concat() {
        let roll = Arc::clone(&roll);
        let body = Fake::new(move |cx| {
            driven::set_lane(lane);
            let mut roll = roll.lock().expect("no task panicked");
            roll.called.push(lane);
            roll.wakers.push((lane, cx.waker().clone()));
            Poll::Pending
        });
        peers.push(rig.hand_over(body, false));
    }
    let all_called = async || {
        while roll.lock().expect("no task panicked").called.len() <= READERS {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut *roll.lock().expect("no task panicked"))
    };
    let first = patiently(all_called()).await;
    // The reader of the quiet topic is woken last. No other task runs in between.
    let (busy, quiet): (Vec<_>, Vec<_>) =
        first.wakers.into_iter().partition(|(lane, _)| *lane == BUSY);
    busy.into_iter().chain(quiet).for_each(|(_, waker)| waker.wake());
    let order = patiently(all_called()).await.called;
    let place = order.iter().position(|lane| *lane == QUIET);
    assert_eq!(place, Some(LANE_TURN as usize));
    assert_eq!(order.len(), READERS + 1);
}

/// There are more streams than a driver serves in one round. Each stream has its own frames and its
/// own end.
#[tokio::test]
async fn each_peer_gets_all_frames_of_its_body() {
    type Ending = fn() -> Polled;
    const ENDS: [(Ending, &str); 4] = [
        (|| Poll::Pending, ""),
        (|| Poll::Ready(None), "0\r\n\r\n"),
        (|| Poll::Ready(Some(Err("cut".into()))), ""),
        (|| panic!("a user's body may panic here"), ""),
    ];
    const STREAMS: usize = 100;

    let (rig, wakers) = (Rig::new(), Arc::new(Mutex::new(Vec::new())));
    let mut peers = Vec::new();
    for number in 0..STREAMS {
        let (end, _) = ENDS[number % ENDS.len()];
        let (wakers, mut polls) = (Arc::clone(&wakers), 0);
        let body = Fake::new(move |cx| {
            polls += 1;
            match polls {
                1 => wakers.lock().expect("no task panicked").push(cx.waker().clone()),
                2 => return Poll::Ready(Some(Ok(Bytes::from(said(number))))),
                _ => return end(),
            }
            Poll::Pending
        });
        let panics = number % 8 == 1;
        peers.push(
            rig.hand_over(if panics { body.map(Fake::panicking_in_drop) } else { body }, false),
        );
    }
    patiently(async {
        while wakers.lock().expect("no task panicked").len() < STREAMS {
            tokio::task::yield_now().await;
        }
    })
    .await;
    std::mem::take(&mut *wakers.lock().expect("no task panicked"))
        .into_iter()
        .for_each(Waker::wake);
    for (number, mut peer) in peers.into_iter().enumerate() {
        let (_, last) = ENDS[number % ENDS.len()];
        let text = said(number);
        let text = format!("{:x}\r\n{text}\r\n{last}", text.len());
        if number % ENDS.len() == 0 {
            assert_eq!(patiently(read(&mut peer, text.len())).await, text);
        } else {
            assert_eq!(rest(peer).await.expect("the connection was not reset"), text);
        }
    }
    rig.all_ended().await;
}

/// Texts of different lengths, so that some frames are copied together and some are not.
fn said(number: usize) -> String {
    format!("{number} ").repeat(1 + 300 * (number % 3))
}

/// A wake-up with the key of a stream that has ended has no effect, and holds up no other stream.
#[tokio::test]
async fn a_waker_that_outlives_its_stream_holds_up_no_other_stream() {
    let (rig, waker) = (Rig::new(), Arc::new(Mutex::new(None)));
    let kept = Arc::clone(&waker);
    let peer = rig.hand_over(
        Fake::new(move |cx| {
            *kept.lock().expect("no task panicked") = Some(cx.waker().clone());
            Poll::Ready(None)
        }),
        false,
    );
    assert_eq!(rest(peer).await.expect("the connection was not reset"), "0\r\n\r\n");
    rig.all_ended().await;
    for _ in 0..3 {
        waker
            .lock()
            .expect("no task panicked")
            .as_ref()
            .expect("the body was polled")
            .wake_by_ref();
        // The driver takes the wake-up, and has nothing to do.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        rig.serves().await;
    }
}
