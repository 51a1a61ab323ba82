// downlink.js: a feed has the URLs of two servers with the same events. It goes on at the other
// server if one is killed, refuses, does not answer or falls silent. Each event arrives once.

import assert from 'node:assert/strict';

import { servedModule, upTo } from '../lib/feeds.mjs';
import { event, opening, startScripted } from '../lib/scripted.mjs';

export const name = 'helper-urls';
export const timeoutMs = 120_000;

/** The constant `CONNECTING_MS_MAX_SEVERAL` of downlink.js. */
const CONNECTING_MS_MAX_SEVERAL = 10_000;
/** How early and how late the feed may seem to leave a server. The check sees each request a little
 * after the feed has sent it. */
const [EARLY_MS, LATE_MS] = [1_000, 20_000];

const numbered = (n) => event({ id: `e-${n}`, data: n });
const silent = (id) => event({ type: 'downlink.open', id, data: '{"resumed":true,"keep_alive_ms":1000}' });

export async function run({ browser, server, startFront }) {
  const [one, two] = [await startScripted(), await startScripted()];
  const three = await startScripted();
  const front = await startFront(server.base, { '/1/': one.base, '/2/': two.base, '/3/': three.base });
  let unansweredMs;
  let stream;
  const answers = {
    async begin() {
      await one.open('retry: 50\n\n', opening('e-0'), numbered(1), numbered(2));
    },
    async kill() {
      one.stop();
      // The second server is full, and the third one does not answer. The feed then comes back to
      // the second one.
      const refused = await two.next();
      assert.equal(refused.after, 'e-2', 'the feed resumes with the id of the first server');
      refused.refuse(503);
      const unanswered = await three.next();
      const began = performance.now();
      assert.equal(unanswered.after, 'e-2');
      await unanswered.closed;
      unansweredMs = performance.now() - began;
      stream = await two.open(silent('e-2'), numbered(3));
      assert.equal(stream.after, 'e-2');
    },
    async silence() {
      // The second server sends no keep-alive.
      const { after } = await three.open(opening('e-3'), numbered(4));
      assert.equal(after, 'e-3');
      await stream.closed;
    },
  };
  try {
    const args = { module: await servedModule(), urls: ['/1/events', '/2/events', '/3/events'] };
    const seen = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(seen.numbers, upTo(4));
    assert.deepEqual(seen.paths, ['/1/events', '/2/events', '/3/events']);
    const early = CONNECTING_MS_MAX_SEVERAL - unansweredMs;
    assert.ok(early < EARLY_MS && early > -LATE_MS, `the feed has waited for ${unansweredMs} ms`);
  } finally {
    for (const scripted of [one, two, three]) scripted.stop();
  }
}

async function page({ ask, args }) {
  // With this value, the waits are as short as possible.
  Math.random = () => 0;
  const { subscribe } = await import(args.module);
  const [numbers, paths] = [[], []];
  let heard = () => {};
  const until = (last) =>
    new Promise((resolve) => {
      heard = () => numbers.at(-1) === last && resolve();
      heard();
    });
  const feed = subscribe(args.urls);
  feed.on('message', ({ data }) => {
    numbers.push(Number(data));
    heard();
  });
  for (const [question, last] of [['begin', 2], ['kill', 3], ['silence', 4]]) {
    await ask(question);
    await until(last);
    paths.push(new URL(feed.url).pathname);
  }
  feed.close();
  return { numbers, paths };
}
