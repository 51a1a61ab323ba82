// Publishes events and issues tickets with a downlink server. Needs Node 18, and no package.

import { readFileSync } from 'node:fs';

const { DOWNLINK_URL = 'http://127.0.0.1:8080', DOWNLINK_KEY_FILE = 'downlink-publish.key' } = process.env;
const KEY = readFileSync(DOWNLINK_KEY_FILE, 'utf8').trim();
const TIMEOUT_MS = 5_000;

/** Publishes one event. Resolves when the event is on the disk of the server. */
export function publish(topic, event, data) {
  return post('/events', [['topic', topic], ['event', event]], JSON.stringify(data));
}

/** The URL with which the page of this user subscribes to these topics. */
export async function ticket(topics, client) {
  const parameters = [...topics.map((topic) => ['topic', topic]), ['client', client]];
  return (await post('/tickets', parameters)).url;
}

/** Ends the tickets and streams of a user. First end the session of the user. */
export async function revoke(client) {
  await post('/revoke', [['client', client]]);
}

async function post(path, parameters, body) {
  const answer = await fetch(`${DOWNLINK_URL}${path}?${new URLSearchParams(parameters)}`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${KEY}`, 'Content-Type': 'application/json' },
    body,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!answer.ok) throw new Error(`downlink answers ${answer.status}: ${await answer.text()}`);
  return answer.json();
}
