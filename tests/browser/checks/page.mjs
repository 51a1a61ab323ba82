// The server's own page subscribes, publishes, and shows events, topics and clients. It shows all
// received data as text. The checks page-*.mjs cover more of the page, and lib/live_page.mjs has
// the names of its elements.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { addFile } from '../lib/pages.mjs';

export const name = 'page';

/** If the page parsed one of these values as HTML, it would have an image or another title. */
const hostile = (place) => `<img src=x onerror="document.title='${place}'">`;
const HOSTILE = {
  topic: hostile('topic').replace('/', ''),
  client: hostile('client'),
  event: hostile('type'),
  data: `${hostile('data')}<script>document.title='script'</script>\nsecond line`,
};

/** This is more data than the buffers of a connection hold, so a client that does not read falls
 * behind. */
const HEAVY = { events: 250, bytes: 60_000 };

export async function livePage() {
  const driver = await readFile(new URL('../lib/live_page.mjs', import.meta.url));
  return addFile(driver, 'text/javascript');
}

export async function run({ engine, browser, front, server, folder }) {
  const slow = {};
  const answers = {
    async fallBehind() {
      slow.request = await subscribeAndNeverRead(`${server.base}/events?topic=heavy&client=slow`);
      const line = `${JSON.stringify({ topic: 'heavy', data: 'x'.repeat(HEAVY.bytes) })}\n`;
      for (let left = HEAVY.events; left > 0; left -= 10) await publishBatch(server.base, line.repeat(10));
    },
  };
  const args = { driver: await livePage(), hostile: HOSTILE };
  try {
    const seen = await browser.run({ base: front.base, page, args, answers });
    assert.equal(seen.images, 0, 'received data must not become an element');
    assert.equal(seen.title, 'downlink', 'received data must not run as script');
  } finally {
    slow.request?.destroy();
  }
  const pictures = join(folder, engine);
  await mkdir(pictures, { recursive: true });
  const picture = join(pictures, 'page.png');
  await browser.screenshot(`${front.base}/#topic=page/*&start=earliest`, picture);
  assert.ok((await stat(picture)).size > 0);
  console.log(`  screenshot: ${picture}`);
}

async function publishBatch(base, body) {
  const answer = await fetch(`${base}/events/batch`, { method: 'POST', body });
  assert.equal(answer.status, 200, await answer.text());
}

/** A subscriber that keeps its connection open and reads nothing. */
function subscribeAndNeverRead(url) {
  return new Promise((resolve, reject) => {
    const request = http.get(url, (response) => {
      response.pause();
      resolve(request);
    });
    request.on('error', reject);
  });
}

async function page({ ask, args: { driver, hostile } }) {
  const { openPage } = await import(driver);
  const live = await openPage();
  const { until, rows, cells } = live;
  await until(() => live.find('#state').dataset.state === 'open');
  const check = (holds, why) => {
    if (!holds) throw new Error(`${why}: ${JSON.stringify(rows().slice(0, 3))} ${live.inside.body.innerText}`);
  };
  const newest = (wanted) => until(() => rows()[0]?.data === wanted && rows()[0]);

  const topics = `page/* "${hostile.topic.replaceAll('"', '\\"')}"`;

  // The page shows the topic, type, id and age of an event.
  await live.subscribe({ topics, client: hostile.client });
  let reply = await live.publish({ topic: 'page/demo', event: 'greeting', data: 'typed into the form' });
  let row = await newest('typed into the form');
  check(reply === `Published as ${row.id} to 1 subscription.`, reply);
  check(row.topics.join() === 'page/demo' && row.type === 'greeting' && /^(now|\d+ s ago)$/.test(row.age), 'a row');
  const older = (age) => until(() => /^\d+ s ago$/.test(rows()[0].age) && rows()[0].age !== age && rows()[0].age);
  await older(await older('now'));

  // Each field has a text that looks like HTML.
  await live.publish({ ...hostile });
  row = await newest(hostile.data);
  check(row.topics[0] === hostile.topic && row.clients[0] === hostile.client, 'hostile addresses');
  check(row.type === hostile.event, 'a hostile type');
  await live.publish({ everyone: true, data: 'for all' });
  await newest('for all');
  reply = await live.publish({ data: 'nobody' });
  check(reply.includes('topic') && live.find('#published').className === 'bad', `no address: ${reply}`);
  live.fill('form#subscribe', { topics: '<img*' });
  live.find('form#subscribe').requestSubmit();
  await until(() => live.find('#state').textContent.startsWith('refused: '));
  check(live.find('#state').textContent.includes('<img'), 'the refusal must show the invalid value');
  await live.subscribe({ topics });

  // The page lists topics with their subscribers and rates.
  const topic = (name) => cells('#topics').find(([shown]) => shown === name);
  await until(() => topic(hostile.topic)?.[1] === '1' && topic('page/demo')?.[2] === '0');
  await live.publish({ topic: 'page/demo', data: 'for the rate' });
  await until(() => /^[0-9.,]*[1-9][0-9.,]*$/.test(topic('page/demo')[2]));
  live.find('#prefix').value = 'page/';
  live.find('#prefix').dispatchEvent(new live.window.Event('input'));
  await until(() => cells('#topics').length === 1);

  // The page makes a character visible if it would reverse the direction of text.
  await live.publish({ topic: 'page/a\u202eb', data: 'turned' });
  live.find('#prefix').value = 'page/a';
  live.find('#prefix').dispatchEvent(new live.window.Event('input'));
  await until(() => topic('page/a\\u{202e}b'));

  // A click on a topic subscribes to the topic, whatever characters its name has.
  live.find('#prefix').value = '';
  live.find('#prefix').dispatchEvent(new live.window.Event('input'));
  await until(() => topic(hostile.topic)?.[1] === '1');
  [...live.find('#topics').querySelectorAll('button')].find(({ textContent }) => textContent === hostile.topic).click();
  await until(() => topic('page/demo')?.[1] === '0' && topic(hostile.topic)?.[1] === '1');

  // The list of clients begins with the slowest client.
  const own = live.find('#state').textContent.match(/\d+/)[0];
  const ownRow = () => live.find('#clients').querySelector('tr.own');
  const client = (row) => row.cells[0].firstElementChild.textContent;
  await until(() => ownRow()?.cells[1].textContent === own && client(ownRow()) === hostile.client);
  check(ownRow().querySelector('.tag').textContent === 'this page', 'the connection of this page must be marked');
  await ask('fallBehind');
  await until(() => cells('#clients')[0][0] === 'slow' && cells('#clients')[0][2] !== '0');

  live.find('#leave').click();
  check(live.find('#state').dataset.state === 'closed', 'left');
  return { images: live.inside.querySelectorAll('img, script:not([src])').length, title: live.inside.title };
}
