//! The contract of a [`Journal`]: facts that hold for each engine without faults.
//!
//! The tests of the engines include this file.

use std::future::poll_fn;

use downlink_cluster::{
    Bounds, EntryName, Journal, JournalError, Position, RawEntry, Tail, TailItem, WriterId,
};

/// The writers of the two handles.
const WRITERS: [WriterId; 2] = [WriterId(11), WriterId(12)];

/// A name that no other entry of the contract has.
pub(crate) fn name(writer: usize, counter: u64) -> EntryName {
    EntryName { writer: WRITERS[writer], counter }
}

/// The next item of a tail.
pub(crate) async fn next<T: Tail>(tail: &mut T) -> Result<TailItem, JournalError> {
    poll_fn(|cx| tail.poll_next(cx)).await
}

/// Checks that the next item of a tail is this entry. The message of a failure does not show the
/// bytes of the entries, because an entry may be large.
async fn assert_next<T: Tail>(tail: &mut T, entry: &RawEntry) {
    let found = next_entry(tail).await;
    assert!(found == *entry, "{} in place of {}", found.position, entry.position);
}

/// The next entry of a tail that has no holes.
async fn next_entry<T: Tail>(tail: &mut T) -> RawEntry {
    loop {
        match next(tail).await.unwrap() {
            TailItem::Entry(entry) => return entry,
            TailItem::CaughtUp(_) => {}
            TailItem::Hole(range) => panic!("a hole at {range:?}"),
        }
    }
}

fn position(number: u64) -> Position {
    Position::new(number)
}

/// Checks two handles of one journal without entries.
pub(crate) async fn check<J: Journal>(mut journals: [J; 2]) {
    opens_empty(&mut journals).await;
    appends_in_order(&mut journals[0]).await;
    appends_only_after_the_given_position(&mut journals).await;
    one_of_two_racing_appends_wins(&mut journals).await;
    an_entry_of_the_largest_size_fits(&mut journals[0]).await;
    a_read_returns_the_entries_of_its_range(&mut journals[1]).await;
    a_tail_yields_what_a_read_returns(&mut journals).await;
    a_tail_begins_at_its_position(&mut journals[0]).await;
    a_tail_waits_for_the_next_entry(&mut journals).await;
}

async fn opens_empty<J: Journal>([one, other]: &mut [J; 2]) {
    let (opened, same) = (one.open().await.unwrap(), other.open().await.unwrap());
    assert_eq!(opened.id, same.id);
    let empty = Bounds { first: Position::FIRST, last: Position::ORIGIN };
    assert_eq!(opened.bounds, empty);
    assert_eq!(one.read(position(1)..position(9)).await.unwrap(), (Vec::new(), empty));
}

async fn appends_in_order<J: Journal>(journal: &mut J) {
    for counter in 1..=5 {
        let bytes = format!("entry {counter}").into_bytes();
        let at = journal.append(name(0, counter), bytes, None).await.unwrap();
        assert_eq!(at, position(counter));
        let bounds = Bounds { first: Position::FIRST, last: at };
        assert_eq!(journal.bounds().await.unwrap(), bounds);
    }
    // An engine may skip a copy, or append it. The answer is a position with the same bytes.
    let again = journal.append(name(0, 3), b"entry 3".to_vec(), None).await.unwrap();
    let (entries, _) = journal.read(again..again.next()).await.unwrap();
    assert_eq!(entries[0].bytes, b"entry 3");
}

async fn appends_only_after_the_given_position<J: Journal>([one, other]: &mut [J; 2]) {
    let last = one.bounds().await.unwrap().last;
    for wrong in [Position::ORIGIN, last.previous(), last.next()] {
        let refused = other.append(name(1, 1), b"early".to_vec(), Some(wrong)).await;
        assert_eq!(refused, Err(JournalError::NotLast { last }), "{wrong}");
    }
    assert_eq!(one.bounds().await.unwrap().last, last);
    let appended = other.append(name(1, 1), b"in time".to_vec(), Some(last)).await;
    assert_eq!(appended, Ok(last.next()));
}

async fn one_of_two_racing_appends_wins<J: Journal>([one, other]: &mut [J; 2]) {
    for counter in 10..20 {
        let last = one.bounds().await.unwrap().last;
        // Both appends are on their way before one of them is answered.
        let mut first = Box::pin(one.append(name(0, counter), b"a".to_vec(), Some(last)));
        let mut second = Box::pin(other.append(name(1, counter), b"b".to_vec(), Some(last)));
        let mut results = [None, None];
        poll_fn(|cx| {
            if results[0].is_none() {
                results[0] = ready(first.as_mut().poll(cx));
            }
            if results[1].is_none() {
                results[1] = ready(second.as_mut().poll(cx));
            }
            match results.iter().all(Option::is_some) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
        let results = results.map(Option::unwrap);
        let won = Ok(last.next());
        let lost = Err(JournalError::NotLast { last: last.next() });
        assert!(results == [won, lost] || results == [lost, won], "{results:?}");
        assert_eq!(other.bounds().await.unwrap().last, last.next());
    }
}

fn ready<T>(poll: std::task::Poll<T>) -> Option<T> {
    match poll {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

async fn an_entry_of_the_largest_size_fits<J: Journal>(journal: &mut J) {
    let max = journal.open().await.unwrap().entry_bytes_max;
    let bytes: Vec<u8> = (0..max).map(|at| at as u8).collect();
    let at = journal.append(name(0, 30), bytes.clone(), None).await.unwrap();
    let (entries, bounds) = journal.read(at..at.next()).await.unwrap();
    assert!(entries[0].bytes == bytes);
    assert_eq!(bounds.last, at);
    let huge = vec![0; max * 2];
    let refused = journal.append(name(0, 31), huge, None).await;
    assert_eq!(refused, Err(JournalError::Refused));
    assert_eq!(journal.bounds().await.unwrap().last, at);
}

async fn a_read_returns_the_entries_of_its_range<J: Journal>(journal: &mut J) {
    let (all, bounds) = journal.read(Position::FIRST..position(1_000)).await.unwrap();
    let positions: Vec<Position> = all.iter().map(|entry| entry.position).collect();
    let expected: Vec<Position> = (1..=bounds.last.get()).map(position).collect();
    assert_eq!(positions, expected);
    assert!(all.is_sorted_by_key(|entry| entry.time));
    let (some, _) = journal.read(position(2)..position(4)).await.unwrap();
    assert!(some == all[1..3]);
    let none = journal.read(bounds.last.next()..position(1_000)).await.unwrap();
    assert_eq!(none, (Vec::new(), bounds));
    assert_eq!(journal.read(position(3)..position(3)).await.unwrap().0, []);
}

async fn a_tail_yields_what_a_read_returns<J: Journal>([one, other]: &mut [J; 2]) {
    let (all, bounds) = one.read(Position::FIRST..position(1_000)).await.unwrap();
    let mut tail = other.tail(Position::FIRST);
    for entry in all {
        assert_next(&mut tail, &entry).await;
    }
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(bounds.last)));
}

async fn a_tail_begins_at_its_position<J: Journal>(journal: &mut J) {
    let (all, bounds) = journal.read(Position::FIRST..position(1_000)).await.unwrap();
    let mut tail = journal.tail(bounds.last);
    assert_next(&mut tail, &all[all.len() - 1]).await;
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(bounds.last)));
    let mut tail = journal.tail(bounds.last.next());
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(bounds.last)));
}

async fn a_tail_waits_for_the_next_entry<J: Journal>([one, other]: &mut [J; 2]) {
    let last = one.bounds().await.unwrap().last;
    let mut tail = one.tail(last.next());
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(last)));
    for counter in 40..50 {
        let at = other.append(name(1, counter), vec![counter as u8], None).await.unwrap();
        let entry = next_entry(&mut tail).await;
        assert_eq!((entry.position, entry.bytes), (at, vec![counter as u8]));
    }
}
