// Behind each proxy, the head and the first comment of a stream arrive although no event is
// published. Later the first event arrives although no other event follows.

import assert from 'node:assert/strict';

import { READABLE, startProduction } from '../lib/binaries.mjs';
import { NAMES, forEach, withProxies } from '../lib/proxies.mjs';
import { openStream } from '../lib/streams.mjs';

export const name = 'proxy-first-byte';
export const engines = ['node'];

/** The longest wait. It is a third of the keep-alive interval, because a keep-alive could make a
 * proxy send bytes that it has held back. */
const AT_ONCE_MS = 5_000;

export async function run() {
  const server = await startProduction(READABLE);
  await withProxies({ backend: server.base }, (proxies) =>
    forEach(proxies, async ({ name, base }) => {
      const stream = await openStream(`${base}/events?topic=${name}`, AT_ONCE_MS);
      assert.equal(stream.status, 200);
      assert.equal(stream.headers.get('content-type'), 'text/event-stream');
      await stream.carried(': connected', AT_ONCE_MS);
      await server.publish({ topic: name }, 'the first event');
      await stream.carried('data: the first event\n\n', AT_ONCE_MS);
      stream.close();
    }),
  ).finally(server.stop);
}
