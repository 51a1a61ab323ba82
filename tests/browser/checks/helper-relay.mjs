// downlink.js: a feed has the URLs of two relays of a server, which are real. The relay in use is
// killed in turns. The feed goes on at the other one, and each event arrives once.

import assert from 'node:assert/strict';

import { startBinary } from '../lib/binaries.mjs';
import { startFaults } from '../lib/faults.mjs';
import { servedModule, upTo } from '../lib/feeds.mjs';

export const name = 'helper-relay';

/** How often a relay is killed. */
const TURNS = 4;
/** The number of events that are published in each step. */
const STEP = 5;

export async function run({ browser, server, startFront }) {
  const startRelay = () => {
    const flags = ['dev', '--follow', server.base, '--listen', '127.0.0.1:0', '--store', 'none'];
    return startBinary(process.env.DOWNLINK_BIN, flags);
  };
  const relays = { one: await startRelay(), two: await startRelay() };
  const faults = { one: await startFaults(relays.one.base), two: await startFaults(relays.two.base) };
  const routes = { '/one/': faults.one.base, '/two/': faults.two.base };
  const front = await startFront(server.base, routes);
  let published = 0;
  const publish = async () => {
    for (let n = 0; n < STEP; n += 1) {
      published += 1;
      await server.publish({ topic: 'a', retry: 500 }, String(published));
    }
    return published;
  };
  const answers = {
    publish,
    kill(name) {
      relays[name].stop();
      return publish();
    },
    async start(name) {
      relays[name] = await startRelay();
      faults[name].retarget(relays[name].base);
    },
  };
  try {
    const args = { module: await servedModule(), turns: TURNS };
    const seen = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(seen.numbers, upTo(published));
    assert.equal(published, STEP * (1 + TURNS));
    assert.deepEqual(seen.gaps, []);
    const expected = Array.from({ length: TURNS + 1 }, (_, turn) => (turn % 2 ? 'two' : 'one'));
    assert.deepEqual(seen.used, expected);
  } finally {
    Object.values(relays).forEach((relay) => relay.stop());
    Object.values(faults).forEach((proxy) => proxy.stop());
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const [numbers, gaps, used] = [[], [], []];
  let heard = () => {};
  let feed;
  await new Promise((resolve) => {
    feed = subscribe(['/one/events?topic=a', '/two/events?topic=a'], {
      onGap: ({ reason }) => gaps.push(reason),
      onState: (state) => state === 'open' && resolve(),
    });
    feed.on('message', ({ data }) => {
      numbers.push(Number(data));
      heard();
    });
  });
  const until = async (last) => {
    await new Promise((resolve) => {
      heard = () => numbers.at(-1) === last && resolve();
      heard();
    });
    used.push(new URL(feed.url).pathname.split('/')[1]);
  };
  await until(await ask('publish'));
  for (let turn = 0; turn < args.turns; turn += 1) {
    const name = used.at(-1);
    await until(await ask('kill', name));
    await ask('start', name);
  }
  feed.close();
  return { numbers, gaps, used };
}
