// downlink.js: before the credentials end, the feed fetches a ticket and opens a second stream at
// its position. The first stream delivers until the second one delivers. Each event arrives once,
// even if both streams carry it. If the second stream takes too long, the feed closes the first.

import assert from 'node:assert/strict';

import { servedModule, upTo } from '../lib/feeds.mjs';
import { TICKET_PATH, event, expiring, opening, startScripted } from '../lib/scripted.mjs';

export const name = 'helper-expiring';

/** The number of events after which the feed no longer waits for the second stream. It is the
 * constant `OVERLAP_MAX` of downlink.js. */
const OVERLAP_MAX = 1_000;
/** The time from each notice to the end of the stream. It is longer than the check, so that no
 * stream ends before the page has left it. */
const LEFT_MS = 600_000;

export async function run({ browser, startFront }) {
  const scripted = await startScripted();
  const front = await startFront(scripted.base);
  // Publishers give ids of any form, so these ids do not show the order of the events.
  const numbered = (n, type) => event({ type, id: `invoice-${n}`, data: n });
  const sendUpTo = (stream, first, last) => {
    for (let n = first; n <= last; n += 1) stream.send(numbered(n));
  };
  let first;
  let second;
  let third;
  const answers = {
    async first() {
      first = await scripted.open(opening('start'), numbered(1));
      first.send(numbered(2, 'downlink.event'), numbered(3), expiring(LEFT_MS));
      second = await scripted.next();
      assert.equal(second.ticket, '2', 'the second stream has a new ticket');
      assert.equal(second.after, 'invoice-3', 'the second stream begins after the last event');
      first.send(numbered(4), numbered(5, 'downlink.event'), event({ type: 'late', id: 'invoice-6', data: 6 }));
    },
    // The page has got events 1 to 6 from the first stream. Since event 4, it listens to `late`.
    async second() {
      assert.ok(!first.isClosed, 'the first stream stays until the second one delivers');
      second.send(opening('invoice-3'));
      await first.closed;
      second.send(numbered(4), numbered(5, 'downlink.event'), event({ type: 'late', id: 'invoice-6', data: 6 }));
      second.send(event({ type: 'late', id: 'invoice-7', data: 7 }), numbered(8));
    },
    async third() {
      // The end has not moved, so the feed waits a little before it renews again.
      second.send(expiring(2 * LEFT_MS));
      third = await scripted.next();
      assert.equal(third.after, 'invoice-8');
      sendUpTo(second, 9, 8 + OVERLAP_MAX);
      await second.closed;
    },
    async last() {
      third.send(opening('invoice-8'));
      sendUpTo(third, 9, 10 + OVERLAP_MAX);
    },
  };
  try {
    const args = { module: await servedModule(), ticketPath: TICKET_PATH, before: 8 + OVERLAP_MAX, last: 10 + OVERLAP_MAX };
    const seen = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(seen.numbers, upTo(10 + OVERLAP_MAX));
    assert.deepEqual(seen.states, ['open', 'connecting', 'open', 'closed'], 'the first renewal is not seen');
    assert.equal(seen.stored, `invoice-${10 + OVERLAP_MAX}`);
    assert.deepEqual(seen.storedDuring, ['invoice-6'], 'a reload during the repeats must not repeat them');
    assert.equal(scripted.tickets.length, 3);
  } finally {
    scripted.stop();
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const [numbers, states, storedDuring] = [[], [], new Set()];
  let heard = () => {};
  const until = (number) =>
    new Promise((resolve) => {
      heard = () => numbers.at(-1) === number && resolve();
      heard();
    });
  const feed = subscribe({}, {
    storage: 'expiring',
    renew: () => fetch(args.ticketPath, { method: 'POST' }),
    onState: (state) => states.push(state),
  });
  const hear = ({ data }) => {
    numbers.push(Number(data));
    heard();
  };
  feed.on('message', hear);
  feed.on('downlink.event', hear);
  const stop = feed.on('message', ({ data }) => {
    // The second stream has been requested.
    if (data === '4') [feed.on('late', hear), stop()];
  });
  const failed = new Promise((_, reject) => {
    feed.on('downlink.open', () => {
      // This listener is called before the feed stores the id of the event.
      queueMicrotask(() => storedDuring.add(sessionStorage.getItem('expiring')));
    });
    addEventListener('unhandledrejection', ({ reason }) => reject(reason));
  });
  const passed = (async () => {
    await ask('first');
    await until(6);
    storedDuring.clear();
    await ask('second');
    await until(8);
    const during = [...storedDuring];
    await ask('third');
    await until(args.before);
    await ask('last');
    await until(args.last);
    return during;
  })();
  const during = await Promise.race([passed, failed]);
  feed.close();
  return { numbers, states, stored: sessionStorage.getItem('expiring'), storedDuring: during };
}
