// A page of another origin can neither publish nor read. The server also refuses a foreign host
// name.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';

export const name = 'hostile_origin';

const TOPIC = 'victim';
const SECRET = 'only for pages of the server';

export async function run({ browser, front, server }) {
  await server.publish({ topic: TOPIC }, SECRET);
  const watcher = await server.subscribe({ topic: TOPIC });

  const { port } = new URL(front.strangerBase);
  for (const base of [front.strangerBase, `http://localhost:${port}`]) {
    const outcomes = await browser.run({ base, page: attack, args: { base: server.base, topic: TOPIC } });
    for (const [attempt, outcome] of Object.entries(outcomes)) {
      assert.ok(['failed', 'opaque'].includes(outcome), `${base}: ${attempt}: ${outcome}`);
    }
    assert.equal(Object.keys(outcomes).length, 12, 'the page made every attempt');
  }
  // The same code succeeds from the server's own origin, so the attempts above would work without
  // the origin check.
  const own = await browser.run({ base: front.base, page: publishFromOwnOrigin, args: { topic: TOPIC } });
  assert.equal(own, 200);
  assert.equal((await watcher.next()).data, 'from our own origin', 'the attempts published no event');
  watcher.stop();

  await refuseForeignHosts(server.base);
}

async function publishFromOwnOrigin({ args: { topic } }) {
  const response = await fetch(`/events?topic=${topic}`, { method: 'POST', body: 'from our own origin' });
  return response.status;
}

/** For each attempt, returns `failed`, `opaque`, or the readable part of the answer. */
async function attack({ args: { base, topic } }) {
  const events = `${base}/events?topic=${topic}`;
  const outcomes = {};
  const attempt = async (name, url, options) => {
    try {
      const response = await fetch(url, options);
      if (response.type === 'opaque') outcomes[name] = 'opaque';
      else outcomes[name] = `readable: ${response.status} ${response.headers.get('content-type')}`;
    } catch {
      outcomes[name] = 'failed';
    }
  };
  // A form needs no script and no permission. Its answer goes to a frame that the page cannot read.
  const frame = Object.assign(document.createElement('iframe'), { name: 'answer' });
  const form = document.createElement('form');
  Object.assign(form, { method: 'POST', action: events, enctype: 'text/plain', target: 'answer' });
  form.append(Object.assign(document.createElement('input'), { name: 'x', value: 'y' }));
  document.body.append(frame, form);
  form.submit();

  const json = { 'content-type': 'application/json' };
  await attempt('publish, simple', events, { method: 'POST', body: 'x' });
  await attempt('publish, no-cors', events, { method: 'POST', mode: 'no-cors', body: 'x' });
  await attempt('publish, with credentials', events, { method: 'POST', credentials: 'include', body: 'x' });
  await attempt('publish, preflighted', events, { method: 'POST', headers: json, body: '{}' });
  await attempt('publish, batch', `${base}/events/batch`, { method: 'POST', mode: 'no-cors', body: `{"topic":"${topic}","data":"x"}\n` });
  await attempt('finish', `${base}/finish?topic=${topic}`, { method: 'POST', mode: 'no-cors' });
  await attempt('read events', `${events}&start=earliest`, {});
  await attempt('read topics', `${base}/topics`, {});
  await attempt('read metrics', `${base}/metrics`, {});

  const listen = (name, options) =>
    new Promise((resolve) => {
      const source = new EventSource(`${events}&start=earliest`, options);
      const end = (outcome) => {
        outcomes[name] = outcome;
        source.close();
        resolve();
      };
      source.onopen = () => end('opened');
      source.onmessage = ({ data }) => end(`read: ${data}`);
      source.onerror = () => end('failed');
    });
  await listen('EventSource', {});
  await listen('EventSource with credentials', { withCredentials: true });

  // If the answer was a download, the frame still has a page of the attacker's origin.
  const answer = frame.contentDocument;
  outcomes['publish, form'] = answer === null ? 'opaque' : answer.URL === 'about:blank' ? 'failed' : 'readable';
  return outcomes;
}

/** In a DNS rebinding attack, a foreign name resolves to this machine. The server must refuse such
 * a name. */
async function refuseForeignHosts(base) {
  const { host, port } = new URL(base);
  const read = (name) => statusOf(base, 'GET', '/events?topic=victim&start=earliest', name);
  for (const name of ['attacker.example', `attacker.example:${port}`, `localhost.attacker.example:${port}`, `${host}.attacker.example`]) {
    for (const method of ['GET', 'POST']) {
      const status = await statusOf(base, method, '/events?topic=victim', name);
      assert.ok(status >= 400 && status < 500, `${method} with Host ${name}: ${status}`);
    }
  }
  assert.equal(await read(host), 200);
  assert.equal(await read(`localhost:${port}`), 200);
}

/** Gets the status of an answer over a raw socket. HTTP clients do not allow every `Host`. */
async function statusOf(base, method, path, name) {
  const { hostname, port } = new URL(base);
  const socket = connect(Number(port), hostname);
  const length = method === 'POST' ? 'Content-Length: 1\r\n\r\nx' : '\r\n';
  socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n${length}`);
  const [bytes] = await once(socket, 'data');
  socket.destroy();
  return Number(/^HTTP\/1\.1 ([0-9]{3})/.exec(bytes.toString('latin1'))?.[1]);
}
