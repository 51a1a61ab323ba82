// While the server does not run or answers 503, each proxy gives an EventSource an empty stream
// with a reconnection time. All other requests get an error.

import assert from 'node:assert/strict';
import http from 'node:http';

import { THIS_MACHINE, forEach, withProxies } from '../lib/proxies.mjs';

export const name = 'proxy-outage';
export const engines = ['node'];

const REASON = '{"title":"Service Unavailable","detail":"The store is full."}';

export async function run() {
  const backend = await startBackend();
  // The proxies in `shipped` use the shipped file. The proxies in `opened` also allow publishing,
  // so that the check sees the errors of publishers.
  await withProxies({ backend: backend.base }, (shipped) =>
    withProxies({ backend: backend.base, publishing: THIS_MACHINE }, async (opened) => {
      backend.fail();
      await forEach([...shipped, ...opened], refusedByTheServer);
      await backend.stop();
      await forEach([...shipped, ...opened], noServer);
    }),
  ).finally(backend.stop);
}

async function refusedByTheServer(proxy) {
  await isToldToReconnect(proxy);
  const { status, text } = await get(proxy, '/downlink.js');
  assert.equal(status, 503);
  assert.equal(text, REASON, 'the proxy passes on the reason from the server');
  if (!proxy.publishing) return;
  const publish = await get(proxy, '/events?topic=a', { method: 'POST', body: 'x' });
  assert.equal(publish.status, 503);
  assert.equal(publish.text, REASON, 'the proxy passes on the reason from the server');
}

async function noServer(proxy) {
  await isToldToReconnect(proxy);
  assert.match(String((await get(proxy, '/downlink.js')).status), /^50[234]$/);
  if (!proxy.publishing) return;
  const publish = await get(proxy, '/events?topic=a', { method: 'POST', body: 'x' });
  assert.match(String(publish.status), /^50[234]$/);
  assert.doesNotMatch(publish.text, /retry:/);
}

async function isToldToReconnect(proxy) {
  const { status, headers, text } = await get(proxy, '/events?topic=a');
  assert.equal(status, 200);
  assert.match(headers.get('content-type'), /^text\/event-stream\b/);
  assert.equal(headers.get('cache-control'), 'no-store');
  assert.equal(text, 'retry: 2000\n\n');
}

async function get({ base }, path, options) {
  const response = await fetch(base + path, options);
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** A server that first answers every request. After `fail()`, it refuses every request except
 * health checks. `stop()` ends it. */
async function startBackend() {
  let failing = false;
  const server = http.createServer((request, response) => {
    request.resume();
    // If a health check fails, HAProxy treats the server as if it did not run.
    if (!failing || request.url === '/readyz') return response.end('ok');
    return response.writeHead(503, { 'content-type': 'application/problem+json' }).end(REASON);
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  const ended = new Promise((resolve) => server.on('close', resolve));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    fail: () => (failing = true),
    stop() {
      server.close();
      server.closeAllConnections();
      return ended;
    },
  };
}
