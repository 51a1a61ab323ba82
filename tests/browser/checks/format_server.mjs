// Every client reads the published events unchanged, and with the ids that the publisher received.

import assert from 'node:assert/strict';

import { query } from '../lib/api.mjs';
import { readBy } from '../lib/deviations.mjs';
import { clientsOf } from '../lib/readers.mjs';

export const name = 'format_server';
export const engines = ['chromium', 'firefox', 'node', 'python', 'curl'];

const TOPIC = 'format';
const ID = /^[0-9a-z]{8}-[0-9]+$/;

/** The published data. `read` is the data that clients read if every line break becomes LF. */
const EVENTS = [
  { data: 'plain' },
  { data: '' },
  { data: 'a\nb' },
  { data: 'a\r\nb\rc\nd', read: 'a\nb\nc\nd' },
  { data: '\n' },
  { data: 'ends in a line break\n' },
  { data: 'ends in two\r\n\r\n', read: 'ends in two\n\n' },
  { data: '\n\r\r\n', read: '\n\n\n' },
  { data: ' one space' },
  { data: '   three spaces\n  two' },
  { data: '\ttab' },
  { data: ': not a comment' },
  { data: 'data: not a field\nid: 7\nevent: x\nretry: 1' },
  { data: 'grüße 👋 漢字 e\u0301 \u{10ffff}' },
  { data: 'separators \u2028 \u2029 \u0085 \v \f \x1c end' },
  { data: 'nul \0 inside' },
  { data: '\ufeffbyte order mark' },
  { data: JSON.stringify({ text: 'line\nbreak', list: [1, 2.5, null, 'ü'] }) },
  { data: 'x'.repeat(70 * 1024) },
  { data: '<img src=x onerror=alert(1)>' },
  { data: 'typed', event: 'order.created' },
  { data: 'typed in unicode', event: 'größe' },
  { data: 'untyped again' },
  { data: 'with a reconnection time', retry: 1234 },
  { data: 'the last one' },
];

const EXPECTED = EVENTS.map(({ data, read, event }) => ({ event: event ?? 'message', data: read ?? data }));

function offset(id) {
  return BigInt(id.split('-')[1]);
}

export async function run(tools) {
  const { server, front } = tools;
  const ids = [];
  for (const { data, event, retry } of EVENTS) {
    const address = { topic: TOPIC, ...(event && { event }), ...(retry && { retry }) };
    ids.push((await server.publish(address, data)).id);
  }
  ids.forEach((id) => assert.match(id, ID));
  ids.slice(1).forEach((id, n) => assert.ok(offset(id) > offset(ids[n]), `${id} after ${ids[n]}`));

  const url = `${front.base}/events?${query({ topic: TOPIC, start: 'earliest' })}`;
  const types = EXPECTED.map(({ event }) => event);
  for (const [client, read] of Object.entries(clientsOf(tools))) {
    const [events] = await read([{ url, types, count: EVENTS.length }]);
    const values = events.map(({ event, data }) => ({ event: event || 'message', data }));
    const expected = EXPECTED.map(({ event, data }) => ({ event, data: readBy(client, data) }));
    assert.deepEqual(values, expected, client);
    assert.deepEqual(events.map(({ id }) => id), ids, `${client}: ids`);
  }
}
