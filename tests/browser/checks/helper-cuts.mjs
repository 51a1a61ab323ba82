// downlink.js: the stream is cut twenty times at random moments while events are published, and
// listeners throw errors. Each event of each type arrives once and in order. The page's policy
// allows only scripts and requests of its own server.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

import { servedModule, upTo } from '../lib/feeds.mjs';

export const name = 'helper-cuts';
export const timeoutMs = 150_000;

const CUTS = 20;
/** The longest time from the start of the stream to its cut. The actual time is random. */
const CUT_PAUSE_MS_MAX = 400;
/** The reconnection time. It is short, so that a stream is soon open for the next cut. */
const RETRY_MS = 50;
/** The pause between two publishes. With about a hundred events per second, some events are
 * published during each stream and while no stream is open. */
const PUBLISH_PAUSE_MS = 10;

export async function run({ browser, front, server }) {
  const { streams } = front;
  let total = 0;
  const publishOne = async () => {
    total += 1;
    const event = total % 3 === 0 ? { event: 'price' } : {};
    await server.publish({ topic: `cuts/${total % 5}`, retry: RETRY_MS, ...event }, String(total));
  };
  const cutAll = async () => {
    for (let cuts = 0; cuts < CUTS; cuts += 1) {
      await streams.carried('data: ');
      await pause(Math.random() * CUT_PAUSE_MS_MAX);
      const next = streams.opened(streams.requests.length + 1);
      const cut = cuts % 2 === 0 ? streams.cut() : streams.cutInside();
      assert.equal(cut, 1, 'one stream is open');
      await next;
    }
  };
  const answers = {
    first: publishOne,
    async storm() {
      let over = false;
      const cutting = cutAll().finally(() => {
        over = true;
      });
      while (!over) {
        await publishOne();
        await pause(PUBLISH_PAUSE_MS);
      }
      await cutting;
      await publishOne();
      return total;
    },
  };
  const args = { module: await servedModule() };
  const { numbers, gaps, thrown, violations } = await browser.run({ base: front.base, args, answers, page });
  assert.deepEqual(gaps, [], 'no event was evicted, so there must be no gap');
  assert.deepEqual(numbers, upTo(total), `${total} events, each once, in order`);
  assert.equal(violations, 0, 'downlink.js must not violate the policy of the page');
  assert.equal(thrown, total, 'the error of each listener call is reported');
  assert.ok(streams.requests.length > CUTS, 'a new stream follows each cut');
}

async function page({ ask, args }) {
  const policy = document.createElement('meta');
  policy.httpEquiv = 'Content-Security-Policy';
  policy.content = "default-src 'none'; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'";
  document.head.append(policy);
  let violations = 0;
  addEventListener('securitypolicyviolation', () => {
    violations += 1;
  });
  const { subscribe } = await import(args.module);
  const numbers = [];
  const gaps = [];
  let thrown = 0;
  addEventListener('error', (event) => {
    thrown += event.message.includes('thrown by the page') ? 1 : 0;
  });
  let heardAll = () => {};
  let total = Infinity;
  let heardFirst;
  const first = new Promise((resolve) => {
    heardFirst = resolve;
  });
  await new Promise((resolve) => {
    const onState = (state) => {
      if (state === 'open') resolve();
      throw new Error('of a state');
    };
    const feed = subscribe({ topics: ['cuts/*'] }, { onState, onGap: (gap) => gaps.push(gap) });
    for (const type of ['message', 'price']) {
      feed.on(type, () => {
        throw new Error('thrown by the page');
      });
      feed.on(type, ({ data }) => {
        numbers.push(Number(data));
        heardFirst();
        if (numbers.at(-1) === total) heardAll();
      });
    }
  });
  await ask('first');
  await first;
  const complete = new Promise((resolve) => {
    heardAll = resolve;
  });
  total = await ask('storm');
  if (numbers.at(-1) !== total) await complete;
  return { numbers, gaps, thrown, violations };
}
