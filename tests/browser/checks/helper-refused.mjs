// downlink.js: a permanent refusal ends the feed. The page gets the detail from the server.

import assert from 'node:assert/strict';

import { bearer } from '../lib/api.mjs';
import { startProduction } from '../lib/binaries.mjs';
import { withFaults } from '../lib/feeds.mjs';

export const name = 'helper-refused';

export async function run({ browser, server, startFront }) {
  const closed = await startProduction(['--public', 'news']);
  const asked = await fetch(`${closed.base}/tickets?topic=b`, { method: 'POST', headers: bearer(closed.key) });
  const { ticket } = await asked.json();
  const cases = [
    [closed, '/events?topic=a', 401, 'token_missing'],
    [closed, `/events?topic=a&ticket=${ticket}`, 403, 'topic_denied'],
    [server, '/events?topics=a', 400, undefined],
  ];
  try {
    for (const [refusing, url, status, code] of cases) {
      const { detail } = await (await fetch(refusing.base + url)).json();
      assert.match(detail, /\w+ \w+/, 'the server gives a reason');
      await withFaults({ server: refusing, startFront }, async ({ faults, front, module }) => {
        const args = { module, url };
        const answers = { look: () => {} };
        const seen = await browser.run({ base: front.base, page, args, answers });
        const problem = { status, ...(code && { code }), detail };
        assert.deepEqual(seen, { problem, states: ['closed'], isTypeError: true });
        assert.deepEqual(faults.requests.map((request) => request.status), [status, status]);
      });
    }
  } finally {
    closed.stop();
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const states = [];
  const problem = await new Promise((resolve) => {
    subscribe(args.url, { onFailed: resolve, onState: (state) => states.push(state) });
  });
  window.dispatchEvent(new Event('online'));
  await ask('look');
  let isTypeError = false;
  try {
    subscribe('http://[');
  } catch (error) {
    isTypeError = error instanceof TypeError;
  }
  return { problem, states, isTypeError };
}
