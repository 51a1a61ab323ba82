// downlink.js: the browser and the module reconnect with a URL that has every possible parameter.
// The server accepts both. The module adds only parameters that the server knows.

import assert from 'node:assert/strict';

import { startServer, withFaults } from '../lib/feeds.mjs';

export const name = 'helper-parameters';

/** The parameters of `GET /events` in docs/HTTP.md. */
const KNOWN = ['topic', 'client', 'start', 'last_event_id', 'open', 'alive', 'meta'];

export async function run({ browser, startFront }) {
  const server = await startServer(['--keep-alive', '1s']);
  await withFaults({ server, startFront }, async ({ faults, front, module }) => {
    const answers = {
      async cut() {
        const next = faults.requests.length + 1;
        assert.equal(faults.cut(), 1, 'one stream is open');
        await faults.until((requests) => requests.length === next && requests.at(-1).status);
      },
      publish: (data) => server.publish({ topic: 'p/1', retry: 50 }, data),
    };
    await browser.run({ base: front.base, page, args: { module }, answers });
    assert.deepEqual(faults.requests.map(({ status }) => status), [200, 200, 200]);
    const asked = faults.requests.map(({ url }) => new URL(url, server.base).searchParams);
    const names = new Set(asked.flatMap((query) => [...query.keys()]));
    assert.deepEqual([...names].filter((one) => !KNOWN.includes(one)), []);
    const [, byBrowser, byModule] = faults.requests;
    assert.ok(byBrowser.lastEventId && !asked[1].has('last_event_id'), byBrowser.url);
    assert.ok(!byModule.lastEventId && asked[2].has('last_event_id'), byModule.url);
    assert.deepEqual(asked[2].getAll('topic'), ['p/*', 'a "b" & c']);
  }).finally(() => server.stop());
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const address = { topics: ['p/*', 'a "b" & c'], client: 'c 1', start: 'last:5' };
  const failed = [];
  const onFailed = ({ detail }) => failed.push(detail);
  const feed = subscribe(address, { storage: 'parameters', onFailed });
  const heard = (type, times) =>
    new Promise((resolve) => {
      const stop = feed.on(type, ({ data }) => {
        times -= 1;
        if (times > 0) return;
        stop();
        resolve(data);
      });
    });
  // If a connection has lasted a second, which is two keep-alives, the browser reconnects.
  const lasted = heard('downlink.alive', 2);
  await heard('downlink.open', 1);
  const one = heard('message', 1);
  await ask('publish', 'one');
  await one;
  await lasted;
  let opened = heard('downlink.open', 1);
  await ask('cut');
  await opened;
  // After a shorter connection, the module reconnects.
  const two = heard('message', 1);
  await ask('publish', 'two');
  await two;
  opened = heard('downlink.open', 1);
  await ask('cut');
  await opened;
  if (failed.length > 0) throw new Error(failed.join());
  return null;
}
