// downlink.js: the credentials end or are revoked, and the server ends the stream. The feed renews
// them and reconnects. The feed ends if the server refuses the renewed credentials, and if the app
// refuses to renew them. It sends no further request then.

import assert from 'node:assert/strict';

import { servedModule } from '../lib/feeds.mjs';
import { TICKET_PATH, event, opening, startScripted } from '../lib/scripted.mjs';

export const name = 'helper-expired';

const EXPIRED = event({ type: 'downlink.expired', data: '{}' });
const REVOKED = event({ type: 'downlink.expired', data: '{"code":"revoked"}' });
const refusal = { status: 401, code: 'revoked', detail: 'The ticket was revoked.' };

/** What happens to a feed, and the problem with which it ends. `requests` is the number of tickets,
 * streams and requests for a reason. */
const CASES = {
  /** The end without a notice, and then the revocation. The app still gives a ticket, but the server
   * takes none. */
  async revoked(scripted) {
    const first = await scripted.open(opening('a-0'), event({ id: 'a-1', data: 1 }));
    first.end('retry: 60000\n\n', EXPIRED);
    const second = await scripted.open(opening('a-1'), event({ id: 'a-2', data: 2 }));
    assert.deepEqual([second.ticket, second.after], ['2', 'a-1']);
    scripted.giveReason(refusal);
    second.end('retry: 60000\n\n', REVOKED);
    const third = await scripted.next();
    assert.equal(third.ticket, '3');
    // After a revocation, the server answers an EventSource with 204.
    third.refuse(204);
    return { problem: refusal, numbers: [1, 2], requests: [3, 3, 1] };
  },
  /** Credentials that the server refuses from the beginning. */
  async refused(scripted) {
    const unknown = { status: 401, code: 'key_unknown', detail: 'No key has this name.' };
    for (const ticket of ['1', '2']) {
      scripted.giveReason(unknown);
      const stream = await scripted.next();
      assert.equal(stream.ticket, ticket);
      stream.refuse(401);
    }
    return { problem: unknown, numbers: [], requests: [2, 2, 2] };
  },
  /** The user has logged out. The app gives no ticket. */
  async loggedOut(scripted) {
    const problem = { status: 403, code: 'session_over', detail: 'Log in again.' };
    const first = await scripted.open(opening('a-0'), event({ id: 'a-1', data: 1 }));
    scripted.refuseTicket(problem);
    first.end(EXPIRED);
    return { problem, numbers: [1], requests: [2, 1, 0] };
  },
};

export async function run({ browser, startFront }) {
  const module = await servedModule();
  for (const [what, play] of Object.entries(CASES)) {
    const scripted = await startScripted();
    try {
      const front = await startFront(scripted.base);
      const args = { module, ticketPath: TICKET_PATH };
      let expected;
      const answers = {
        async play() {
          expected = await play(scripted);
        },
      };
      const { problem, numbers, state } = await browser.run({ base: front.base, page, args, answers });
      const requests = [scripted.tickets.length, scripted.streamCount, scripted.reasons.length];
      assert.deepEqual({ problem, numbers, requests }, expected, what);
      assert.equal(state, 'closed');
    } finally {
      scripted.stop();
    }
  }
}

async function page({ ask, args }) {
  const { subscribe } = await import(args.module);
  const numbers = [];
  let feed;
  const ended = new Promise((resolve) => {
    feed = subscribe({}, {
      renew: () => fetch(args.ticketPath, { method: 'POST' }),
      onFailed: resolve,
    });
    feed.on('message', ({ data }) => numbers.push(Number(data)));
  });
  await ask('play');
  const problem = await ended;
  return { problem, numbers, state: feed.state };
}
