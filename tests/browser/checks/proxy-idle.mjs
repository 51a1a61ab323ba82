// Because of the keep-alives, a stream without events stays open longer than the idle limit of the
// proxy.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

import { READABLE, startProduction } from '../lib/binaries.mjs';
import { LONG, NAMES, forEach, hasIdleLimit, withProxies } from '../lib/proxies.mjs';
import { openStream } from '../lib/streams.mjs';

export const name = 'proxy-idle';
export const engines = ['node'];
export const timeoutMs = LONG ? 240_000 : 60_000;

/** The idle limit of the proxies. It is short, so that the check is short. It is more than twice
 * the keep-alive interval, so that the check also succeeds on a loaded machine. */
const IDLE_SECONDS = 3;
const KEEP_ALIVE = '1s';
/** How long streams must stay open: three times the idle limit. If a proxy did not restart its
 * timer after a keep-alive, it would cut the stream after one idle limit. */
const IDLE_MS = 3 * 1000 * IDLE_SECONDS;
/** The same time for the long version, which uses the idle limits of the shipped files and the
 * default keep-alive of the server. */
const LONG_IDLE_MS = 150_000;
/** The longest wait for a cut after `IDLE_SECONDS`. It is less than the default keep-alive interval,
 * so no keep-alive comes first. */
const CUT_MS_MAX = 12_000;
const HEAD_MS_MAX = 10_000;

export async function run() {
  const server = await startProduction(READABLE);
  const lively = await startProduction([...READABLE, '--keep-alive', KEEP_ALIVE]);
  try {
    if (LONG) return await lives({ backend: server.base }, LONG_IDLE_MS);
    return await Promise.all([
      lives({ backend: lively.base, idleSeconds: IDLE_SECONDS }, IDLE_MS),
      isCut({ backend: server.base, idleSeconds: IDLE_SECONDS, names: NAMES.filter(hasIdleLimit) }),
    ]);
  } finally {
    lively.stop();
    server.stop();
  }
}

async function lives(options, ms) {
  await withProxies(options, (proxies) =>
    forEach(proxies, async ({ base }) => {
      const stream = await openStream(`${base}/events?topic=idle`, HEAD_MS_MAX);
      await pause(ms);
      assert.ok(!stream.ended, `the stream ended within ${ms / 1000} s: ${stream.text}`);
      stream.close();
    }),
  );
}

/** Checks that the idle limit works: without keep-alives, the proxy cuts the stream. */
async function isCut(options) {
  await withProxies(options, (proxies) =>
    forEach(proxies, async ({ base }) => {
      const stream = await openStream(`${base}/events?topic=idle`, HEAD_MS_MAX);
      await stream.end(CUT_MS_MAX);
    }),
  );
}
