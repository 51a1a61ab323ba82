// A page gets its events with tickets that live for a few seconds, over downlink.js. Its streams are
// cut twenty times, the server is killed and restarted, the app that gives the tickets is down while
// a ticket expires, and two tickets expire while everything works. Each event arrives once.

import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';

import { startProductionIn } from '../lib/binaries.mjs';
import { startFaults } from '../lib/faults.mjs';
import { servedModule, upTo } from '../lib/feeds.mjs';
import { startApp } from '../lib/tickets.mjs';

export const name = 'helper-tickets';
export const timeoutMs = 240_000;

const CUTS = 20;
/** The longest time from the start of a stream to its cut. The actual time is random. */
const CUT_PAUSE_MS_MAX = 400;
/** The lifetime of a ticket. In the last tenth of it, the server announces its end. */
const LIFETIME = '8s';
/** The number of tickets that expire after the cuts and the restarts. */
const EXPIRIES = 2;
const RETRY_MS = 50;
/** The pause between two publishes. With about a hundred events per second, some events are
 * published during each stream and while no stream is open. */
const PUBLISH_PAUSE_MS = 10;

export async function run({ browser, folder, engine, startFront }) {
  // The folder keeps the keys and the events over a restart.
  const kept = await mkdtemp(`${folder}/${engine}-`);
  const start = () => startProductionIn(kept, ['--listen', '127.0.0.1:0', '--store', 'events.db', '--keep-alive', '1s']);
  let server = await start();
  const faults = await startFaults(server.base);
  const app = await startApp({ server: () => server, ask: { topic: ['rooms/*'], client: 'ada', lifetime: LIFETIME } });
  const front = await startFront(faults.base, { '/app/': app.base });
  let total = 0;
  const publishOne = async () => {
    total += 1;
    const address = total % 3 === 0 ? { client: 'ada' } : { topic: `rooms/${total % 5}` };
    await server.publish({ ...address, retry: RETRY_MS }, String(total));
  };
  /** Publishes until `work` has ended. */
  const publishing = async (work) => {
    let over = false;
    const working = work().finally(() => {
      over = true;
    });
    while (!over) {
      await publishOne();
      await pause(PUBLISH_PAUSE_MS);
    }
    await working;
  };
  /** Resolves when a stream that was requested later is open. */
  const nextStream = (before) =>
    faults.until((requests) => requests.slice(before).some(({ status, closed }) => status === 200 && !closed));
  const allClosed = () => faults.until((requests) => requests.every(({ closed }) => closed));
  const answers = {
    publishOne,
    async cut() {
      await publishing(async () => {
        for (let cuts = 0; cuts < CUTS; cuts += 1) {
          await pause(Math.random() * CUT_PAUSE_MS_MAX);
          const before = faults.requests.length;
          assert.ok(faults.cut() >= 1, 'a stream is open');
          await nextStream(before);
        }
      });
      return total;
    },
    async restart() {
      const before = faults.requests.length;
      server.stop();
      await allClosed();
      server = await start();
      faults.retarget(server.base);
      await publishOne();
      await nextStream(before);
      return total;
    },
    async appDown() {
      app.stop();
      await publishing(allClosed);
      await publishOne();
      await app.start();
      return total;
    },
    async expire() {
      const before = app.tickets;
      await publishing(async () => {
        while (app.tickets < before + EXPIRIES) await pause(PUBLISH_PAUSE_MS);
      });
      await publishOne();
      return total;
    },
  };
  try {
    const args = { module: await servedModule() };
    const { numbers, gaps, failed } = await browser.run({ base: front.base, page, args, answers });
    assert.equal(failed, null);
    assert.deepEqual(gaps, [], 'no event was evicted, so there must be no gap');
    assert.deepEqual(numbers, upTo(total), `${total} events, each once, in order`);
    assert.ok(faults.requests.length > CUTS, 'a new stream follows each cut');
  } finally {
    faults.stop();
    app.stop();
    server.stop();
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const [numbers, gaps] = [[], []];
  let failed = null;
  let heard = () => {};
  const until = (last) =>
    new Promise((resolve) => {
      heard = () => (failed || numbers.at(-1) === last) && resolve();
      heard();
    });
  const feed = subscribe({}, {
    renew: () => fetch('/app/ticket', { method: 'POST' }),
    onGap: (gap) => gaps.push(gap),
    onFailed: (problem) => {
      failed = problem;
      heard();
    },
  });
  feed.on('message', ({ data }) => {
    numbers.push(Number(data));
    heard();
  });
  await new Promise((resolve) => {
    const stop = feed.on('downlink.open', () => resolve(stop()));
  });
  await ask('publishOne');
  await until(1);
  for (const phase of ['cut', 'restart', 'appDown', 'expire']) await until(await ask(phase));
  feed.close();
  return { numbers, gaps, failed };
}
