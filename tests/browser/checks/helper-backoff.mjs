// downlink.js: a server ends each stream at once and with `retry: 0`. The feed waits at least a
// second before it reconnects. While streams bring no events, the longest wait grows each time.

import assert from 'node:assert/strict';

import { withFaults } from '../lib/feeds.mjs';

export const name = 'helper-backoff';
export const timeoutMs = 120_000;

const stream = (body) => ({ status: 200, headers: { 'content-type': 'text/event-stream' }, body });
const NOTHING = stream('retry: 0\n\n');
const ONE_EVENT = stream('retry: 0\ndata: one\n\n');
const LATER = stream('retry: 4000\n\n');
/** The tolerance for timers. A timer may be early by less than a millisecond. */
const TIMER_MS = 10;

export async function run({ browser, server, startFront }) {
  /** The waits between streams if these are the answers and `Math.random()` returns `random`. */
  const waits = (random, streams) =>
    withFaults({ server, startFront }, async ({ faults, front, module }) => {
      streams.forEach((answer) => faults.answer(1, answer));
      const answers = { end: () => faults.until((requests) => requests.length >= streams.length) };
      await browser.run({ base: front.base, page, args: { module, random }, answers });
      const requests = faults.requests.slice(0, streams.length);
      return requests.slice(1).map(({ at }, before) => at - requests[before].at);
    });
  const atLeast = (found, wanted) => {
    assert.equal(found.length, wanted.length);
    const early = found.filter((ms, n) => ms < wanted[n] - TIMER_MS);
    assert.deepEqual(early, [], `${found.map(Math.round)} instead of at least ${wanted}`);
  };

  // The second request follows at once, to learn why the first stream ended. Later requests wait.
  const spread = await waits(1, [NOTHING, NOTHING, NOTHING, NOTHING, ONE_EVENT, NOTHING]);
  atLeast(spread, [0, 2_000, 3_000, 5_000, 2_000]);
  assert.ok(spread[4] < 9_000, 'after an event, the waits are short again');
  const shortest = await waits(0, [NOTHING, NOTHING, NOTHING, NOTHING, NOTHING]);
  atLeast(shortest, [0, 1_000, 1_000, 1_000]);
  assert.ok(shortest[3] < 5_000, 'the shortest wait does not grow');

  atLeast(await waits(0, [ONE_EVENT, ONE_EVENT, ONE_EVENT]), [1_000, 1_000]);
  atLeast(await waits(0, [LATER, LATER, LATER, LATER]), [0, 4_000, 4_000]);
}

async function page({ ask, args }) {
  Math.random = () => args.random;
  const { subscribe } = await import(args.module);
  const feed = subscribe({ topics: ['backoff'] }, {});
  feed.on('message', () => {});
  await ask('end');
  feed.close();
  return null;
}
