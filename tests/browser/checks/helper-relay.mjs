// downlink.js: a feed has the URLs of a server and of its relay, which are real. The relay is killed
// and the stream of the server is cut in turns. The feed goes on at the other one, and each event
// arrives once.

import assert from 'node:assert/strict';

import { startBinary } from '../lib/binaries.mjs';
import { startFaults } from '../lib/faults.mjs';
import { servedModule, upTo } from '../lib/feeds.mjs';

export const name = 'helper-relay';

/** How often each of the two servers is left. */
const TURNS = 3;
/** The number of events that are published in each step. */
const STEP = 5;

export async function run({ browser, server, startFront }) {
  const startRelay = () => {
    const flags = ['dev', '--follow', server.base, '--listen', '127.0.0.1:0', '--store', 'none'];
    return startBinary(process.env.DOWNLINK_BIN, flags);
  };
  let relay = await startRelay();
  const faults = await startFaults(relay.base);
  const front = await startFront(server.base, { '/relay/': faults.base });
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
    async kill() {
      relay.stop();
      relay = await startRelay();
      faults.retarget(relay.base);
      return publish();
    },
    cut() {
      assert.equal(front.streams.cut(), 1);
      return publish();
    },
  };
  try {
    const args = { module: await servedModule(), turns: TURNS };
    const seen = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(seen.numbers, upTo(published));
    assert.equal(published, STEP * (1 + 2 * TURNS));
    assert.deepEqual(seen.gaps, []);
    const turns = Array.from({ length: TURNS }, () => ['/events', '/relay/events']).flat();
    assert.deepEqual(seen.paths, ['/relay/events', ...turns]);
  } finally {
    relay.stop();
    faults.stop();
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const [numbers, gaps, paths] = [[], [], []];
  let heard = () => {};
  let feed;
  await new Promise((resolve) => {
    feed = subscribe(['/relay/events?topic=a', '/events?topic=a'], {
      onGap: ({ reason }) => gaps.push(reason),
      onState: (state) => state === 'open' && resolve(),
    });
    feed.on('message', ({ data }) => {
      numbers.push(Number(data));
      heard();
    });
  });
  const steps = ['publish', ...Array.from({ length: args.turns }, () => ['kill', 'cut']).flat()];
  for (const step of steps) {
    const last = await ask(step);
    await new Promise((resolve) => {
      heard = () => numbers.at(-1) === last && resolve();
      heard();
    });
    paths.push(new URL(feed.url).pathname);
  }
  feed.close();
  return { numbers, gaps, paths };
}
