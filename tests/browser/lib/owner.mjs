// The owner of a production server: the app with its key, or an operator at an admin listener. The
// owner publishes, and reads everything that anybody publishes.

import http from 'node:http';

import { bearer, query } from './api.mjs';
import { plainReader } from './plain.mjs';

/** Returns an owner who uses the server at `at`, `{ base }` or `{ socketPath }`, with `key`. */
export function ownerOf(at, key) {
  const target = at.socketPath ? { socketPath: at.socketPath, headers: { host: 'localhost' } } : {};
  const url = (path) => new URL(path, at.base ?? 'http://localhost');
  const send = (method, path, body, use) =>
    new Promise((resolve, reject) => {
      const headers = { ...target.headers, ...bearer(key) };
      const request = http.request(url(path), { ...target, method, headers, agent: false });
      request.on('error', reject).on('response', (response) => use(response, resolve, reject, request));
      request.end(body);
    });
  /** Sends a request. Returns the JSON of the answer. */
  const ask = async (method, path, body) => {
    const { status, text } = await send(method, path, body, (response, resolve, reject) => {
      let text = '';
      response.setEncoding('utf8').on('data', (more) => (text += more)).on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, text }));
    });
    if (status !== 200) throw new Error(`${method} ${path}: ${status} ${text}`);
    return JSON.parse(text);
  };
  return {
    ask,
    publish: (address, data) => ask('POST', `/events?${query(address)}`, data),
    read: (address) => send('GET', `/events?${query(address)}`, undefined, reading),
  };
}

/** Reads a stream. `seen` has the data of all events. `until(data)` resolves with this event. */
function reading(response, resolve, reject, request) {
  if (response.statusCode !== 200) return reject(new Error(`a subscription: ${response.statusCode}`));
  const reader = plainReader();
  const stream = { seen: [], ended: false, stop: () => request.destroy() };
  let watch = () => {};
  stream.until = (data) =>
    new Promise((found, lost) => {
      watch = () => {
        if (stream.seen.includes(data)) found();
        else if (stream.ended) lost(new Error(`the stream ended without ${data}`));
      };
      watch();
    });
  response.on('data', (bytes) => {
    const events = reader.read(bytes).filter(({ event }) => !event.startsWith('downlink.'));
    stream.seen.push(...events.map(({ data }) => data));
    watch();
  });
  response.on('error', () => {});
  response.on('close', () => {
    stream.ended = true;
    watch();
  });
  return resolve(stream);
}
