// A page of another origin meets the limit of connections, first with a new stream and then with a
// stream that was cut. It comes back by itself until a place is free, and gets each event once. The
// server answers such a connection before the app sees the request, so the server itself must add
// the CORS headers. Without them, the `EventSource` would close for good.

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

import { publish } from '../lib/api.mjs';
import { READABLE, startProduction } from '../lib/binaries.mjs';
import { upTo } from '../lib/feeds.mjs';
import { openStream } from '../lib/streams.mjs';

export const name = 'connection_limit';
/** The page waits at least six times for a reconnection time of up to five seconds. */
export const timeoutMs = 120_000;

const TOPIC = 'news';
/** The longest wait for the only place of the server. */
const PLACE_MS = 10_000;
/** The pause between two attempts. The server notices the end of a connection within a moment. */
const ATTEMPT_PAUSE_MS = 20;

export async function run({ browser, front: pages, startFront }) {
  const limits = ['--connections-max', '1', '--admin-listen', '127.0.0.1:0'];
  const server = await startProduction([...READABLE, ...limits, '--cors-origin', pages.strangerBase]);
  try {
    const admin = await adminBase(server);
    const { base, streams } = await startFront(server.base);
    const place = new Place(server.base);
    let published = 0;
    const publishOne = () => publish(admin, { topic: TOPIC }, String((published += 1)), server.key);
    await place.take();
    const answers = {
      /** The page was refused twice. */
      async refused() {
        await publishOne();
        await publishOne();
        place.leave();
      },
      /** The page has got both events. */
      async cut() {
        streams.hold();
        assert.equal(streams.cut(), 1, 'one stream is open');
        await place.take();
        await publishOne();
        streams.release();
      },
      /** The page was refused twice again. */
      async refusedAgain() {
        await publishOne();
        place.leave();
      },
    };
    const url = `${base}/events?topic=${TOPIC}&start=earliest`;
    const { numbers, states } = await browser.run({ base: pages.strangerBase, args: { url }, answers, page });
    assert.ok(states.length >= 5, `the page was refused four times and cut once: ${states}`);
    assert.deepEqual(new Set(states), new Set([0]), 'the EventSource reconnects each time');
    assert.deepEqual(numbers, upTo(published), 'each event arrives once, in order');
    assert.equal(published, 4);
  } finally {
    server.stop();
  }
}

/** The address of the admin listener. It has its own connections, so it takes the publishes. */
async function adminBase(server) {
  for (;;) {
    const match = /for apps and operators: (http:\S+)/.exec(server.lastLines());
    if (match) return match[1];
    await pause(ATTEMPT_PAUSE_MS);
  }
}

/** The only connection that the server allows. */
class Place {
  #base;
  #stream = null;

  constructor(base) {
    this.#base = base;
  }

  /** Resolves when this program has the place. */
  async take() {
    while (this.#stream === null) {
      const stream = await openStream(`${this.#base}/events?topic=other&refuse_with_status=1`, PLACE_MS);
      if (stream.status === 200) this.#stream = stream;
      else {
        stream.close();
        await pause(ATTEMPT_PAUSE_MS);
      }
    }
  }

  leave() {
    this.#stream.close();
    this.#stream = null;
  }
}

/** The numbers of the events, and the state of the EventSource at each of its errors. */
async function page({ ask, args }) {
  const source = new EventSource(args.url);
  const numbers = [];
  const states = [];
  let happened = () => {};
  source.onmessage = ({ data }) => {
    numbers.push(Number(data));
    happened();
  };
  source.onerror = () => {
    states.push(source.readyState);
    happened();
  };
  const until = async (holds) => {
    while (!holds()) {
      if (source.readyState === 2) throw new Error(`closed after ${states} and the events ${numbers}`);
      await new Promise((resolve) => {
        happened = resolve;
      });
    }
  };
  await until(() => states.length >= 2);
  await ask('refused');
  await until(() => numbers.length >= 2);
  const before = states.length;
  await ask('cut');
  // The cut is an error too.
  await until(() => states.length >= before + 3);
  await ask('refusedAgain');
  await until(() => numbers.length >= 4);
  // An event that arrives twice would arrive before this answer.
  await new Promise((resolve) => setTimeout(resolve, 200));
  source.close();
  return { numbers, states };
}
