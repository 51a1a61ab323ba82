// downlink.js: a proxy answers with its own error pages. An EventSource never reconnects after such
// an answer, but the feed does. Each event arrives once and in order, even events that were
// published during the errors.

import assert from 'node:assert/strict';

import { upTo, withFaults } from '../lib/feeds.mjs';

export const name = 'helper-proxy-error';
export const timeoutMs = 120_000;

const headers = { 'content-type': 'text/html' };
const BAD_GATEWAY = { status: 502, headers, body: '<h1>502 Bad Gateway</h1>' };
const UNAVAILABLE = { status: 503, headers, body: '<h1>503 Service Unavailable</h1>' };
const TOO_MANY = { status: 429, headers, body: '<h1>429 Too Many Requests</h1>' };
const OTHER_PAGE = { status: 200, headers, body: '<h1>Please wait</h1>' };
/** The answers of the proxy. In turn, one goes to an EventSource, and one goes to the feed's
 * request for the reason. */
const PAGES = [BAD_GATEWAY, BAD_GATEWAY, BAD_GATEWAY, UNAVAILABLE, BAD_GATEWAY, TOO_MANY, OTHER_PAGE, OTHER_PAGE];
const ROUNDS = 2;
const RETRY_MS = 50;

export async function run({ browser, server, startFront }) {
  let total = 0;
  const publishOne = async () => {
    total += 1;
    await server.publish({ topic: 'errors', retry: RETRY_MS }, String(total));
    return total;
  };
  await withFaults({ server, startFront }, async ({ faults, front, module }) => {
    const answers = {
      one: publishOne,
      async fail() {
        PAGES.forEach((page) => faults.answer(1, page));
        await publishOne();
        assert.equal(faults.cut(), 1, 'one stream is open');
        await publishOne();
        await faults.until(() => faults.unanswered === 0);
        return publishOne();
      },
    };
    const args = { module, rounds: ROUNDS };
    const { numbers, gaps, states } = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(gaps, []);
    assert.deepEqual(numbers, upTo(total));
    assert.ok(states.includes('waiting'), `${states}`);
    const made = faults.requests.filter(({ url }) => url.includes('last_event_id='));
    assert.ok(made.length >= ROUNDS, 'new streams resume after the last id');
  });
}

async function page({ ask, args }) {
  // With this value, the waits are as short as possible. helper-backoff checks how they grow.
  Math.random = () => 0;
  const { subscribe } = await import(args.module);
  const [numbers, gaps, states] = [[], [], []];
  let heard = () => {};
  const until = (last) =>
    new Promise((resolve) => {
      heard = () => numbers.at(-1) === last && resolve();
      heard();
    });
  await new Promise((resolve) => {
    const onState = (state) => {
      states.push(state);
      if (state === 'open') resolve();
    };
    const feed = subscribe({ topics: ['errors'] }, { onState, onGap: (gap) => gaps.push(gap) });
    feed.on('message', ({ data }) => {
      numbers.push(Number(data));
      heard();
    });
  });
  await until(await ask('one'));
  for (let round = 0; round < args.rounds; round += 1) await until(await ask('fail'));
  return { numbers, gaps, states };
}
