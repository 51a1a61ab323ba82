// Runs the snippets of deploy/snippets inside small apps, against the real server.
//
// `node run.mjs APP` runs one app. Two users log in to the app and get tickets. Each user
// gets only their own events, and a logout ends the tickets and the streams of the user. `node run.mjs guide`
// runs the commands of the guide.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { start, startBinary, stopAll } from '../browser/lib/binaries.mjs';
import { openStream } from '../browser/lib/streams.mjs';
import { checkGuide } from './guide.mjs';

/** The longest wait for the start of an app, and for anything that it or the server does. On a
 * loaded machine, the slowest app starts in a few seconds. */
const PATIENCE_MS = 60_000;
/** The pause between two attempts to connect to an app that starts. */
const ATTEMPT_EVERY_MS = 50;
/** The number of output characters of an app in the report of a failure. */
const OUTPUT_KEPT = 4_000;

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const python = process.env.DOWNLINK_PYTHON ?? 'python3';

/** The program and the arguments of each app. The app listens on the port in `PORT`. */
const APPS = {
  django: () => [python, here('python/django_app.py')],
  fastapi: () => [python, here('python/fastapi_app.py')],
  laravel: (port) => ['php', '-S', `127.0.0.1:${port}`, here('laravel/app.php')],
  node: () => [process.execPath, here('node/app.mjs')],
  rails: (port) => ['puma', '--quiet', '--bind', `tcp://127.0.0.1:${port}`, here('rails/config.ru')],
};

/** A port that is free at this moment. */
function freePort() {
  return new Promise((found, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
}

/** Whether a program listens on this port. */
function listens(port) {
  return new Promise((answer) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('error', () => answer(false));
    socket.once('connect', () => {
      socket.destroy();
      answer(true);
    });
  });
}

/** Starts an app, and waits until it accepts connections. */
async function startApp(name, folder, variables) {
  const port = await freePort();
  const [program, ...args] = APPS[name](port);
  const env = { ...process.env, ...variables, PORT: String(port) };
  const child = start(program, args, { cwd: folder, env });
  let output = '';
  const hear = (bytes) => {
    output = (output + bytes).slice(-OUTPUT_KEPT);
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  let ended = null;
  child.on('error', (error) => (ended = error.message));
  child.on('exit', (code, signal) => (ended ??= `it ended with ${code ?? signal}`));
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await listens(port))) {
    const why = ended ?? (Date.now() > deadline && `it does not listen on port ${port}`);
    if (why) throw new Error(`${name} does not start: ${why}\n${output}`);
    await new Promise((attempt) => setTimeout(attempt, ATTEMPT_EVERY_MS));
  }
  return { base: `http://127.0.0.1:${port}`, output: () => output };
}

/** A browser with cookies, for one user of the app. */
class Browser {
  #base;
  #cookies = new Map();

  constructor(base) {
    this.#base = base;
  }

  async get(path) {
    return this.#send(path, { method: 'GET' });
  }

  /** Posts a form, with the token against cross-site requests that the page of the app contains. */
  async post(path, fields = {}) {
    const page = await (await this.get('/')).text();
    const token = /name="csrf-token" content="([^"]+)"/.exec(page)?.[1];
    // Laravel and Rails use the first name, and Django uses the second one.
    const headers = token ? { 'X-CSRF-Token': token, 'X-CSRFToken': token } : {};
    return this.#send(path, { method: 'POST', body: new URLSearchParams(fields), headers });
  }

  async logIn(name) {
    const answer = await this.post('/login', { name, password: `password of ${name}` });
    assert.equal(answer.status, 200, `${name} logs in: ${await answer.text()}`);
  }

  /** The ticket URL that the app gives to the page. */
  async live() {
    const answer = await this.get('/live');
    const text = await answer.text();
    assert.equal(answer.status, 200, `the app gives a ticket to its user: ${text}`);
    assert.match(answer.headers.get('cache-control') ?? '', /no-store/, 'a ticket is not cached');
    return JSON.parse(text).url;
  }

  async #send(path, { headers = {}, ...request }) {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(this.#base + path, {
      ...request,
      headers: { Accept: 'application/json', ...headers, ...(cookie && { Cookie: cookie }) },
      redirect: 'manual',
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    for (const line of answer.headers.getSetCookie()) {
      const [pair] = line.split(';');
      const at = pair.indexOf('=');
      this.#cookies.set(pair.slice(0, at), pair.slice(at + 1));
    }
    return answer;
  }
}

/** The events of a stream with a ticket, as text. */
async function subscribe(server, url) {
  const stream = await openStream(server.base + url, PATIENCE_MS);
  assert.equal(stream.status, 200, 'the server accepts the ticket');
  await stream.carried('event: downlink.open\n', PATIENCE_MS);
  return stream;
}

/** The status and the code of a refusal. */
async function problem(answer) {
  // The text of a stream would not end.
  assert.notEqual(answer.status, 200, 'the server refuses the subscription');
  return [answer.status, JSON.parse(await answer.text()).code];
}

async function check(app, server) {
  const [ada, bob] = [new Browser(app.base), new Browser(app.base)];
  assert.equal((await ada.get('/live')).status, 401, 'a stranger gets no ticket from the app');
  await ada.logIn('ada');
  await bob.logIn('bob');
  const [adasUrl, bobsUrl] = [await ada.live(), await bob.live()];
  const adas = await subscribe(server, adasUrl);
  const bobs = await subscribe(server, bobsUrl);

  // Ada's ticket has the topics of user 1. Bob's ticket has other topics.
  const stolen = await fetch(`${server.base}${bobsUrl}&topic=users/1/orders`);
  assert.deepEqual(await problem(stolen), [403, 'topic_denied']);
  const other = await fetch(`${server.base}${bobsUrl}&client=1`);
  assert.deepEqual(await problem(other), [403, 'client_denied']);
  const stranger = await fetch(`${server.base}/events?topic=users/1/orders`);
  assert.deepEqual(await problem(stranger), [401, 'token_missing']);

  // Each user gets only their own event.
  for (const [browser, order] of [[ada, 7], [bob, 8]]) {
    const paid = await browser.post(`/orders/${order}/pay`);
    assert.equal(paid.status, 200, `the app publishes: ${await paid.text()}`);
  }
  await adas.carried('event: paid\n', PATIENCE_MS);
  await bobs.carried('event: paid\n', PATIENCE_MS);
  assert.match(adas.text, /^data: \{"order": ?7\}$/m);
  assert.match(bobs.text, /^data: \{"order": ?8\}$/m);
  assert.doesNotMatch(bobs.text, /"order": ?7/, "Bob does not get Ada's event");

  // The logout ends Ada's stream and her ticket, and not Bob's stream.
  assert.equal((await ada.post('/logout')).status, 200, 'the user logs out');
  await adas.end(PATIENCE_MS);
  assert.match(adas.text, /^event: downlink\.expired\n(?:.*\n)?data: \{"code":"revoked"\}$/m);
  // For the server, `fetch` is a browser. The status 204 stops an EventSource.
  assert.equal((await fetch(server.base + adasUrl)).status, 204);
  const refused = await fetch(`${server.base}${adasUrl}&refuse_with_status=1`);
  assert.deepEqual(await problem(refused), [401, 'revoked']);
  assert.equal((await ada.get('/live')).status, 401, 'the app gives no ticket after the logout');
  await bob.post('/orders/9/pay');
  await bobs.carried('9}', PATIENCE_MS);
  bobs.close();
}

/** Runs one app beside a new server. */
async function runApp(name, folder, binary) {
  const args = ['serve', '--listen', '127.0.0.1:0', '--store', join(folder, 'downlink.db')];
  const server = await startBinary(binary, args, /http:\/\/127\.0\.0\.1:[0-9]+/);
  const key = join(folder, 'downlink-publish.key');
  const app = await startApp(name, folder, { DOWNLINK_URL: server.base, DOWNLINK_KEY_FILE: key });
  try {
    await check(app, server);
  } catch (error) {
    const said = `the app said:\n${app.output()}\n--- the server said:\n${server.lastLines()}`;
    throw new Error(`${error.stack ?? error}\n--- ${said}`);
  }
}

async function main(name) {
  const names = [...Object.keys(APPS), 'guide'];
  if (!names.includes(name)) throw new Error(`name one of these: ${names.join(', ')}`);
  if (!process.env.DOWNLINK_BIN) throw new Error('DOWNLINK_BIN is not set to the path of the server');
  const binary = resolve(process.env.DOWNLINK_BIN);
  const folder = await mkdtemp(join(tmpdir(), 'downlink-snippets-'));
  const began = performance.now();
  try {
    await (name === 'guide' ? checkGuide(folder, binary) : runApp(name, folder, binary));
  } finally {
    stopAll();
    // A killed program may still be about to end.
    await rm(folder, { recursive: true, force: true, maxRetries: 10 });
  }
  console.log(`ok ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => process.exit(1));
}
process.on('exit', stopAll);

try {
  await main(process.argv[2]);
  process.exit(0);
} catch (error) {
  console.log(`FAIL ${process.argv[2]}: ${error.stack ?? error}`);
  process.exit(1);
}
