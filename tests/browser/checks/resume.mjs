// A page loses its connection before it has received an event. After it reconnects, it gets the
// events that were published while it was disconnected.

import assert from 'node:assert/strict';

export const name = 'resume';

export async function run({ browser, front, server }) {
  const { streams } = front;
  const answers = {
    carried: () => streams.carried('event: downlink.open'),
    async drop() {
      streams.hold();
      assert.equal(streams.cut(), 1, 'one stream is open');
      await server.publish({ topic: 'resume' }, 'published while nobody was connected');
      streams.release();
    },
  };
  const event = await browser.run({ base: front.base, page, answers });
  assert.equal(event.data, 'published while nobody was connected');
  assert.equal(event.errors, 1, 'the page saw one interruption');
  const [first, second] = streams.requests;
  assert.equal(first.lastEventId, null);
  assert.match(second.lastEventId ?? '', /^[0-9a-z]{8}-[0-9]+$/, 'the browser sends an id');
}

async function page({ ask }) {
  const source = new EventSource('/events?topic=resume');
  let errors = 0;
  const heard = new Promise((resolve) => {
    source.onmessage = (event) => resolve({ data: event.data, errors });
    source.onerror = () => {
      errors += 1;
    };
  });
  // When a connection breaks, a browser may discard unread bytes. The page has no listener for the
  // first event of the stream, so the check waits for a few round trips instead.
  for (let trips = 0; trips < 5; trips += 1) await ask('carried');
  await ask('drop');
  const event = await heard;
  source.close();
  return event;
}
