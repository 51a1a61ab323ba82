// downlink.js: a feed has the URLs of two servers. A refusal that concerns the subscription ends the
// feed. A wrong answer of one server does not, and neither does the empty stream of a proxy whose
// server is down. `Retry-After` applies only to the server that sent it. A ticket is valid at both servers, and the feed renews it at the server that it
// uses.

import assert from 'node:assert/strict';

import { startFaults } from '../lib/faults.mjs';
import { servedModule } from '../lib/feeds.mjs';
import { TICKET_PATH, event, expiring, opening, startScripted } from '../lib/scripted.mjs';

export const name = 'helper-urls-refused';

/** The time from the notice to the end of the stream. It is longer than the check. */
const LEFT_MS = 600_000;

const NOTHING = { status: 200, headers: { 'content-type': 'text/event-stream' }, body: 'retry: 1000\n\n' };

const numbered = (n) => event({ id: `e-${n}`, data: n });

export async function run({ browser, startFront }) {
  const [app, one, two] = [await startScripted(), await startScripted(), await startScripted()];
  const proxy = await startFaults(one.base);
  const front = await startFront(app.base, { '/1/': one.base, '/2/': two.base, '/proxy/': proxy.base });
  proxy.answer(2, NOTHING);
  const refuse = async (scripted, problem) => {
    scripted.giveReason(problem);
    (await scripted.next()).refuse(problem.status);
  };
  const answers = {
    /** The subscription is refused at the first server. */
    shared: () => refuse(one, { status: 403, code: 'topic_denied', detail: 'not your topic' }),
    /** Both servers give a wrong answer. */
    async wrong() {
      await refuse(one, { status: 404, detail: 'the first has no such page' });
      await refuse(two, { status: 410, detail: 'the second neither' });
    },
    async proxy() {
      const stream = await two.open(opening('e-0'));
      assert.equal(proxy.requests.length, 2, 'one request of the browser, and one for the reason');
      await stream.closed;
    },
    /** The first server asks for no request for an hour. */
    async busy() {
      await refuse(one, { status: 503, retryAfter: 3_600 });
      await refuse(two, { status: 503 });
      const stream = await two.open(opening('e-0'));
      await stream.closed;
    },
    finished: () => refuse(one, { status: 204 }),
    async ticket() {
      const refused = await one.next();
      assert.equal(refused.ticket, '1');
      refused.refuse(502);
      const stream = await two.open(opening('e-0'), numbered(1), expiring(LEFT_MS));
      assert.deepEqual([stream.ticket, stream.parameters.get('topic')], ['2', null]);
      const successor = await two.next();
      assert.deepEqual([successor.ticket, successor.after], ['3', 'e-1']);
      assert.ok(!stream.isClosed);
      successor.send(opening('e-1'), numbered(2));
      await stream.closed;
    },
  };
  try {
    const args = { module: await servedModule(), ticketPath: TICKET_PATH };
    const seen = await browser.run({ base: front.base, page, args, answers });
    assert.deepEqual(seen.shared, { status: 403, code: 'topic_denied', detail: 'not your topic' });
    assert.deepEqual(seen.wrong, { status: 410, detail: 'the second neither' });
    assert.equal(seen.finished, 'finished');
    assert.deepEqual(seen.numbers, [1, 2]);
    assert.equal(one.streamCount, 5);
    assert.equal(two.streamCount, 6);
    assert.deepEqual(seen.errors, [
      'the list of URLs is empty: give at least one URL',
      '17 URLs were given, but the maximum is 16: remove some',
      `the list has ${front.base}/1/events?topic=a twice: remove one of them`,
      'http://[ is not a URL',
    ]);
  } finally {
    for (const scripted of [app, one, two, proxy]) scripted.stop();
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const urls = ['/1/events', '/2/events'];
  const failure = async (question) => {
    const failed = new Promise((resolve) => subscribe(urls, { onFailed: resolve }));
    await ask(question);
    return failed;
  };
  const [shared, wrong] = [await failure('shared'), await failure('wrong')];
  const ended = new Promise((resolve) => subscribe(urls, { onFinished: () => resolve('finished') }));
  await ask('finished');
  const finished = await ended;

  const closeWhenOpen = async (list) => {
    const feed = subscribe(list);
    await new Promise((resolve) => feed.on('downlink.open', resolve));
    feed.close();
  };
  await Promise.all([ask('proxy'), closeWhenOpen(['/proxy/events', '/2/events'])]);
  await Promise.all([ask('busy'), closeWhenOpen(urls)]);

  const numbers = [];
  const renew = () => fetch(args.ticketPath, { method: 'POST' });
  const feed = subscribe({ url: urls, topics: ['a'] }, { renew });
  const second = new Promise((resolve) => {
    feed.on('message', ({ data }) => {
      numbers.push(Number(data));
      if (numbers.length === 2) resolve();
    });
  });
  await ask('ticket');
  await second;
  feed.close();

  const many = Array.from({ length: 17 }, (_, n) => `/${n}/events`);
  const twice = { url: ['/1/events', '/2/events', new URL('/1/events', location.href)], topics: ['a'] };
  const errors = [[], many, twice, ['/1/events', 'http://[']].map((address) => {
    try {
      return subscribe(address);
    } catch (error) {
      return error instanceof TypeError ? error.message : error;
    }
  });
  return { shared, wrong, finished, numbers, errors };
}
