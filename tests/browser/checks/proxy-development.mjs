// A development server gives all rights to requests of its own machine. Behind a naive proxy, it
// refuses each request in which the proxy has left a trace. Some proxies leave no trace: then a
// stranger gets in, as chapter 27 of the guide says. If this changes, the chapter has to change too.

import assert from 'node:assert/strict';

import { addressed, getsNothing, isRefused } from '../lib/attack.mjs';
import { withNaiveProxies } from '../lib/naive.mjs';
import { ownerOf } from '../lib/owner.mjs';
import { forEach } from '../lib/proxies.mjs';
import { exchange, several, statusOf } from '../lib/raw.mjs';
import { FORBIDDEN, FORGERIES, NAMES, SECRET_DATA, betrayed, written } from '../lib/stranger.mjs';

export const name = 'proxy-development';
export const engines = ['node'];

/** The beginnings of the headers that show a proxy. A stranger who sends one is refused too. */
const SHOWS_A_PROXY = /^(X-Forwarded-|X-Real-IP|Forwarded|Via|True-Client-IP|CF-Connecting-IP)/;
const LOOPBACK_HOST = /^Host: (HOST|BACKEND|localhost|\[::1\])$/;

export async function run({ server }) {
  const owner = ownerOf(server);
  const reading = await owner.read({ topic: '*', client: NAMES.client });
  const events = [NAMES.secret, NAMES.hidden].map((topic) => `${SECRET_DATA} ${topic}`);
  await owner.publish({ topic: NAMES.secret }, events[0]);
  await withNaiveProxies(server.base, (proxies) =>
    forEach(proxies, (proxy) => {
      if (proxy.trace === 'headers') return getsNothing(proxy, server.base);
      return isSometimesRefused(proxy, server.base);
    }),
  );
  await owner.publish({ topic: NAMES.hidden }, events[1]);
  await reading.until(events[1]);
  reading.stop();
  assert.deepEqual(reading.seen, events, 'no stranger has published');
}

/** Checks a proxy that adds no header: only some requests show that they come from a stranger. */
async function isSometimesRefused(proxy, backend) {
  for (const headers of FORGERIES) {
    const hosts = headers.filter((header) => header.startsWith('Host:'));
    const looksLocal = proxy.trace === 'none' || hosts.every((host) => LOOPBACK_HOST.test(host));
    const isLocal = looksLocal && hosts.length === 1 && !headers.some((header) => SHOWS_A_PROXY.test(header));
    const isForeignPage = headers.includes('Sec-Fetch-Site: cross-site');
    if (!isLocal || isForeignPage) {
      await several(FORBIDDEN, async (request) => {
        const bytes = written(request, headers);
        isRefused(bytes, await exchange(proxy.base, addressed(bytes, proxy, backend)));
      });
    } else {
      const bytes = written('GET /metrics', headers);
      const answer = await exchange(proxy.base, addressed(bytes, proxy, backend));
      assert.equal(statusOf(answer), 200, `${proxy.name} leaves no trace: ${bytes}\n${answer}`);
      assert.equal(betrayed(answer), '# TYPE');
    }
  }
}
