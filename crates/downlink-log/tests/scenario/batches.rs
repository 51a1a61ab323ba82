//! A batch of drafts (events to publish) is appended completely, or the log rejects the whole
//! batch. An error says which draft was invalid. A draft that repeats an earlier draft gets the
//! answer of the earlier draft.

use downlink_log::{
    Address, AppendError, Appended, Cursor, Draft, IdempotencyKey, Log, LogOptions, Payload,
    Retention, Start, Timestamp,
};

use crate::support::{
    ALL, Load, Seen, append, append_all, draft, draft_of, fingerprint, ms, options, selection,
    sizes, topic,
};

/// A payload that contains its id.
#[derive(Clone, Debug)]
struct Named(Option<&'static str>);

impl Payload for Named {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        1
    }

    fn publisher_id(&self) -> Option<&str> {
        self.0
    }
}

fn log() -> Log<Named> {
    Log::new(options())
}

fn plain(name: &str) -> Draft<Named> {
    draft_of(&[topic(name)], Named(None))
}

fn with_id(name: &str, id: &'static str, content: u8) -> Draft<Named> {
    let mut draft = draft_of(&[topic(name)], Named(Some(id)));
    draft.id = Some(id.into());
    draft.fingerprint = fingerprint(&content);
    draft
}

fn with_key(name: &str, key: &str, content: u8) -> Draft<Named> {
    let mut draft = plain(name);
    draft.key = Some(IdempotencyKey { credential: "".into(), key: key.into() });
    draft.fingerprint = fingerprint(&content);
    draft
}

fn last(name: &str) -> Draft<Named> {
    Draft { finish: true, ..plain(name) }
}

/// Asserts that the log rejects the drafts and does not change.
fn check_refused<const N: usize>(log: &Log<Named>, drafts: [Draft<Named>; N], error: AppendError) {
    let before = (log.tail(), log.totals(ms(0)));
    assert_eq!(append_all(log, 0, drafts), Err(error));
    assert_eq!((log.tail(), log.totals(ms(0))), before);
}

fn offsets(answers: &[Appended]) -> Vec<(u64, bool)> {
    answers.iter().map(|answer| (answer.offset.get(), answer.repeated)).collect()
}

#[test]
fn a_batch_with_a_finished_topic_is_rejected_with_the_number_of_the_draft() {
    let log = log();
    append_all(&log, 0, [last("done")]).unwrap();
    check_refused(&log, [plain("new"), plain("done")], AppendError::Finished { draft: 1 });
    check_refused(&log, [plain("done"), plain("new")], AppendError::Finished { draft: 0 });
    check_refused(&log, [last("new"), plain("new")], AppendError::Finished { draft: 1 });
}

#[test]
fn a_batch_with_a_taken_id_is_rejected_with_the_number_of_the_draft() {
    let log = log();
    append_all(&log, 0, [with_id("a", "x", 1)]).unwrap();
    let taken = |draft| AppendError::IdTaken { draft };
    check_refused(&log, [plain("b"), with_id("a", "x", 2)], taken(1));
    check_refused(&log, [with_id("b", "y", 1), plain("b"), with_id("b", "y", 2)], taken(2));
}

#[test]
fn a_batch_with_a_reused_key_is_rejected_with_the_number_of_the_draft() {
    let log = log();
    append_all(&log, 0, [with_key("a", "k", 1)]).unwrap();
    let reused = |draft| AppendError::KeyReused { draft };
    check_refused(&log, [plain("b"), with_key("a", "k", 2)], reused(1));
    check_refused(&log, [with_key("b", "l", 1), with_key("b", "l", 2)], reused(1));
}

#[test]
fn a_batch_with_too_many_topics_and_a_batch_after_the_close_are_rejected() {
    let mut few = options();
    few.limits.topics_max = 1;
    let log: Log<Named> = Log::new(few);
    let error = AppendError::TooManyTopics { draft: 1, topics_max: 1 };
    check_refused(&log, [plain("a"), plain("b")], error);
    log.close();
    check_refused(&log, [plain("a")], AppendError::Closed);
}

#[test]
fn repeated_drafts_get_the_answer_of_the_first_draft() {
    let log = log();
    let drafts = [
        with_key("a", "k", 1),
        with_key("a", "k", 1),
        with_id("a", "x", 1),
        with_id("a", "x", 1),
        plain("a"),
    ];
    let answers = append_all(&log, 0, drafts).unwrap();
    assert_eq!(offsets(&answers), [(1, false), (1, true), (2, false), (2, true), (3, false)]);
    let again = append_all(&log, 0, [with_id("a", "x", 1), plain("a"), with_key("a", "k", 1)]);
    assert_eq!(offsets(&again.unwrap()), [(2, true), (4, false), (1, true)]);
    assert_eq!(log.totals(ms(0)).events, 4);
}

#[test]
fn a_key_is_kept_for_ten_minutes() {
    let log = log();
    let repeated = |now| append_all(&log, now, [with_key("a", "k", 1)]).unwrap()[0].repeated;
    assert!(!repeated(0));
    assert!(repeated(599_999));
    assert!(!repeated(600_000));
}

#[test]
fn an_id_is_free_again_after_its_event_is_evicted() {
    let mut one = options();
    one.retention.default = Retention { events_max: 1, ..Retention::DEFAULT };
    let log: Log<Named> = Log::new(one);
    append_all(&log, 0, [with_id("a", "x", 1)]).unwrap();
    append_all(&log, 0, [plain("a")]).unwrap();
    assert_eq!(offsets(&append_all(&log, 0, [with_id("a", "x", 2)]).unwrap()), [(3, false)]);
}

/// A draft without an event may finish a topic. The log does not keep the id of such a draft. The
/// log removes an id when it evicts the id's event, so it would keep an id without an event
/// forever.
#[test]
fn the_id_of_a_draft_without_an_event_stays_free() {
    let log = log();
    let mark = Draft { payload: None, finish: true, ..with_id("a", "x", 1) };
    append_all(&log, 0, [mark]).unwrap();
    assert_eq!(offsets(&append_all(&log, 0, [with_id("b", "x", 2)]).unwrap()), [(2, false)]);
}

/// The log still has an idempotency key after it has removed the topic of the first publish. If the
/// publish is repeated with this key, the log must not create the topic again.
#[test]
fn a_repetition_does_not_create_its_topic_again() {
    let mut short = options();
    short.retention.default.age_max = Some(std::time::Duration::from_millis(10));
    let log: Log<Named> = Log::new(short);
    append_all(&log, 0, [with_key("a", "k", 1)]).unwrap();
    assert_eq!(sizes(&log, ms(20)), (0, 0, 0, 0));
    assert!(append_all(&log, 20, [with_key("a", "k", 1)]).unwrap()[0].repeated);
    assert_eq!(sizes(&log, ms(20)), (0, 0, 0, 0));
}

#[test]
fn a_repeated_address_counts_once_and_an_event_without_addresses_reaches_no_reader() {
    let log: Log<Load> = Log::new(options());
    let mut reader = log.open(ms(0), &selection(&["a"]), &Start::Live).unwrap();
    let answers = append_all(&log, 0, [draft(&[topic("a"), topic("a")]), draft(&[])]).unwrap();
    assert_eq!((answers[0].matched, answers[1].matched), (1, 0));
    assert_eq!(append(&log, 0, &["a"]), Ok(3));
    let mut seen = Seen::default();
    let _ = seen.read_all(&mut reader, 0);
    assert_eq!(seen.offsets, [1, 3]);
    assert_eq!(log.totals(ms(0)).events, 2);
}

#[test]
fn a_reader_of_several_addresses_of_an_event_is_counted_once() {
    let log: Log<Load> = Log::new(options());
    let open = |names: &[&str]| log.open(ms(0), &selection(names), &Start::Live).unwrap();
    let _readers = [open(&["a"]), open(&["a", "b"]), open(&["*"]), open(&["c"])];
    let matched = |to: &[Address]| append_all(&log, 0, [draft(to)]).unwrap()[0].matched;
    assert_eq!(matched(&[topic("a")]), 3);
    assert_eq!(matched(&[topic("a"), topic("b")]), 3);
    assert_eq!(matched(&[topic("c"), Address::Everyone]), 4);
}

/// If a single batch exceeds the byte limit, the log still keeps all events of the batch, so that
/// readers get them.
#[test]
fn a_batch_over_the_byte_limit_is_kept_completely() {
    let mut small = options();
    small.limits.bytes_max = 1;
    let log: Log<Load> = Log::new(LogOptions { ..small });
    let mut reader = log.open(ms(0), &selection(&["a", "b"]), &Start::Live).unwrap();
    append(&log, 0, &["a"]).unwrap();
    append_all(&log, 0, [draft(&[topic("a")]), draft(&[topic("b")])]).unwrap();
    assert_eq!(log.totals(ms(0)).events, 2);
    let mut seen = Seen::default();
    let _ = seen.read(&mut reader, 0, ALL);
    let _ = seen.read_all(&mut reader, 0);
    assert_eq!((seen.offsets, seen.gaps), (vec![2, 3], vec![(0, 1)]));
}
