// A page with downlink.js whose rights end every few seconds. Its streams are cut twenty times, the
// server is killed and restarted, the app that gives the rights is down while they end, and they end
// twice while everything works. Each event arrives once.

import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';

import { SESSION, startApp } from './app.mjs';
import { startProductionIn } from './binaries.mjs';
import { startFaults } from './faults.mjs';
import { servedModule, upTo } from './feeds.mjs';

/** The time limit of a check. It is four times the time that the check needs. */
export const SURVIVAL_TIMEOUT_MS = 240_000;

const CUTS = 20;
/** The longest time from the start of a stream to its cut. The actual time is random. */
const CUT_PAUSE_MS_MAX = 400;
/** The time for which the rights last, in seconds. In the last tenth of it, the server announces
 * their end. */
const LIFETIME = 8;
/** How often the rights end after the cuts and the restarts. */
const EXPIRIES = 2;
const RETRY_MS = 50;
/** The pause between two publishes. With about a hundred events per second, some events are
 * published during each stream and while no stream is open. */
const PUBLISH_PAUSE_MS = 10;

/** Runs the page. With `session`, the server asks the app about the page's cookie. Otherwise the page
 * gets tickets from the app. */
export async function survive({ browser, folder, engine, startFront }, { session }) {
  // The folder keeps the keys and the events over a restart.
  const kept = await mkdtemp(`${folder}/${engine}-`);
  let server;
  const app = await startApp({ server: () => server, lifetime: LIFETIME });
  const flags = ['--listen', '127.0.0.1:0', '--store', 'events.db', '--keep-alive', '1s'];
  if (session) flags.push('--authorize-url', `${app.base}/authorize`, '--authorize-cookie', SESSION.name);
  const start = () => startProductionIn(kept, flags);
  server = await start();
  const faults = await startFaults(server.base);
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
    // The error of `work` is thrown below. Without this line, it would end the process before.
    working.catch(() => {});
    while (!over) {
      await publishOne();
      await pause(PUBLISH_PAUSE_MS);
    }
    await working;
  };
  /** Resolves when a stream is open that was requested after the first `before` streams. */
  const nextStream = (before) =>
    faults.until((requests) => requests.slice(before).some(({ status, closed }) => status === 200 && !closed));
  const allClosed = () => faults.until((requests) => requests.every(({ closed }) => closed));
  const answers = {
    publishOne,
    async cut() {
      await publishing(async () => {
        for (let cuts = 0; cuts < CUTS; ) {
          await nextStream(0);
          await pause(Math.random() * CUT_PAUSE_MS_MAX);
          // A stream may end by itself meanwhile, such as the quiet stream of a refusal.
          cuts += faults.cut() > 0 ? 1 : 0;
          await allClosed();
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
      const before = faults.requests.length;
      // The feed gets no ticket without the app, but it asks the server about its session.
      if (session) await faults.until((requests) => requests.length > before);
      await publishOne();
      await app.start();
      return total;
    },
    async expire() {
      const before = app.grants;
      await publishing(async () => {
        while (app.grants < before + EXPIRIES) await pause(PUBLISH_PAUSE_MS);
      });
      await publishOne();
      return total;
    },
  };
  try {
    const args = { module: await servedModule(), session: session ? SESSION : null };
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
  const { session } = args;
  if (session) document.cookie = `${session.name}=${session.value}; path=/; SameSite=Strict`;
  const address = session ? { topics: ['rooms/*'], client: 'ada' } : {};
  const feed = subscribe(address, {
    // With the cookie, the new stream has the same address.
    renew: () => (session ? undefined : fetch('/app/ticket', { method: 'POST' })),
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
