// The example `basic`. Times arrive with ids that increase by one, even after a reconnect.

import assert from 'node:assert/strict';
import { join } from 'node:path';

export const name = 'examples-basic';

const BEFORE = 2;
const AFTER = 2;

export async function run({ browser, startBinary, startFront }) {
  const basic = await startBinary(join(process.env.DOWNLINK_BIN_DIR, 'basic'), ['0']);
  try {
    const front = await startFront(basic.base);
    const answers = { cut: () => assert.equal(front.streams.cut(), 1, 'one stream is open') };
    const args = { before: BEFORE, after: AFTER };
    const { events, interruptions } = await browser.run({ base: front.base, page, args, answers });

    const ids = Array.from({ length: BEFORE + AFTER }, (_, n) => `evt-${n + 1}`);
    assert.deepEqual(events.map(({ id }) => id), ids);
    for (const { data } of events) {
      assert.match(data, /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/);
    }
    const times = events.map(({ data }) => data);
    assert.deepEqual(times, times.toSorted(), 'time goes forward');
    assert.equal(interruptions.length, 1, 'the page saw one interruption');
    const [first, second] = front.streams.requests;
    assert.equal(first.lastEventId, null);
    assert.equal(second.lastEventId, interruptions[0], 'the browser sends the last id');
  } finally {
    basic.stop();
  }
}

/** Uses the code from the example's README. The connection is cut once. */
async function page({ ask, args: { before, after } }) {
  const source = new EventSource('/events');
  const events = [];
  const interruptions = [];
  source.onerror = () => {
    interruptions.push(events.at(-1).id);
  };
  await new Promise((resolve, reject) => {
    source.addEventListener('time', ({ data, lastEventId }) => {
      events.push({ data, id: lastEventId });
      if (events.length === before) ask('cut').catch(reject);
      if (events.length === before + after) resolve();
    });
  });
  source.close();
  return { events, interruptions };
}
