// A proxy serves the server below a prefix, which it removes. The page, its files, its requests and
// the default address of downlink.js stay below the prefix.

import assert from 'node:assert/strict';

import { livePage } from './page.mjs';
import { startPrefixProxy } from '../lib/prefix.mjs';

export const name = 'mounted';

const PREFIX = '/live/';

export async function run({ browser, server, startFront }) {
  const proxy = await startPrefixProxy(server.base, PREFIX);
  try {
    const front = await startFront(proxy.base);
    const answers = { publish: (data) => server.publish({ topic: 'mounted' }, data) };
    const args = { driver: await livePage(), prefix: PREFIX };
    const heard = await browser.run({ base: front.base, page, args, answers });
    assert.equal(heard, 'for the module');
    assert.deepEqual(proxy.strays, [], 'requests outside the prefix');
  } finally {
    proxy.stop();
  }
}

async function page({ ask, args: { driver, prefix } }) {
  const { openPage } = await import(driver);
  const live = await openPage('', prefix);
  await live.subscribe({ topics: 'mounted' });
  await live.publish({ topic: 'mounted', data: 'with the form' });
  await live.until(() => live.newest() === 'with the form');
  await live.until(() => live.cells('#topics').some(([topic]) => topic === 'mounted'));
  await live.until(() => live.cells('#clients').length > 0);
  if (live.window.getComputedStyle(live.inside.body).margin !== '0px') throw new Error('the style sheet was not loaded');

  const { subscribe } = await import(`${prefix}downlink.js`);
  return new Promise((resolve, reject) => {
    const feed = subscribe({ topics: ['mounted'] }, { onFailed: ({ detail }) => reject(new Error(detail)) });
    feed.on('message', ({ data }) => {
      feed.close();
      resolve(data);
    });
    feed.on('downlink.open', () => ask('publish', 'for the module').catch(reject));
  });
}
