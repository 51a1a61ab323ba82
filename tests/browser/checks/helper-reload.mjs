// downlink.js: a reloaded page resumes after the last event that it received. The id is in
// sessionStorage.

import assert from 'node:assert/strict';

import { servedModule } from '../lib/feeds.mjs';

export const name = 'helper-reload';

export async function run({ browser, front, server }) {
  const { streams } = front;
  const publish = (text) => server.publish({ topic: 'reload' }, text);
  const answers = {
    before: () => publish('before the reload'),
    hold: () => streams.hold(),
    async meanwhile() {
      await publish('published during the reload');
      streams.release();
    },
  };
  const args = { module: await servedModule() };
  const lives = await browser.run({ base: front.base, page, args, answers });
  assert.deepEqual(lives, [['before the reload'], ['published during the reload']]);
  assert.match(streams.requests.at(-1).url, /last_event_id=[0-9a-z]{8}-1/);
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const first = sessionStorage.getItem('first life');
  const texts = [];
  const feed = subscribe({ topics: ['reload'] }, { storage: 'reload' });
  const heard = new Promise((resolve) => {
    feed.on('message', ({ data }) => {
      texts.push(data);
      resolve();
    });
  });
  if (first) {
    await ask('meanwhile');
    await heard;
    return [JSON.parse(first), texts];
  }
  await new Promise((resolve) => {
    feed.on('downlink.open', resolve);
  });
  await ask('before');
  await heard;
  sessionStorage.setItem('first life', JSON.stringify(texts));
  await ask('hold');
  location.reload();
  return new Promise(() => {});
}
