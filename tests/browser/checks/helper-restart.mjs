// downlink.js: the server restarts without its history. The page gets one gap and then all new
// events.

import assert from 'node:assert/strict';

import { startServer, upTo, withFaults } from '../lib/feeds.mjs';

export const name = 'helper-restart';

/** The numbers of the last events that are published before the restart, while the page is
 * disconnected, and after it has reconnected. */
const [BEFORE, AWAY, AFTER] = [3, 6, 8];
const RETRY_MS = 50;

export async function run({ browser, startFront }) {
  let server = await startServer();
  let published = 0;
  const publishUpTo = async (last) => {
    while (published < last) {
      published += 1;
      await server.publish({ topic: 'restart', retry: RETRY_MS }, String(published));
    }
  };
  await withFaults({ server, startFront }, async ({ faults, front, module }) => {
    const answers = {
      before: () => publishUpTo(BEFORE),
      async restart() {
        server.stop();
        const seen = faults.requests.length;
        await faults.until((requests) => requests.length > seen);
        server = await startServer();
        await publishUpTo(AWAY);
        faults.retarget(server.base);
      },
      after: () => publishUpTo(AFTER),
    };
    const args = { module, before: BEFORE, away: AWAY, after: AFTER };
    const { numbers, gaps, id } = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(numbers, upTo(AFTER));
    assert.equal(gaps.length, 1);
    const [{ reason, after, until, oldest, waitMs, at }] = gaps;
    assert.equal(reason, 'new_epoch');
    assert.equal(at, BEFORE, 'the gap comes before the new events');
    assert.equal(after, id, 'the gap begins after the last event of the page');
    assert.equal(until, null);
    assert.match(oldest, /^[0-9a-z]{8}-[0-9]+$/);
    assert.ok(waitMs >= 0);
  }).finally(() => server.stop());
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const numbers = [];
  const gaps = [];
  let heard = () => {};
  const until = (last) =>
    new Promise((resolve) => {
      heard = () => numbers.at(-1) === last && resolve();
      heard();
    });
  const onGap = (gap) => gaps.push({ ...gap, at: numbers.length });
  const feed = await new Promise((resolve) => {
    const made = subscribe({ topics: ['restart'] }, { onGap, onState: (state) => state === 'open' && resolve(made) });
    made.on('message', ({ data }) => {
      numbers.push(Number(data));
      heard();
    });
  });
  await ask('before');
  await until(args.before);
  const id = feed.lastEventId;
  await ask('restart');
  await until(args.away);
  await ask('after');
  await until(args.after);
  return { numbers, gaps, id };
}
