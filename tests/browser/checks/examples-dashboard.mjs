// The example `dashboard`. The page shows the newest value of each metric at once, and then later
// values. After a cut, it continues by itself.

import assert from 'node:assert/strict';
import { join } from 'node:path';

export const name = 'examples-dashboard';

export async function run({ browser, startBinary, startFront }) {
  const dashboard = await startBinary(join(process.env.DOWNLINK_BIN_DIR, 'dashboard'), ['0']);
  try {
    const front = await startFront(dashboard.base);
    const answers = {
      cut() {
        front.streams.hold();
        assert.equal(front.streams.cut(), 1, 'one stream is open');
      },
      letBack: () => front.streams.release(),
    };
    const seen = await browser.run({ base: front.base, page, args: {}, answers });

    const expected = process.platform === 'linux' ? ['uptime', 'walk', 'memory', 'streams'] : ['uptime', 'walk', 'streams'];
    assert.deepEqual(seen.metrics, expected);
    assert.ok(seen.changes >= 3, 'values change');
    assert.ok(seen.points >= 4, 'a line has a point for each value received');
    assert.equal(seen.streams, '1');
    assert.ok(parseFloat(seen.uptimeAfter) > parseFloat(seen.uptimeBefore), 'values change after the cut');
    assert.deepEqual(seen.states, ['connecting', 'open', 'reconnecting', 'open']);
    assert.equal(front.streams.requests.length, 2);
  } finally {
    dashboard.stop();
  }
}

/** Opens the example's own page in a frame, as a user would see it. */
async function page({ ask }) {
  const frame = document.createElement('iframe');
  frame.src = '/';
  await new Promise((resolve) => {
    frame.onload = resolve;
    document.body.append(frame);
  });
  const inside = frame.contentDocument;
  const states = ['connecting'];
  const until = (holds) =>
    new Promise((resolve) => {
      const look = () => {
        const { state } = inside.getElementById('state').dataset;
        if (states.at(-1) !== state) states.push(state);
        if (!holds()) return;
        observer.disconnect();
        resolve();
      };
      const observer = new frame.contentWindow.MutationObserver(look);
      observer.observe(inside, { attributes: true, childList: true, characterData: true, subtree: true });
      look();
    });
  const valueOf = (metric) => inside.querySelector(`[data-metric="${metric}"] .value`)?.textContent;

  await until(() => valueOf('streams') === '1');
  const metrics = [...inside.querySelectorAll('.metric')].map((card) => card.dataset.metric);
  let [changes, last] = [0, valueOf('uptime')];
  await until(() => {
    if (valueOf('uptime') !== last) changes += 1;
    last = valueOf('uptime');
    return changes >= 3;
  });
  const points = inside.querySelector('[data-metric="uptime"] polyline').getAttribute('points').split(' ').length;
  const streams = valueOf('streams');
  await ask('cut');
  await until(() => states.at(-1) === 'reconnecting');
  const uptimeBefore = valueOf('uptime');
  await ask('letBack');
  await until(() => states.at(-1) === 'open' && valueOf('uptime') !== uptimeBefore);
  return { metrics, changes, points, streams, uptimeBefore, uptimeAfter: valueOf('uptime'), states };
}
