// Behind each proxy, a plain EventSource reconnects after the server was down for five seconds, and
// gets each event once. The store keeps the history, and the browser resumes with Last-Event-ID.

import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { READABLE, startProductionIn } from '../lib/binaries.mjs';
import { upTo } from '../lib/feeds.mjs';
import { LONG, NAMES, freePort, withProxies } from '../lib/proxies.mjs';

export const name = 'proxy-restart';
export const timeoutMs = LONG ? 240_000 : 90_000;

const AWAY_MS = 5_000;
/** The signals that end the server. With SIGTERM, the server drains and sends its clients a
 * reconnection time. With SIGKILL, it does not. */
const SIGNALS = LONG ? ['SIGTERM', 'SIGKILL', 'SIGTERM', 'SIGKILL', 'SIGTERM'] : ['SIGTERM'];

export async function run({ browser, server, startFront, folder }) {
  const store = join(await mkdtemp(join(folder, 'restart-')), 'events.db');
  const address = `127.0.0.1:${await freePort()}`;
  let current = await startWithStore(address, store);
  let total = 0;
  const publishOne = async () => {
    total += 1;
    for (const topic of NAMES) await current.publish({ topic }, String(total));
    return total;
  };
  const restart = async (signal, { requests }) => {
    await publishOne();
    await ended(current, signal);
    const asked = requests.length;
    const gone = performance.now();
    await assert.rejects(current.publish({ topic: 'nowhere' }, 'refused'));
    // Each EventSource sends at least one request while the server is down.
    while (!NAMES.every((name) => requests.slice(asked).some(({ url }) => url === path(name)))) await pause(50);
    await pause(AWAY_MS - (performance.now() - gone));
    current = await startWithStore(address, store);
    return publishOne();
  };
  try {
    await withProxies({ backend: current.base }, async (proxies) => {
      const routes = Object.fromEntries(proxies.map(({ name, base }) => [`/${name}/`, base]));
      const front = await startFront(server.base, routes);
      const answers = { one: publishOne, restart: (signal) => restart(signal, front.streams) };
      const paths = Object.fromEntries(NAMES.map((name) => [name, `/${name}${path(name)}`]));
      const args = { paths, signals: SIGNALS };
      const seen = await browser.run({ base: front.base, page, args, answers });
      for (const name of NAMES) assert.deepEqual(seen[name], upTo(total), name);
      assert.equal(total, 1 + 3 * SIGNALS.length);
      const resumed = front.streams.requests.filter(({ lastEventId }) => lastEventId);
      assert.ok(resumed.length >= 2 * NAMES.length * SIGNALS.length, 'each EventSource resumes during and after each restart');
    });
  } finally {
    current.stop();
  }
}

function path(name) {
  return `/events?topic=${name}`;
}

function startWithStore(address, store) {
  return startProductionIn(dirname(store), [...READABLE, '--listen', address, '--store', store]);
}

async function ended({ child }, signal) {
  const exit = new Promise((resolve) => child.on('exit', resolve));
  process.kill(child.pid, signal);
  await exit;
}

async function page({ ask, args }) {
  const names = Object.keys(args.paths);
  const seen = Object.fromEntries(names.map((name) => [name, []]));
  let dead;
  const died = new Promise((_, reject) => (dead = reject));
  let heard = () => {};
  await Promise.all(
    names.map((name) => {
      const source = new EventSource(args.paths[name]);
      source.onmessage = ({ data }) => {
        seen[name].push(Number(data));
        heard();
      };
      return new Promise((resolve) => {
        source.onopen = resolve;
        source.onerror = () => {
          if (source.readyState === EventSource.CLOSED) dead(new Error(`${name}: the EventSource has given up`));
        };
      });
    }),
  );
  const all = (last) =>
    new Promise((resolve) => {
      heard = () => names.every((name) => seen[name].at(-1) === last) && resolve();
      heard();
    });
  const story = async () => {
    await all(await ask('one'));
    for (const signal of args.signals) {
      await all(await ask('restart', signal));
      await all(await ask('one'));
    }
    return seen;
  };
  return Promise.race([story(), died]);
}
