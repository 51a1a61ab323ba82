// downlink.js: after an id that the server does not know, the server sends its history, so some
// events are repeated. The feed ignores repeated events with ids of the server. It delivers events
// with ids of the publisher again.

import assert from 'node:assert/strict';

import { startServer, withFaults } from '../lib/feeds.mjs';

export const name = 'helper-repeats';

/** The number of events that a topic keeps. It is so small that the event with the page's last id
 * is soon evicted. */
const RETAIN_EVENTS = '3';

export async function run({ browser, startFront }) {
  const server = await startServer(['--retain-events', RETAIN_EVENTS]);
  await withFaults({ server, startFront }, async ({ faults, front, module }) => {
    const publish = (topic, text, id) => server.publish({ topic, retry: 50, ...(id && { id }) }, text);
    const answers = {
      async before() {
        await publish('quiet', 'quiet 1', 'invoice-1');
        await publish('quiet', 'quiet 2');
        await publish('busy', 'busy 1', 'invoice-2');
      },
      async evict() {
        faults.answer(1, { status: 502, headers: {}, body: '' });
        assert.equal(faults.cut(), 1, 'one stream is open');
        for (const n of [2, 3, 4]) await publish('busy', `busy ${n}`);
      },
    };
    const seen = await browser.run({ base: front.base, page, args: { module }, answers });
    assert.deepEqual(seen.gaps, [['unknown_id', 3]]);
    assert.deepEqual(seen.texts, [
      'quiet 1', 'quiet 2', 'busy 1',
      'quiet 1', 'busy 2', 'busy 3', 'busy 4',
    ]);
  }).finally(() => server.stop());
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const [texts, gaps] = [[], []];
  await new Promise((resolve, reject) => {
    const onGap = ({ reason }) => gaps.push([reason, texts.length]);
    const feed = subscribe({ topics: ['quiet', 'busy'] }, { onGap });
    feed.on('message', ({ data }) => {
      texts.push(data);
      if (data === 'busy 1') ask('evict').catch(reject);
      if (data === 'busy 4') resolve();
    });
    const stop = feed.on('downlink.open', () => {
      stop();
      ask('before').catch(reject);
    });
  });
  return { texts, gaps };
}
