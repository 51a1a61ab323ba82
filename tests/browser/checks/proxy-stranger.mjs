// Behind each proxy with a naive configuration, a stranger gets from a production server only public
// streams, health checks and downlink.js, whatever the stranger sends. Meanwhile the app uses the
// server through the same proxy, with its key. Its requests must not be mixed up with the stranger's.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { getsNothing } from '../lib/attack.mjs';
import { startProduction } from '../lib/binaries.mjs';
import { withNaiveProxies } from '../lib/naive.mjs';
import { ownerOf } from '../lib/owner.mjs';
import { forEach, freePort } from '../lib/proxies.mjs';
import { exchange, isStream, statusOf } from '../lib/raw.mjs';
import { ALLOWED, NAMES, OPEN_DATA, SECRET_DATA, written } from '../lib/stranger.mjs';

export const name = 'proxy-stranger';
export const engines = ['node'];
export const timeoutMs = 180_000;

/** The pause between two events of the app. Without it, the app would take most of the processor. */
const APP_PAUSE_MS = 5;

const PUBLIC = ['--public', 'news/*'];

export async function run({ folder }) {
  await withServer([], (server) => attack(server, { at: server, app: true }));
  const address = `127.0.0.1:${await freePort()}`;
  await withServer(['--admin-listen', address], async (server) => {
    const admin = { ...server, base: `http://${address}` };
    await attack(server, { at: admin });
    // Somebody puts the proxy in front of the wrong listener.
    await attack(admin, { at: admin, app: true });
  });
  const socketPath = join(folder, 'admin.sock');
  await withServer(['--admin-listen', `unix:${socketPath}`], (server) => attack(server, { at: { socketPath } }));
}

async function withServer(flags, use) {
  const server = await startProduction([...PUBLIC, ...flags]);
  try {
    await use(server);
  } finally {
    server.stop();
  }
}

/**
 * Attacks the listener `base` through each proxy. The owner uses the server at `at`. If the listener
 * takes keys, `app` is true, and the app publishes through the proxies during the attack.
 */
async function attack({ base, key }, { at, app = false }) {
  const owner = ownerOf(at, key);
  const events = [];
  const publishOne = async (address, data) => {
    await owner.publish(address, data);
    events.push(data);
  };
  const before = await owner.read({ topic: '*', client: NAMES.client });
  await publishOne({ topic: NAMES.open }, `${OPEN_DATA} ${events.length}`);
  for (const address of [{ topic: NAMES.secret }, { topic: NAMES.hidden }, { client: NAMES.client }]) {
    await publishOne(address, `${SECRET_DATA} ${Object.values(address)}`);
  }
  const { ticket } = await owner.ask('POST', `/tickets?topic=${NAMES.secret}&client=${NAMES.client}`);

  await withNaiveProxies(base, (proxies) =>
    forEach(proxies, async (proxy) => {
      const attacking = { over: false };
      const ending = strangerAt(proxy, base).finally(() => (attacking.over = true));
      await Promise.all([ending, app && keepPublishing(proxy, key, attacking, events)]);
    }),
  );

  // Nothing has been published, finished, disconnected or revoked.
  for (const topic of [NAMES.secret, NAMES.hidden, NAMES.open]) {
    await publishOne({ topic }, `${topic === NAMES.open ? OPEN_DATA : SECRET_DATA} at the end`);
  }
  await before.until(events.at(-1));
  before.stop();
  assert.deepEqual(before.seen.toSorted(), events.toSorted(), 'only the owner has published');
  const { topics } = await owner.ask('GET', '/topics');
  assert.deepEqual(topics.map(({ topic }) => topic), [NAMES.hidden, NAMES.open, NAMES.secret]);
  const stream = await exchange(base, written(`GET /events?ticket=${ticket}`, ['Host: localhost']));
  assert.equal(statusOf(stream), 200, `the ticket is still valid: ${stream}`);
}

/** Publishes through a proxy until the attack is over. Each answer must belong to its request. */
async function keepPublishing(proxy, key, attacking, events) {
  const app = ownerOf(proxy, key);
  for (let n = 1; !attacking.over; n += 1) {
    const data = `${SECRET_DATA} through ${proxy.name} ${n}`;
    const { id, subscribers } = await app.publish({ topic: NAMES.secret }, data);
    assert.ok(id && subscribers === 1, `the answer belongs to the publish: ${id} ${subscribers}`);
    events.push(data);
    await pause(APP_PAUSE_MS);
  }
}

async function strangerAt(proxy, backend) {
  for (const request of ALLOWED) {
    const answer = await exchange(proxy.base, written(request, ['Host: localhost']));
    assert.equal(statusOf(answer), 200, `${request}\n${answer}`);
    assert.equal(isStream(answer), request.includes('/events'), answer);
  }
  await getsNothing(proxy, backend);
}
