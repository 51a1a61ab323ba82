// A page reads two hundred topics over one connection, which breaks repeatedly. Each event arrives
// once and in order.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

import { query } from '../lib/api.mjs';

export const name = 'exactly_once';
export const timeoutMs = 150_000;

const TOPICS = Array.from({ length: 200 }, (_, n) => `room/${n}`);
const CUTS = 15;
/** The longest time from the start of the stream to its cut. The actual time is random. */
const CUT_PAUSE_MS_MAX = 800;
/** The reconnection time. It is short, so that a stream is soon open for the next cut. Browsers may
 * wait longer. */
const RETRY_MS = 50;
/** The pause between two publishes. With about a hundred events per second, some events are
 * published during each stream and while no stream is open. */
const PUBLISH_PAUSE_MS = 10;

export async function run({ browser, front, server }) {
  const { streams } = front;
  let total = 0;
  const publishOne = async () => {
    const topic = TOPICS[Math.floor(Math.random() * TOPICS.length)];
    total += 1;
    await server.publish({ topic, retry: RETRY_MS }, String(total));
  };
  const cutAll = async () => {
    for (let cuts = 0; cuts < CUTS; cuts += 1) {
      await streams.opened(cuts + 1);
      await pause(Math.random() * CUT_PAUSE_MS_MAX);
      const cut = cuts % 2 === 0 ? streams.cut() : streams.cutInside();
      assert.equal(cut, 1, 'one stream is open');
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
      await streams.opened(CUTS + 1);
      await publishOne();
      return total;
    },
  };
  const args = { url: `/events?${query({ topic: TOPICS })}` };
  const { numbers, gaps } = await browser.run({ base: front.base, args, answers, page });
  const expected = Array.from({ length: total }, (_, n) => n + 1);
  assert.deepEqual(gaps, [], 'no event was evicted, so there must be no gap');
  assert.deepEqual(numbers, expected, `${total} events, each once, in order`);
}

async function page({ ask, args }) {
  const source = new EventSource(args.url);
  const numbers = [];
  const gaps = [];
  let total = Infinity;
  let finish;
  const complete = new Promise((resolve) => {
    finish = resolve;
  });
  await new Promise((resolve) => {
    source.onopen = resolve;
  });
  // After the first event, the browser has an id after which it can resume.
  const first = new Promise((resolve) => {
    source.onmessage = ({ data }) => {
      numbers.push(Number(data));
      resolve();
      if (numbers.at(-1) === total) finish();
    };
  });
  source.addEventListener('downlink.gap', ({ data }) => gaps.push(data));
  await ask('first');
  await first;
  total = await ask('storm');
  if (numbers.at(-1) !== total) await complete;
  source.close();
  return { numbers, gaps };
}
