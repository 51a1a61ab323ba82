// The front is an HTTP proxy in front of a server. It also serves the pages of checks, and it can
// cut and delay streams. For the server, a page from the front has the server's own origin.

import http from 'node:http';

import { answerTestRequest, isTestRequest } from './pages.mjs';

/** Headers of a single connection. They are not forwarded. */
const HOP_BY_HOP = ['connection', 'keep-alive', 'transfer-encoding', 'upgrade', 'te', 'trailer'];

/**
 * Starts a front for the server at `target`. The answers to `GET /events` are its streams.
 *
 * `routes` maps prefixes of paths, such as `/nginx/`, to other servers. These servers get the rest
 * of the path. So a page can use several servers under its own origin.
 */
export async function startFront(target, routes = {}) {
  const state = new Streams();
  const own = await listen((request, response) => {
    if (isTestRequest(request)) return answerTestRequest(request, response);
    const route = Object.keys(routes).find((beginning) => request.url.startsWith(beginning));
    if (!route) return forward(state, target, own.base, request, response);
    request.url = request.url.slice(route.length - 1);
    return forward(state, routes[route], own.base, request, response);
  });
  const stranger = await listen((request, response) => answerTestRequest(request, response));
  return {
    base: own.base,
    /** The base of a foreign origin, which serves pages and forwards no requests. */
    strangerBase: stranger.base,
    streams: state,
    stop() {
      own.stop();
      stranger.stop();
    },
  };
}

async function listen(answer) {
  const server = http.createServer((request, response) => {
    Promise.resolve(answer(request, response)).catch((error) => response.destroy(error));
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { base: `http://127.0.0.1:${server.address().port}`, stop };
}

async function forward(state, target, own, request, response) {
  const isStream = request.method === 'GET' && new URL(request.url, own).pathname === '/events';
  if (isStream) await state.released;
  const { hostname, port, host } = new URL(target);
  const headers = withoutHopByHop(request.headers);
  headers.host = host;
  if (headers.origin === own) headers.origin = target;
  if (headers.referer) headers.referer = headers.referer.replace(own, target);
  const { method, url: path } = request;
  const upstream = http.request({ hostname, port, method, path, headers, agent: false });
  upstream.on('error', () => response.destroy());
  response.on('close', () => upstream.destroy());
  upstream.on('response', (answer) => {
    response.writeHead(answer.statusCode, answer.statusMessage, inAFrame(withoutHopByHop(answer.headers)));
    response.flushHeaders();
    answer.on('error', () => response.destroy());
    if (isStream) state.add(request, answer, response);
    else answer.pipe(response);
  });
  request.pipe(upstream);
}

function withoutHopByHop(headers) {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.includes(name)));
}

/** Allows the check's page to show the server's page in a frame. The policy forbids the rest. */
function inAFrame(headers) {
  const { 'x-frame-options': _, ...rest } = headers;
  const policy = rest['content-security-policy'];
  if (policy) {
    rest['content-security-policy'] = policy.replace(/frame-ancestors[^;]*/, "frame-ancestors 'self'");
  }
  return rest;
}

/** The event streams that pass through a front. */
class Streams {
  /** The requests of all streams so far in order, as `{ url, lastEventId }`. */
  requests = [];
  /** Resolves when new streams are not held. */
  released = Promise.resolve();
  #open = new Set();
  #watchers = new Set();
  #release = () => {};

  /** Holds new streams until `release()`. */
  hold() {
    this.released = new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  release() {
    this.#release();
  }

  /** Forwards a stream until it ends or is cut. */
  add(request, answer, response) {
    const stream = { response, carried: '', cutInside: false };
    this.requests.push({ url: request.url, lastEventId: request.headers['last-event-id'] ?? null });
    this.#open.add(stream);
    this.#watchers.forEach((watch) => watch());
    const close = () => {
      this.#open.delete(stream);
      answer.destroy();
    };
    response.on('close', close);
    answer.on('end', () => response.end());
    answer.on('data', (chunk) => {
      if (!this.#open.has(stream)) return;
      if (stream.cutInside) {
        const kept = Math.floor(Math.random() * chunk.length);
        this.#open.delete(stream);
        response.write(chunk.subarray(0, kept), () => response.socket?.destroy());
        return;
      }
      const flows = response.write(chunk, () => {
        stream.carried = (stream.carried + chunk.toString('latin1')).slice(-4096);
        this.#watchers.forEach((watch) => watch());
      });
      if (!flows) {
        answer.pause();
        response.once('drain', () => answer.resume());
      }
    });
  }

  /** Resolves when an open stream has carried a whole frame with `text` among its last bytes. */
  carried(text) {
    return this.#until(() =>
      [...this.#open].some(({ carried }) => {
        const at = carried.indexOf(text);
        return at >= 0 && carried.indexOf('\n\n', at) >= 0;
      }),
    );
  }

  /** Resolves when `count` streams have been requested. */
  opened(count) {
    return this.#until(() => this.requests.length >= count);
  }

  /** Resolves when `holds()` is true. Calls it whenever a stream opens or carries bytes. */
  #until(holds) {
    return new Promise((resolve) => {
      const watch = () => {
        if (!holds()) return;
        this.#watchers.delete(watch);
        resolve();
      };
      this.#watchers.add(watch);
      watch();
    });
  }

  /** Cuts the TCP connection of each open stream. Returns their number. */
  cut() {
    const cut = [...this.#open];
    for (const stream of cut) {
      this.#open.delete(stream);
      stream.response.socket?.destroy();
    }
    return cut.length;
  }

  /** Cuts each open stream at a random byte of its next chunk. Returns their number. */
  cutInside() {
    this.#open.forEach((stream) => {
      stream.cutInside = true;
    });
    return this.#open.size;
  }
}
