// downlink.js: the credentials will end, and the feed cannot replace the stream at once. The app
// answers an error, the server refuses the new stream for a while, or the new ticket has the same end
// as the old one. The stream stays open, and the feed tries again after a wait. If the new stream gets
// an error status, the feed waits for the end of the old one.

import assert from 'node:assert/strict';

import { servedModule, upTo } from '../lib/feeds.mjs';
import { TICKET_PATH, event, expiring, opening, startScripted } from '../lib/scripted.mjs';

export const name = 'helper-renewal-fails';

/** The shortest times between two tickets, if each random part of a wait is half of its maximum: for
 * the stream that may be too young, after one, two and three attempts to replace the first stream, for
 * the third stream, and after its end. */
const WAITS_MS = [1_000, 1_500, 2_000, 3_000, 1_000, 1_500];
/** A request may come this much later than it was sent, because a process was busy. */
const LATE_MS_MAX = 200;
const LEFT_MS = 600_000;

export async function run({ browser, startFront }) {
  const scripted = await startScripted();
  const front = await startFront(scripted.base);
  const numbered = (n) => event({ id: `a-${n}`, data: n });
  const answers = {
    async play() {
      const endsAt = Date.now() + LEFT_MS;
      const announce = () => expiring(endsAt - Date.now());
      const first = await scripted.open(opening('a-0'), numbered(1));
      scripted.refuseTicket({ status: 502 });
      first.send(announce());
      // The first ticket was for the first stream. The app has refused the second ticket.
      const quiet = await scripted.next();
      assert.equal(quiet.ticket, '3');
      first.send(numbered(2));
      // A server at its limit sends a browser a stream without events.
      quiet.end('retry: 60000\n\n');
      const second = await scripted.next();
      assert.ok(!first.isClosed && quiet.isClosed);
      assert.equal(second.after, 'a-2');
      first.send(numbered(3));
      second.send(opening('a-2'), numbered(3));
      await first.closed;
      // The app has given a ticket with the same end.
      second.send(numbered(4), announce());
      const third = await scripted.open(opening('a-4'), numbered(5));
      await second.closed;
      third.send(expiring(2 * LEFT_MS));
      const refused = await scripted.next();
      refused.refuse(503);
      await refused.closed;
      assert.ok(!third.isClosed);
      third.end(numbered(6), event({ type: 'downlink.expired', data: '{}' }));
      const fourth = await scripted.open(opening('a-6'), numbered(7));
      assert.equal(fourth.after, 'a-6');
      return scripted.tickets.map((at, n, all) => at - (all[n - 1] ?? -Infinity));
    },
  };
  try {
    const args = { module: await servedModule(), ticketPath: TICKET_PATH, last: 7 };
    const seen = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(seen.numbers, upTo(7));
    assert.deepEqual(seen.states, ['open', 'waiting', 'connecting', 'open', 'closed'], 'only the end interrupts the stream');
    assert.equal(seen.errors, 1, 'the browser reports the error of the app');
    const [, ...waits] = seen.waits;
    assert.equal(waits.length, WAITS_MS.length);
    waits.forEach((ms, n) => assert.ok(ms >= WAITS_MS[n] - LATE_MS_MAX, `wait ${n + 1} took ${ms} ms`));
  } finally {
    scripted.stop();
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const [numbers, states] = [[], []];
  let errors = 0;
  Math.random = () => 0.5;
  addEventListener('error', (event) => {
    errors += event.message.includes('renew: 502') ? 1 : 0;
  });
  let feed;
  const all = new Promise((resolve) => {
    feed = subscribe({}, {
      renew: async () => fetch(args.ticketPath, { method: 'POST' }),
      onState: (state) => states.push(state),
    });
    feed.on('message', ({ data }) => {
      numbers.push(Number(data));
      if (numbers.at(-1) === args.last) resolve();
    });
  });
  const waits = await ask('play');
  await all;
  feed.close();
  return { numbers, states, errors, waits };
}
