// Sends all requests of a stranger to a proxy, and checks that the answers give no right.

import assert from 'node:assert/strict';

import { exchange, isStream, overHttp2, several, statusOf } from './raw.mjs';
import { FORBIDDEN, FORGERIES, SPELLINGS, betrayed, forHttp2, old, smuggled, written } from './stranger.mjs';

/** How long a stranger waits for more answers after an attempt to smuggle a request. The checks also
 * compare what the server has done, so a time that is too short hides only an answer. */
const QUIET_MS = 100;

/** Checks that a stranger gets nothing through `proxy` from the server at `backend`. */
export async function getsNothing(proxy, backend) {
  const send = (bytes, quietMs) => exchange(proxy.base, addressed(bytes, proxy, backend), quietMs);
  const forged = FORGERIES.flatMap((headers) => FORBIDDEN.map((request) => written(request, headers)));
  await several(forged, async (bytes) => isRefused(bytes, await send(bytes)));
  const spelled = [...SPELLINGS.map((request) => written(request)), ...old()];
  await several(spelled, async (bytes) => isNothing(bytes, await send(bytes)));
  await several(smuggled(), async ({ bytes }) => isNothing(bytes, await send(bytes, QUIET_MS)));
  for (const answer of await overHttp2(proxy.base, forHttp2())) {
    assert.equal(betrayed(answer), undefined, answer);
    assert.doesNotMatch(answer, /^200 text\/event-stream/);
  }
}

/** The bytes with the addresses of the proxy and of the server. */
export function addressed(bytes, proxy, backend) {
  const [front, back] = [proxy.base, backend].map((base) => new URL(base).host);
  return bytes.replaceAll('HOST', front).replaceAll('BACKEND', back);
}

/** Checks that a request was refused, or got no answer. */
export function isRefused(request, answer) {
  const status = statusOf(answer);
  assert.ok(status === undefined || status >= 400, `${request}\n${answer}`);
  assert.equal(betrayed(answer), undefined, `${request}\n${answer}`);
}

/** Checks that answers give no right. A proxy may change a request, so that it asks for something
 * that everyone may have, such as a health check. */
function isNothing(request, answer) {
  assert.equal(betrayed(answer), undefined, `${request}\n${answer}`);
  assert.ok(!isStream(answer), `${request}\n${answer}`);
}
