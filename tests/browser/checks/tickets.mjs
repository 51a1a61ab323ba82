// A plain EventSource with a ticket in its URL. It survives cuts of its stream and a restart of the
// server, and gets each event once. When its ticket has expired, the browser gives up, because it
// cannot get a new URL.

import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';

import { startProductionIn } from '../lib/binaries.mjs';
import { startFaults } from '../lib/faults.mjs';
import { upTo } from '../lib/feeds.mjs';
import { startApp } from '../lib/app.mjs';

export const name = 'tickets';
export const timeoutMs = 240_000;

const CUTS = 20;
const CUT_PAUSE_MS_MAX = 400;
/** The lifetime of the first ticket, in seconds. It is longer than the check. */
const LONG = 600;
/** The lifetime of the second ticket. The check waits for its end. */
const SHORT = 3;
const RETRY_MS = 50;
const PUBLISH_PAUSE_MS = 10;

export async function run({ browser, folder, engine, startFront }) {
  // The folder keeps the keys and the events over a restart.
  const kept = await mkdtemp(`${folder}/${engine}-`);
  const start = () => startProductionIn(kept, ['--listen', '127.0.0.1:0', '--store', 'events.db']);
  let server = await start();
  const faults = await startFaults(server.base);
  const app = await startApp({ server: () => server, lifetime: LONG });
  const front = await startFront(faults.base, { '/app/': app.base });
  let total = 0;
  const publishOne = async () => {
    total += 1;
    await server.publish({ topic: `rooms/${total % 5}`, retry: RETRY_MS }, String(total));
  };
  const nextStream = (before) =>
    faults.until((requests) => requests.slice(before).some(({ status, closed }) => status === 200 && !closed));
  const cutAll = async () => {
    for (let cuts = 0; cuts < CUTS; cuts += 1) {
      await pause(Math.random() * CUT_PAUSE_MS_MAX);
      const before = faults.requests.length;
      assert.equal(faults.cut(), 1, 'one stream is open');
      await nextStream(before);
    }
  };
  const answers = {
    publishOne,
    async storm() {
      let over = false;
      const cutting = cutAll().finally(() => {
        over = true;
      });
      // The error is thrown below. Without this line, it would end the process before.
      cutting.catch(() => {});
      while (!over) {
        await publishOne();
        await pause(PUBLISH_PAUSE_MS);
      }
      await cutting;
      const before = faults.requests.length;
      server.stop();
      server = await start();
      faults.retarget(server.base);
      await nextStream(before);
      await publishOne();
      return total;
    },
    shorten() {
      app.lifetime = SHORT;
    },
    statuses: () => faults.requests.slice(-2).map(({ status }) => status),
  };
  try {
    const seen = await browser.run({ base: front.base, page, args: {}, answers });
    assert.deepEqual(seen.gaps, [], 'no event was evicted, so there must be no gap');
    assert.deepEqual(seen.numbers, upTo(total), `${total} events, each once, in order`);
    assert.deepEqual(seen.expired, ['{}'], 'the server says that the ticket has expired');
    assert.deepEqual(seen.statuses, [200, 401], 'the browser reconnects with the old URL, and gives up');
  } finally {
    faults.stop();
    app.stop();
    server.stop();
  }
}

async function page({ ask }) {
  const ticketUrl = async () => (await (await fetch('/app/ticket', { method: 'POST' })).json()).url;
  const [numbers, gaps, expired] = [[], [], []];
  let heard = () => {};
  const until = (last) =>
    new Promise((resolve) => {
      heard = () => numbers.at(-1) === last && resolve();
      heard();
    });
  const long = new EventSource(await ticketUrl());
  long.onmessage = ({ data }) => {
    numbers.push(Number(data));
    heard();
  };
  long.addEventListener('downlink.gap', ({ data }) => gaps.push(data));
  await new Promise((resolve) => {
    long.onopen = resolve;
  });
  await ask('publishOne');
  await until(1);
  await until(await ask('storm'));
  long.close();
  await ask('shorten');
  const short = new EventSource(await ticketUrl());
  short.addEventListener('downlink.expired', ({ data }) => expired.push(data));
  await new Promise((resolve) => {
    short.onerror = () => short.readyState === EventSource.CLOSED && resolve();
  });
  return { numbers, gaps, expired, statuses: await ask('statuses') };
}
