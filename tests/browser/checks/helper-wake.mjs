// downlink.js: when the page becomes visible or comes online, the feed at once replaces a
// connection that seems to be dead.
//
// Neither engine can hide a page in a test. So the check replaces `document.visibilityState`, moves
// the wall clock forward by an hour, and dispatches the events. The keep-alive and the server's
// Retry-After are so long that they cannot cause a reconnect during the check.

import assert from 'node:assert/strict';

import { startServer, withFaults } from '../lib/feeds.mjs';

export const name = 'helper-wake';

const headers = { 'content-type': 'text/plain', 'retry-after': '300' };

export async function run({ browser, startFront }) {
  const server = await startServer(['--keep-alive', '10m']);
  await withFaults({ server, startFront }, async ({ faults, front, module }) => {
    const answers = {
      async freeze() {
        assert.equal(faults.freeze(), 1, 'one stream is open');
        await server.publish({ topic: 'wake', retry: 50 }, 'while asleep');
      },
      async refuse() {
        faults.answer(2, { status: 503, headers, body: 'later' });
        assert.equal(faults.cut(), 1, 'one stream is open');
        await server.publish({ topic: 'wake' }, 'while offline');
        await faults.until(() => faults.unanswered === 0);
      },
    };
    const seen = await browser.run({ base: front.base, page, args: { module }, answers });
    assert.deepEqual(seen.texts, ['while asleep', 'while offline']);
    assert.equal(seen.whileHidden, 'open', 'a hidden page does not reconnect');
    assert.equal(seen.whileHealthy, 'open', 'a live connection is not replaced');
    assert.equal(faults.requests.length, 5, 'two streams, two refusals and one more stream');
  }).finally(() => server.stop());
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const texts = [];
  let entered = () => {};
  const feed = subscribe({ topics: ['wake'] }, { onState: () => entered() });
  feed.on('message', ({ data }) => {
    texts.push(data);
    entered();
  });
  const until = (holds) =>
    new Promise((resolve) => {
      entered = () => holds() && resolve();
      entered();
    });
  let visibility = 'visible';
  Object.defineProperty(document, 'visibilityState', { get: () => visibility });
  const become = (state) => {
    visibility = state;
    document.dispatchEvent(new Event('visibilitychange'));
  };

  await until(() => feed.state === 'open');
  await new Promise((resolve) => {
    feed.on('downlink.open', resolve);
    if (feed.lastEventId) resolve();
  });
  become('hidden');
  await ask('freeze');
  const now = Date.now;
  const HOUR_MS = 3_600_000;
  Date.now = () => now() + HOUR_MS;
  become('hidden');
  const whileHidden = feed.state;
  become('visible');
  await until(() => texts.length === 1);

  become('visible');
  window.dispatchEvent(new Event('online'));
  const whileHealthy = feed.state;
  await ask('refuse');
  await until(() => feed.state === 'waiting');
  window.dispatchEvent(new Event('online'));
  await until(() => texts.length === 2);
  return { texts, whileHidden, whileHealthy };
}
