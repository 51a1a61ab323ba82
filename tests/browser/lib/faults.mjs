// A proxy between a front and its server. On request, it fails as proxies do: it answers with its
// own errors, and makes streams silent without closing them. It can also forward to another server.

import http from 'node:http';

/** Starts a proxy in front of the server at `target`. It forwards `Host` and the rest unchanged. */
export async function startFaults(target) {
  const faults = new Faults(target);
  const server = http.createServer((request, response) => faults.pass(request, response));
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  faults.base = `http://127.0.0.1:${server.address().port}`;
  faults.stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return faults;
}

/** The proxy. A request `GET /events` is a stream. Only streams can fail. */
class Faults {
  /** The requests of all streams in order. Each is
   * `{ at, url, lastEventId, fetchMode, accept, status, closed }`, with `at` in ms. */
  requests = [];
  #target;
  #answers = [];
  #streams = new Set();
  #watchers = new Set();

  constructor(target) {
    this.#target = target;
  }

  /** Forwards later requests to another server. */
  retarget(target) {
    this.#target = target;
  }

  /** Answers the next `times` streams with `{ status, headers, body }`. */
  answer(times, answer) {
    for (let n = 0; n < times; n += 1) this.#answers.push(answer);
  }

  /** The number of answers from `answer()` that the proxy has not given yet. */
  get unanswered() {
    return this.#answers.length;
  }

  /** Makes every open stream silent without closing it. Returns their number. */
  freeze() {
    for (const { answer, stream } of this.#streams) {
      stream.frozen = true;
      answer.pause();
      answer.removeAllListeners('end');
    }
    return this.#streams.size;
  }

  /** Cuts the TCP connection of each open stream. Returns their number. */
  cut() {
    const cut = [...this.#streams];
    cut.forEach(({ response }) => response.socket?.destroy());
    return cut.length;
  }

  /** Resolves when `holds(requests)` is true. Calls it whenever a stream is requested, answered or
   * closed. */
  until(holds) {
    return new Promise((resolve) => {
      const watch = () => {
        if (!holds(this.requests)) return;
        this.#watchers.delete(watch);
        resolve();
      };
      this.#watchers.add(watch);
      watch();
    });
  }

  pass(request, response) {
    const isStream = request.method === 'GET' && request.url.split('?')[0] === '/events';
    const stream = {
      at: performance.now(),
      url: request.url,
      lastEventId: request.headers['last-event-id'] ?? null,
      fetchMode: request.headers['sec-fetch-mode'] ?? null,
      accept: request.headers.accept,
      status: null,
      closed: false,
    };
    if (!isStream) return this.#forward(request, response, () => {});
    this.requests.push(stream);
    response.on('close', () => this.#changed(stream, { closed: true }));
    const own = this.#answers.shift();
    if (own) {
      response.writeHead(own.status, own.headers).end(own.body);
      return this.#changed(stream, { status: own.status });
    }
    this.#changed(stream, {});
    return this.#forward(request, response, (answer) => {
      const entry = { answer, response, stream };
      this.#streams.add(entry);
      response.on('close', () => this.#streams.delete(entry));
      this.#changed(stream, { status: answer.statusCode });
    });
  }

  #changed(stream, change) {
    Object.assign(stream, change);
    this.#watchers.forEach((watch) => watch());
  }

  #forward(request, response, answered) {
    const { hostname, port } = new URL(this.#target);
    const { method, url: path, headers } = request;
    const upstream = http.request({ hostname, port, method, path, headers, agent: false });
    upstream.on('error', () => response.destroy());
    response.on('close', () => upstream.destroy());
    upstream.on('response', (answer) => {
      response.writeHead(answer.statusCode, answer.statusMessage, answer.headers);
      response.flushHeaders();
      answer.on('error', () => response.destroy());
      answer.on('data', (chunk) => response.write(chunk));
      answer.on('end', () => response.end());
      answered(answer);
    });
    request.pipe(upstream);
  }
}
