// A server that sends exactly the streams that a check gives it, and the tickets of an app. With it,
// a check decides when each stream opens, what it carries and how it ends.

import http from 'node:http';

/** The path at which the page asks its app for a ticket. */
export const TICKET_PATH = '/my/ticket';

/** Starts the server. A page reaches it through a front. */
export async function startScripted() {
  const scripted = new Scripted();
  const server = http.createServer((request, response) => scripted.answer(request, response));
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  scripted.base = `http://127.0.0.1:${server.address().port}`;
  scripted.stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return scripted;
}

/** An event as text. Without an id, it is an event of the server about the connection. */
export function event({ type, id, data }) {
  return `${type ? `event: ${type}\n` : ''}${id ? `id: ${id}\n` : ''}data: ${data}\n\n`;
}

/** The first event of a stream. `id` is the position at which the stream begins. */
export function opening(id) {
  return event({ type: 'downlink.open', id, data: '{"resumed":true,"connection":"1","keep_alive_ms":0}' });
}

export function expiring(ms) {
  return event({ type: 'downlink.expiring', data: `{"in_ms":${ms}}` });
}

class Scripted {
  /** The time of each request for a ticket, in ms. */
  tickets = [];
  /** The requests that ask for a reason, with `refuse_with_status=1`. */
  reasons = [];
  /** The number of streams that were requested. */
  streamCount = 0;
  #streams = [];
  #waiting = [];
  #refusals = [];
  #reasonsToGive = [];

  answer(request, response) {
    const url = new URL(request.url, 'http://scripted');
    if (url.pathname === TICKET_PATH) return this.#issue(response);
    if (url.searchParams.has('refuse_with_status')) {
      this.reasons.push(url.searchParams);
      return refuse(response, this.#reasonsToGive.shift() ?? { status: 503 });
    }
    this.streamCount += 1;
    const stream = new Stream(url.searchParams, response);
    const taker = this.#waiting.shift();
    return taker ? taker(stream) : void this.#streams.push(stream);
  }

  #issue(response) {
    this.tickets.push(performance.now());
    const refusal = this.#refusals.shift();
    if (refusal) return refuse(response, refusal);
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify({ url: `/events?ticket=${this.tickets.length}`, ticket: 'x', expires: 1 }));
  }

  /** The app answers the next request for a ticket with `{ status, code, detail }`. */
  refuseTicket(refusal) {
    this.#refusals.push(refusal);
  }

  /** The server answers the next request for a reason with `{ status, retryAfter, code, detail }`. */
  giveReason(refusal) {
    this.#reasonsToGive.push(refusal);
  }

  /** Resolves with the next requested stream. Its head is not sent yet. */
  next() {
    const stream = this.#streams.shift();
    return stream ? Promise.resolve(stream) : new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves with the next stream, after the bytes were sent. */
  async open(...texts) {
    const stream = await this.next();
    stream.send(...texts);
    return stream;
  }
}

function refuse(response, { status, retryAfter, ...problem }) {
  const wait = retryAfter === undefined ? {} : { 'retry-after': retryAfter };
  response.writeHead(status, { 'content-type': 'application/problem+json', ...wait });
  response.end(status === 204 ? undefined : JSON.stringify({ title: 'No', status, ...problem }));
}

/** A stream that a page has requested. */
class Stream {
  /** Resolves when the page has closed the connection. */
  closed;
  isClosed = false;
  #response;

  constructor(parameters, response) {
    this.parameters = parameters;
    this.#response = response;
    this.closed = new Promise((resolve) => {
      response.on('close', () => {
        this.isClosed = true;
        resolve();
      });
    });
  }

  get ticket() {
    return this.parameters.get('ticket');
  }

  get after() {
    return this.parameters.get('last_event_id');
  }

  send(...texts) {
    const response = this.#response;
    if (!response.headersSent) {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.flushHeaders();
    }
    response.write(texts.join(''));
  }

  end(...texts) {
    this.send(...texts);
    this.#response.end();
  }

  /** Refuses the request. The browser then closes its EventSource. */
  refuse(status) {
    refuse(this.#response, { status });
  }
}
