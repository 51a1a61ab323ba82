// If the server refuses a browser over plain HTTP, the browser must still reconnect later. A
// browser sends `Sec-Fetch-Mode` only to trustworthy addresses, such as https and localhost.

import assert from 'node:assert/strict';

import { READABLE, startProduction } from '../lib/binaries.mjs';
import { withFaults } from '../lib/feeds.mjs';

export const name = 'plain_http';

/** A name that each browser resolves to this machine (see lib/chromium.mjs and lib/firefox.mjs). */
const NAME = 'events.test';

export async function run({ browser, startFront }) {
  const full = await startProduction([...READABLE, '--host', NAME, '--subscribers-max', '0']);
  try {
    await withFaults({ server: full, startFront }, async ({ faults, front }) => {
      const base = front.base.replace('127.0.0.1', NAME);
      const states = await browser.run({ base, page });
      assert.deepEqual(states, [0, 0], 'the EventSource is reconnecting and not closed');
      assert.deepEqual(
        faults.requests.slice(0, 2).map(({ status, fetchMode }) => ({ status, fetchMode })),
        Array(2).fill({ status: 200, fetchMode: null }),
      );
      const { status } = await fetch(`${full.base}/events?topic=a&refuse_with_status=1`);
      assert.equal(status, 503, 'a page that requests the status gets it');
    });
  } finally {
    full.stop();
  }
}

/** The state of an EventSource after each of its first two errors. */
async function page() {
  const states = [];
  const source = new EventSource('/events?topic=a');
  await new Promise((resolve) => {
    source.onerror = () => {
      states.push(source.readyState);
      if (states.length === 2 || source.readyState === 2) resolve();
    };
  });
  source.close();
  return states;
}
