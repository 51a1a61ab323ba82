// downlink.js: the feed replaces an open connection that carries no bytes for two and a half
// keep-alive intervals. It does not replace a connection that carries only keep-alives.

import assert from 'node:assert/strict';

import { startServer, withFaults } from '../lib/feeds.mjs';

export const name = 'helper-silent';

/** The keep-alive interval, which is the shortest that a server allows. Four intervals are longer
 * than the silence that the feed's watchdog allows. */
const KEEP_ALIVE = '1s';
const QUIET_ALIVES = 4;

export async function run({ browser, startFront }) {
  const server = await startServer(['--keep-alive', KEEP_ALIVE]);
  await withFaults({ server, startFront }, async ({ faults, front, module }) => {
    const answers = {
      one: () => server.publish({ topic: 'silent' }, '1'),
      async freeze() {
        assert.equal(faults.freeze(), 1, 'one stream is open');
        await server.publish({ topic: 'silent' }, '2');
        await faults.until((requests) => requests[0].closed);
      },
      requests: () => faults.requests.length,
    };
    const args = { module, alives: QUIET_ALIVES };
    const seen = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(seen.numbers, [1, 2]);
    assert.deepEqual(seen.gaps, []);
    assert.deepEqual(seen.states, ['open', 'connecting', 'open']);
    assert.equal(seen.requests, 2, 'a connection with keep-alives is not replaced');
    assert.ok(faults.requests[0].url.includes('alive=1'));
    assert.match(faults.requests[1].url, /last_event_id=[0-9a-z]{8}-1/);
  }).finally(() => server.stop());
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const [numbers, gaps, states] = [[], [], []];
  let opened;
  const open = new Promise((resolve) => {
    opened = resolve;
  });
  const onState = (state) => {
    states.push(state);
    opened();
  };
  const feed = subscribe({ topics: ['silent'] }, { onState, onGap: (gap) => gaps.push(gap) });
  const heard = (last) =>
    new Promise((resolve) => {
      const stop = feed.on('message', ({ data }) => {
        if (Number(data) !== last) return;
        stop();
        resolve();
      });
    });
  feed.on('message', ({ data }) => numbers.push(Number(data)));
  await open;
  const [first, second] = [heard(1), heard(2)];
  await ask('one');
  await first;
  await ask('freeze');
  await second;
  await new Promise((resolve) => {
    let alives = 0;
    feed.on('downlink.alive', () => {
      alives += 1;
      if (alives === args.alives) resolve();
    });
  });
  return { numbers, gaps, states, requests: await ask('requests') };
}
