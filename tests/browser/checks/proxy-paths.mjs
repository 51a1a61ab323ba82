// Through each proxy, only GET and HEAD requests for four paths reach the server, however a path is
// spelled. With the commented parts of the file, only the private network may publish.

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';

import { THIS_MACHINE, forEach, withProxies } from '../lib/proxies.mjs';

export const name = 'proxy-paths';
export const engines = ['node'];

const OPEN = ['/events', '/downlink.js', '/healthz', '/readyz'];

const PASSED = ['GET', 'HEAD'].flatMap((method) => OPEN.map((path) => `${method} ${path}`));

/** Requests that a proxy refuses with 403 or 404. `HOST` stands for the address of the proxy. */
const REFUSED = [
  'POST /events',
  'POST /events?topic=a',
  'POST /events/batch',
  'POST /finish?topic=a',
  'DELETE /clients?client=c',
  'GET /metrics',
  'GET /topics',
  'GET /clients',
  'GET /',
  'GET /reconnect',
  'GET /publish',
  'POST /publish',
  'GET /events/',
  'GET /events/batch',
  'GET /eventsx',
  'PUT /events',
  'PATCH /events',
  'DELETE /events',
  'OPTIONS /events',
  'POST /downlink.js',
  'POST /healthz',
  'POST /readyz',
  'GET //metrics',
  'GET /./metrics',
  'GET /%6detrics',
  'GET /%2fmetrics',
  'GET /events/../metrics',
  'GET /events/%2e%2e/metrics',
  'GET /healthz/../topics',
  'POST /healthz/../finish?topic=a',
  'POST //events',
  'POST /%65vents',
  'POST /./events',
  'GET http://HOST/metrics',
  'POST http://HOST/events',
];

/**
 * Proxies answer these requests differently. If a request means one of the four paths, a proxy may
 * pass it on unchanged. Then the server answers with 404.
 */
const AMBIGUOUS = [
  'GET //events',
  'GET /%65vents',
  'GET /EVENTS',
  'GET /Metrics',
  'GET /metrics/../events',
  'GET /events/../healthz',
  'GET http://elsewhere/metrics',
  'GET /events/..%2fmetrics',
  'GET /events%2f..%2fmetrics',
  'GET /events%2fbatch',
  'GET /events;/../metrics',
  'GET /events%3f/../metrics',
  'GET /events%00/../metrics',
  'GET /events\\..\\metrics',
  'GET \\metrics',
  'GET metrics',
  'GET /events#/../metrics',
  'GET /events/..;/metrics',
  'GET /events%5c..%5cmetrics',
  'GET %2fmetrics',
  'TRACE /events',
  'TRACE /metrics',
  'CONNECT 127.0.0.1:80',
  'OPTIONS *',
  'post /events',
  'FOO /events',
];

/** A network that is reserved for examples. It does not contain this machine. */
const ANOTHER_NETWORK = '192.0.2.0/24';

export async function run() {
  const backend = await startRecorder();
  const behind = (publishing, check) =>
    withProxies({ backend: backend.base, publishing }, (proxies) => forEach(proxies, (proxy) => check(proxy, backend)));
  try {
    await Promise.all([behind(undefined, closed), behind(ANOTHER_NETWORK, closed), behind(THIS_MACHINE, opened)]);
  } finally {
    backend.stop();
  }
}

/** Checks a proxy that must not let this machine publish. It uses the shipped file, or it allows
 * only another network to publish. */
async function closed(proxy, backend) {
  for (const request of PASSED) {
    const { status, reached } = await ask(proxy, backend, request);
    assert.equal(status, 200, request);
    assert.deepEqual(reached, [request]);
  }
  for (const request of REFUSED) {
    const { status, reached } = await ask(proxy, backend, request);
    assert.deepEqual(reached, [], request);
    assert.ok([403, 404].includes(status), `${request}: ${status}`);
  }
  for (const request of AMBIGUOUS) {
    const { reached } = await ask(proxy, backend, request);
    assert.deepEqual(reached.filter((line) => !PASSED.includes(meaning(line))), [], request);
  }
}

/** A request with the normal form of its path. */
function meaning(line) {
  const [method, target] = line.split(' ');
  const path = decodeURIComponent(target).replace(/[/\\]+/g, '/').toLowerCase();
  return `${method} ${new URL(path, 'http://server').pathname}`;
}

/** Checks a proxy that lets the network of this machine publish. */
async function opened(proxy, backend) {
  for (const request of ['POST /events?topic=a', 'POST /events/batch', 'GET /events']) {
    const { status, reached } = await ask(proxy, backend, request);
    assert.equal(status, 200, request);
    assert.deepEqual(reached, [request]);
  }
  for (const request of ['POST /finish?topic=a', 'DELETE /clients?client=c', 'GET /metrics', 'GET /', 'POST /healthz']) {
    const { status, reached } = await ask(proxy, backend, request);
    assert.deepEqual(reached, [], request);
    assert.ok([403, 404].includes(status), `${request}: ${status}`);
  }
}

/** Sends a request exactly as written. Returns the status and the requests that have reached the
 * backend. */
async function ask(proxy, backend, request) {
  const mark = String(Math.random()).slice(2);
  const { host } = new URL(proxy.base);
  const lines = [`${request.replace('HOST', host)} HTTP/1.1`, `Host: ${host}`, `X-Mark: ${mark}`, 'Content-Length: 0', 'Connection: close'];
  const answer = await exchange(proxy.base, `${lines.join('\r\n')}\r\n\r\n`);
  const status = /^HTTP\/1\.[01] ([0-9]{3}) /.exec(answer);
  const reached = backend.reached(mark);
  // The server compares the origin of a page with the whole `Host`, which includes the port.
  reached.forEach((request) => assert.equal(request.host, host, 'the proxy passes on Host with its port'));
  return { status: status && Number(status[1]), reached: reached.map(({ line }) => line) };
}

function exchange(base, text) {
  const { hostname, port } = new URL(base);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = net.connect({ host: hostname, port }, () => socket.write(text));
    socket.on('data', (bytes) => (answer += bytes));
    socket.on('close', () => resolve(answer));
    socket.on('error', (error) => (error.code === 'ECONNRESET' ? resolve(answer) : reject(error)));
  });
}

/** A server that answers every request with 200 and records the requests. */
async function startRecorder() {
  const requests = [];
  const server = http.createServer((request, response) => {
    const { method, url, headers } = request;
    if (headers['x-mark']) requests.push({ mark: headers['x-mark'], host: headers.host, line: `${method} ${url}` });
    request.resume();
    response.writeHead(200, { 'content-type': 'text/plain' }).end('reached');
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    reached: (mark) => requests.filter((request) => request.mark === mark),
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}
