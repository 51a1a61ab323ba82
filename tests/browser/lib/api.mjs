// Functions for the parts of the server's HTTP API that the checks use. They run in Node, so their
// requests have no origin.

import { plainReader } from './plain.mjs';

/** Turns `{ topic: 'a', event: 'b' }` or `{ topic: ['a', 'b'] }` into a query. */
export function query(address) {
  const pairs = Object.entries(address).flatMap(([key, value]) => [value].flat().map((v) => [key, v]));
  return new URLSearchParams(pairs).toString();
}

/** The header with a key or a token. */
export function bearer(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** Publishes an event, with the key if there is one. Returns the answer, `{ id, subscribers }`. */
export async function publish(base, address, data, key) {
  const response = await fetch(`${base}/events?${query(address)}`, {
    method: 'POST',
    headers: { 'content-type': 'text/plain; charset=utf-8', ...bearer(key) },
    body: data,
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`publish to ${query(address)}: ${response.status} ${text}`);
  return JSON.parse(text);
}

/**
 * Subscribes. Resolves when the server has confirmed the subscription.
 *
 * Returns `{ next, stop }`. `next()` resolves with the next event that is not a control event of
 * the server.
 */
export async function subscribe(base, address) {
  const abort = new AbortController();
  const url = `${base}/events?${query(address)}`;
  const response = await fetch(url, { signal: abort.signal });
  if (!response.ok) throw new Error(`subscribe ${url}: ${response.status} ${await response.text()}`);
  const events = readEvents(response.body);
  const next = async (wanted) => {
    for (;;) {
      const { value, done } = await events.next();
      if (done) throw new Error(`the stream ended: ${url}`);
      if (wanted(value)) return value;
    }
  };
  await next((event) => event.event === 'downlink.open');
  return {
    next: () => next((event) => !event.event.startsWith('downlink.')),
    stop: () => abort.abort(),
  };
}

async function* readEvents(body) {
  const reader = plainReader();
  for await (const chunk of body) yield* reader.read(chunk);
}
