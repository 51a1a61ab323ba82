// downlink.js: a finished topic ends the feed after a few requests. Before the feed ends, the page
// receives all events for which it listens.

import assert from 'node:assert/strict';

import { withFaults } from '../lib/feeds.mjs';

export const name = 'helper-finished';

const RETRY_MS = 50;

/** How a topic ends, the events that the page must receive, and the statuses of all requests.
 *
 * One request may get 204 or 200. If the first stream has lasted a second, the browser reconnects
 * by itself. It knows the ids of events without a listener, so the server answers with 204. */
const ENDS = [
  {
    topic: 'ends/heard',
    last: [{ last: true }],
    heard: ['1', '2'],
    statuses: /^200 204 204$/,
  },
  {
    topic: 'ends/unheard',
    last: [{ event: 'done', last: true }],
    heard: ['1'],
    statuses: /^200 20[04] 200 204$/,
  },
  {
    topic: 'ends/behind-an-error',
    error: { status: 502, headers: { 'content-type': 'text/html' }, body: '<h1>502</h1>' },
    last: [{}, { event: 'done', last: true }],
    heard: ['1', '2'],
    statuses: /^200 502 200 200 20[04] 200 204$/,
  },
];

export async function run({ browser, server, startFront }) {
  for (const { topic, error, last, heard, statuses } of ENDS) {
    await withFaults({ server, startFront }, async ({ faults, front, module }) => {
      const publish = (address, text) => server.publish({ topic, retry: RETRY_MS, ...address }, text);
      const answers = {
        first: () => publish({}, '1'),
        async end() {
          if (error) {
            faults.answer(1, error);
            assert.equal(faults.cut(), 1, 'one stream is open');
          }
          for (const [n, address] of last.entries()) await publish(address, String(n + 2));
        },
        look: () => {},
      };
      const args = { module, topic };
      const seen = await browser.run({ base: front.base, page, args, answers });
      assert.deepEqual(seen.texts, heard, topic);
      assert.equal(seen.state, 'closed');
      assert.equal(seen.finished, 1);
      assert.match(faults.requests.map(({ status }) => status).join(' '), statuses, topic);
    });
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const texts = [];
  let finished = 0;
  let feed;
  await new Promise((resolve, reject) => {
    const onFinished = () => {
      finished += 1;
      resolve();
    };
    const onFailed = ({ detail }) => reject(new Error(detail));
    feed = subscribe({ topics: [args.topic] }, { onFinished, onFailed });
    feed.on('message', ({ data }) => {
      texts.push(data);
      if (texts.length === 1) ask('end').catch(reject);
    });
    const stop = feed.on('downlink.open', () => {
      stop();
      ask('first').catch(reject);
    });
  });
  // An open feed would reconnect after these events.
  window.dispatchEvent(new Event('online'));
  document.dispatchEvent(new Event('visibilitychange'));
  await ask('look');
  return { texts, finished, state: feed.state };
}
