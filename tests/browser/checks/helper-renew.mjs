// downlink.js: the feed renews its credentials before each connection that it makes itself, and
// when they have expired. If the server refuses renewed credentials, the feed ends.

import assert from 'node:assert/strict';

import { startServer, withFaults } from '../lib/feeds.mjs';

export const name = 'helper-renew';

const problem = (status, detail) => ({
  status,
  headers: { 'content-type': 'application/problem+json' },
  body: JSON.stringify({ title: 'No', status, detail }),
});

export async function run({ browser, startFront }) {
  const server = await startServer(['--keep-alive', '1s']);
  await withFaults({ server, startFront }, async ({ faults, front, module }) => {
    const publish = (text) => server.publish({ topic: 'renew', retry: 50 }, text);
    const answers = {
      publish,
      async expire() {
        faults.answer(2, problem(401, 'The token has expired.'));
        faults.cut();
        await publish('after the first token');
      },
      async revoke() {
        faults.answer(4, problem(401, 'The token was revoked.'));
        faults.cut();
      },
    };
    const seen = await browser.run({ base: front.base, page, args: { module }, answers });
    assert.deepEqual(seen.texts, ['with the first token', 'after the first token']);
    assert.deepEqual(seen.failed, { status: 401, detail: 'The token was revoked.' });
    assert.equal(seen.state, 'closed');
    const tokens = faults.requests.map(({ url, status }) => [/_token=(\w+)/.exec(url)[1], status]);
    // The first renewal fails, and the feed tries again. After a cut, the browser reconnects with
    // the old token. Then the feed requests the reason, and then it renews the token.
    assert.deepEqual(tokens, [
      ['t2', 200], ['t2', 401], ['t2', 401],
      ['t3', 200], ['t3', 401], ['t3', 401],
      ['t4', 401], ['t4', 401],
    ]);
    assert.equal(seen.renewals, 4);
  }).finally(() => server.stop());
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const texts = [];
  let renewals = 0;
  const renew = async () => {
    renewals += 1;
    if (renewals === 1) throw new Error('the token is not available yet');
    const url = new URL('/events?topic=renew', location.href);
    url.searchParams.set('_token', `t${renewals}`);
    return renewals % 2 === 0 ? { _token: `t${renewals}` } : url;
  };
  let feed;
  const failed = await new Promise((resolve, reject) => {
    feed = subscribe({ topics: ['renew'] }, { renew, onFailed: resolve });
    feed.on('message', ({ data }) => {
      texts.push(data);
      // After two keep-alives, the connection has lasted so long that the browser reconnects by
      // itself.
      let alives = 0;
      const stop = feed.on('downlink.alive', () => {
        alives += 1;
        if (alives < 2) return;
        stop();
        ask(texts.length === 1 ? 'expire' : 'revoke').catch(reject);
      });
    });
    const stop = feed.on('downlink.open', () => {
      stop();
      ask('publish', 'with the first token').catch(reject);
    });
  });
  return { texts, failed, renewals, state: feed.state };
}
