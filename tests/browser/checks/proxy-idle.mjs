// A stream without events lives longer than the idle limit of the proxy, because of the keep-alive.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

import { startServer } from '../lib/feeds.mjs';
import { LONG, NAMES, forEach, hasIdleLimit, withProxies } from '../lib/proxies.mjs';
import { openStream } from '../lib/streams.mjs';

export const name = 'proxy-idle';
export const engines = ['node'];
export const timeoutMs = LONG ? 240_000 : 60_000;

/** Short, so that the check is. More than twice the keep-alive, for a loaded machine. */
const IDLE_SECONDS = 3;
const KEEP_ALIVE = '1s';
/** Three idle limits. A proxy that forgets to start its timer anew fails after one. */
const IDLE_MS = 3 * 1000 * IDLE_SECONDS;
/** The long version has the limits of the shipped files, and the server's own keep-alive. */
const LONG_IDLE_MS = 150_000;
/** For the cut after `IDLE_SECONDS`: less than the keep-alive of the server of the runner. */
const CUT_MS_MAX = 12_000;
const HEAD_MS_MAX = 10_000;

export async function run({ server }) {
  if (LONG) return lives({ backend: server.base }, LONG_IDLE_MS);
  const lively = await startServer(['--keep-alive', KEEP_ALIVE]);
  try {
    await Promise.all([
      lives({ backend: lively.base, idleSeconds: IDLE_SECONDS }, IDLE_MS),
      isCut({ backend: server.base, idleSeconds: IDLE_SECONDS, names: NAMES.filter(hasIdleLimit) }),
    ]);
  } finally {
    lively.stop();
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

/** Without keep-alives the limit cuts the stream. So the limit is in force. */
async function isCut(options) {
  await withProxies(options, (proxies) =>
    forEach(proxies, async ({ base }) => {
      const stream = await openStream(`${base}/events?topic=idle`, HEAD_MS_MAX);
      await stream.end(CUT_MS_MAX);
    }),
  );
}
