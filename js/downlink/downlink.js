// A feed of events from a downlink server, over the browser's own EventSource.
//
// EventSource resumes by itself after a cut. This file handles the rest: a silently dead connection,
// an answer after which it never comes back, a server that ends every stream at once, a reloaded
// page, credentials that expire. Listeners get each event at least once while the server keeps it,
// in order. A repeat is dropped only if its id was given before. `onGap` reports lost events.

/** Silence, in announced keep-alives, after which a connection is dead: one may be lost, not two. */
const SILENT_INTERVALS_MAX = 2.5;
/** The same when the page wakes. Keep-alives are spread by a fifth, so less would hit the living. */
const SILENT_INTERVALS_ON_WAKE = 1.5;
/** For how many doublings a connection that keeps being silent is left alone longer. */
const SILENT_DOUBLINGS_MAX = 4;
/** Until a connection has opened, also the browser's own reconnection: most `retry:` are shorter. */
const CONNECTING_MS_MAX = 60_000;
/** The shortest wait after a connection that brought nothing or ended within a second: a server
 * that closes at once, with `retry: 0`, gets no more than a request a second from each page. */
const RECONNECTION_MS_MIN = 1_000;
/** A connection that ends sooner is short. After a longer one the browser reconnects by itself. */
const SHORT_MS = 1_000;
/** The range of the first extra wait, which is random. It doubles with every failure in a row. */
const BACKOFF_STEP_MS = 1_000;
/** The largest range: a page is back soon after a long failure, and a server survives it. */
const BACKOFF_MS_MAX = 30_000;
/** The longest wait that a server may ask for with `Retry-After` or `retry:`: a server in
 * maintenance may mean an hour, and a mistyped number must not stop a page for days. */
const WAIT_MS_MAX = 3_600_000;
/** The longest delay that a timer takes. */
const TIMER_MS_MAX = 2 ** 31 - 1;
/** Ids remembered to tell repeats; as many as the server replays after an id it does not know. */
const SEEN_MAX = 1_000;
/** The part of a line that is looked at for a field; ids and event types are shorter. */
const LINE_CHARACTERS_MAX = 1_024;
/** Refusals that may pass: timeout, too early, too many requests. */
const PASSING = [408, 425, 429];
/** The form of the server's own ids. Ids that publishers give never have it. */
const OWN_ID = /^[0-9a-z]{8}-[0-9]+$/;

/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */
/** @typedef {{ reason: string, after: string | null, until: string | null, oldest: string | null, waitMs: number }} Gap */
/** @typedef {string | URL | URLSearchParams | Record<string, string>} Renewal a URL, or parameters to set */
/** @typedef {(event: MessageEvent<string>) => unknown} Listener */
/**
 * @typedef {object} Address
 * @property {string | URL} [url] by default `events` beside this file, also below a prefix
 * @property {string[]} [topics] topics and patterns
 * @property {string} [client] also what is for this client
 * @property {string} [start] where to begin without an id: `live`, `earliest`, `last:50`, `after:<id>` …
 */
/**
 * @typedef {object} Options
 * @property {string} [storage] a key of sessionStorage: a reloaded page goes on where it was
 * @property {boolean} [withCredentials] sends cookies to another origin
 * @property {boolean} [alive] `false` if the server sends no `downlink.alive`: no watchdog then
 * @property {() => Renewal | Promise<Renewal>} [renew] called before each connection made here
 * @property {(gap: Gap) => unknown} [onGap] events are missing: fetch anew after about `waitMs`
 * @property {(state: State) => unknown} [onState] the state has changed
 * @property {() => unknown} [onFinished] the topics are finished and read to the end; closed
 * @property {(problem: { status: number, detail: string }) => unknown} [onFailed] refused for good; closed
 */

/**
 * Subscribes. Throws a `TypeError` if the address is no URL.
 * @param {string | URL | Address} address
 * @param {Options} [options]
 */
export function subscribe(address, options = {}) {
  return new Feed(address, options);
}

/** Made by `subscribe`. */
export class Feed {
  #url;
  #options;
  /** @type {State} */
  #state = "connecting";
  #lastEventId;
  /** @type {Map<string, Set<Listener>>} */
  #listeners = new Map();
  /** Aborted when another attempt begins: whatever belongs to the old one then has no effect. */
  #attempt = new AbortController();
  /** @type {EventSource | undefined} */
  #source;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** Failures in a row: connections that brought nothing, refusals, and silent connections. */
  #failures = 0;
  /** The wait that the server asked for in this row of failures. */
  #askedMs = 0;
  /** Whether the feed has asked in this row of failures why a stream brought nothing. */
  #askedWhy = false;
  /** When the present connection opened, on the steady clock, and whether it gave an event. */
  #openedAt = Infinity;
  #delivered = false;
  /** The browser has lost the connection and makes a new one itself. */
  #interrupted = false;
  #keepAliveMs = Infinity;
  /** Two clocks: one may stand still while the machine sleeps, the other may be set back. */
  #heard = { steady: 0, wall: 0 };
  /** @type {Set<string>} ids given to listeners, the newest last */
  #seen = new Set();
  /** @type {Set<string>} of these, what a replay may repeat */
  #repeats = new Set();

  /** @param {string | URL | Address} address @param {Options} options */
  constructor(address, options) {
    this.#url = urlOf(address);
    this.#options = options;
    this.#lastEventId = this.#storage((store, key) => store.getItem(key)) ?? "";
    this.#onControl("downlink.open", ({ keep_alive_ms }) => {
      this.#keepAliveMs = options.alive !== false && keep_alive_ms > 0 ? keep_alive_ms : Infinity;
      this.#watch();
    });
    this.#onControl("downlink.alive", () => {});
    this.#onControl("downlink.gap", ({ wait_ms: waitMs, ...gap }) => {
      if (["unknown_id", "new_epoch"].includes(gap.reason)) this.#repeats = new Set(this.#seen);
      this.#call(options.onGap, { ...gap, waitMs });
    });
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    for (const type of ["online", "pageshow"]) globalThis.addEventListener(type, this.#wake);
    this.#connect();
  }

  get state() {
    return this.#state;
  }

  /** The id of the last event that was given to listeners, or where the server began. */
  get lastEventId() {
    return this.#lastEventId;
  }

  /**
   * Listens to an event type, `message` for events without one; returns what takes it back.
   * @param {string} type @param {Listener} listener
   */
  on(type, listener) {
    if (["open", "error"].includes(type)) throw new TypeError(`no event can have the type ${type}`);
    const known = this.#listeners.get(type);
    const listeners = known ?? new Set();
    if (!known) {
      this.#listeners.set(type, listeners);
      if (this.#source) this.#attach(this.#source, type, this.#attempt.signal);
    }
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  /** Ends the feed; nothing is called afterwards. */
  close() {
    this.#begin();
    this.#attempt.abort();
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    for (const type of ["online", "pageshow"]) globalThis.removeEventListener(type, this.#wake);
    this.#enter("closed");
  }

  /** Ends what there is, and makes room for another attempt. */
  #begin() {
    this.#attempt.abort();
    this.#attempt = new AbortController();
    this.#source = undefined;
    this.#interrupted = false;
    clearTimeout(this.#timer);
    return this.#attempt.signal;
  }

  async #connect() {
    const signal = this.#begin();
    this.#touch();
    this.#enter("connecting");
    this.#watch();
    if (signal.aborted) return;
    try {
      const renewal = await this.#options.renew?.();
      if (!signal.aborted) this.#open(renewed(this.#url, renewal), signal);
    } catch (error) {
      reportError(error);
      if (!signal.aborted) this.#pause();
    }
  }

  /** @param {URL} address @param {AbortSignal} signal */
  #open(address, signal) {
    const { alive = true, withCredentials = false } = this.#options;
    const url = resumed(address, this.#lastEventId);
    if (alive) url.searchParams.set("alive", "1");
    const source = new EventSource(url, { withCredentials });
    this.#source = source;
    let accepted = false;
    signal.addEventListener("abort", () => source.close());
    for (const type of this.#listeners.keys()) this.#attach(source, type, signal);
    this.#openedAt = Infinity;
    source.onopen = () => {
      accepted = true;
      this.#interrupted = false;
      this.#openedAt = performance.now();
      this.#delivered = false;
      this.#touch();
      this.#enter("open");
    };
    source.onerror = () => {
      if (!signal.aborted) this.#lost(source, () => this.#askWhy(url, accepted, signal), signal);
    };
  }

  /**
   * A connection has ended, or an attempt has failed. After a short one the feed reconnects, since
   * the browser would come back after the same time for ever, be it zero.
   * @param {EventSource} source @param {() => void} askWhy @param {AbortSignal} signal
   */
  #lost(source, askWhy, signal) {
    this.#touch();
    const opened = this.#openedAt < Infinity;
    const lasted = opened && performance.now() - this.#openedAt >= SHORT_MS;
    const delivered = opened && this.#delivered;
    this.#openedAt = Infinity;
    if (lasted || delivered) this.#succeed();
    const refused = source.readyState === EventSource.CLOSED;
    this.#interrupted = lasted && !refused;
    if (this.#interrupted) return this.#enter("connecting");
    source.close();
    // A stream that brought nothing may have carried a reconnection time, or only events without a
    // listener. The feed asks for it with fetch, once in a row of failures.
    const unclear = opened && !delivered && !this.#askedWhy;
    if (!refused && !unclear) return this.#pause();
    this.#askedWhy = true;
    this.#enter("connecting");
    if (!signal.aborted) askWhy();
  }

  /** A connection lasted or brought an event: a later failure is the first of its row. */
  #succeed() {
    this.#failures = 0;
    this.#askedMs = 0;
    this.#askedWhy = false;
  }

  /** @param {EventSource} source @param {string} type @param {AbortSignal} signal */
  #attach(source, type, signal) {
    source.addEventListener(type, (event) => {
      if (!signal.aborted) this.#hear(event, signal);
    });
  }

  /** @param {MessageEvent<string>} event @param {AbortSignal} signal */
  #hear(event, signal) {
    this.#touch();
    const { type, lastEventId: id } = event;
    const control = type.startsWith("downlink.");
    // A server may close after each opening and each notice of a gap: neither ends a row of failures.
    if (!control || type === "downlink.alive") this.#succeed();
    if (!control) this.#delivered = true;
    // Each id once: an event without an id of its own shows the one before it.
    const repeated = !control && this.#repeats.delete(id);
    for (const listener of repeated ? [] : [...(this.#listeners.get(type) ?? [])]) {
      if (!signal.aborted) this.#call(listener, event);
    }
    if (!control && OWN_ID.test(id)) {
      this.#seen.delete(id);
      this.#seen.add(id);
      const [oldest] = this.#seen;
      if (this.#seen.size > SEEN_MAX) this.#seen.delete(oldest);
    }
    if (id === this.#lastEventId) return;
    this.#lastEventId = id;
    this.#storage((store, key) => store.setItem(key, id));
  }

  /**
   * The browser has given up, and does not tell a page why: the same request once more does.
   * @param {URL} url @param {boolean} accepted whether it was before @param {AbortSignal} signal
   */
  async #askWhy(url, accepted, signal) {
    const { renew, withCredentials } = this.#options;
    const ask = (/** @type {string} */ id) => request(resumed(url, id), withCredentials, signal);
    const answer = await ask(this.#lastEventId);
    const status = answer?.status ?? 0;
    if (signal.aborted) return;
    if (status === 204) return this.#end(this.#options.onFinished, undefined);
    const expired = renew && accepted && [401, 403].includes(status);
    if (answer && status >= 400 && status < 500 && !PASSING.includes(status) && !expired) {
      const detail = await detailOf(answer);
      if (!signal.aborted) this.#end(this.#options.onFailed, { status, detail });
      return;
    }
    this.#pause(Number(answer?.headers.get("retry-after")) * 1000);
    if (!answer || status !== 200) return void answer?.body?.cancel();
    // A finished topic may end with events that have no listener. The feed does not know their ids,
    // and the server answers 204 only to a request that has the last of them.
    const tail = await unheardTail(answer, (type) => this.#listeners.has(type));
    if (!tail || signal.aborted) return;
    if (tail.retryMs > RECONNECTION_MS_MIN) this.#wait(tail.retryMs, BACKOFF_STEP_MS);
    if (!tail.id) return;
    const end = await ask(tail.id);
    if (end?.status === 204 && !signal.aborted) this.#end(this.#options.onFinished, undefined);
  }

  /** Makes a new connection after one more failure. @param {number} [askedMs] by the server */
  #pause(askedMs = 0) {
    const rangeMs = Math.min(BACKOFF_MS_MAX, BACKOFF_STEP_MS * 2 ** this.#failures);
    this.#failures += 1;
    this.#wait(askedMs || this.#askedMs, rangeMs);
    this.#enter("waiting");
  }

  /**
   * Waits as long as the server asked, plus a random part of a range (full jitter), so that pages
   * do not come back together. @param {number} askedMs @param {number} rangeMs
   */
  #wait(askedMs, rangeMs) {
    this.#askedMs = Math.min(askedMs > 0 ? askedMs : 0, WAIT_MS_MAX);
    const ms = Math.max(RECONNECTION_MS_MIN, this.#askedMs) + rangeMs * Math.random();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), ms);
  }

  /** Replaces a connection that is silent for too long, now or later. */
  #watch() {
    if (this.#state !== "open" && this.#state !== "connecting") return;
    clearTimeout(this.#timer);
    // What listeners do not hear is traffic too, and there is no keep-alive where there is traffic:
    // a connection that only seems silent must not be replaced again and again.
    const doublings = Math.min(this.#failures, SILENT_DOUBLINGS_MAX);
    const silentMsMax = SILENT_INTERVALS_MAX * this.#keepAliveMs * 2 ** doublings;
    const leftMs = (this.#state === "open" ? silentMsMax : CONNECTING_MS_MAX) - this.#silentMs();
    if (leftMs <= 0) {
      this.#failures += 1;
      this.#connect();
    } else if (leftMs < Infinity) {
      this.#timer = setTimeout(() => this.#watch(), Math.min(leftMs, TIMER_MS_MAX));
    }
  }

  /** The page is seen again, or the network is back: what looks dead is replaced at once. */
  #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    const silent = this.#silentMs() > SILENT_INTERVALS_ON_WAKE * this.#keepAliveMs;
    const dropped = silent || this.#source?.readyState === EventSource.CLOSED;
    if (this.#state === "waiting" || this.#interrupted || (this.#state === "open" && dropped)) {
      this.#connect();
    }
  };

  #touch() {
    this.#heard = { steady: performance.now(), wall: Date.now() };
  }

  #silentMs() {
    return Math.max(performance.now() - this.#heard.steady, Date.now() - this.#heard.wall);
  }

  /** @param {State} state */
  #enter(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#watch();
    this.#call(this.#options.onState, state);
  }

  /** @template T @param {((value: T) => unknown) | undefined} callback @param {T} value */
  #end(callback, value) {
    this.close();
    this.#call(callback, value);
  }

  /** @template T @param {((value: T) => unknown) | undefined} callback @param {T} value */
  #call(callback, value) {
    try {
      callback?.(value);
    } catch (error) {
      reportError(error);
    }
  }

  /** @param {string} type @param {(told: any) => void} hear */
  #onControl(type, hear) {
    this.on(type, ({ data }) => hear(JSON.parse(data)));
  }

  /** @template T @param {(store: Storage, key: string) => T} use */
  #storage(use) {
    try {
      return this.#options.storage ? use(sessionStorage, this.#options.storage) : undefined;
    } catch {
      return undefined; // Storage may be forbidden, full or not there: then a reload begins anew.
    }
  }
}

/** @param {string | URL | Address} address */
function urlOf(address) {
  const plain = typeof address === "string" || address instanceof URL;
  const beside = new URL("events", import.meta.url);
  const { url = beside, topics = [], client, start } = plain ? { url: address } : address;
  const whole = new URL(url, globalThis.document?.baseURI ?? location.href);
  for (const topic of topics) whole.searchParams.append("topic", topic);
  if (client !== undefined) whole.searchParams.set("client", client);
  if (start !== undefined) whole.searchParams.set("start", start);
  return whole;
}

/** @param {URL} url @param {Renewal | undefined} renewal */
function renewed(url, renewal) {
  if (typeof renewal === "string" || renewal instanceof URL) return new URL(renewal, url);
  const whole = new URL(url);
  new URLSearchParams(renewal).forEach((value, name) => whole.searchParams.set(name, value));
  return whole;
}

/** A new EventSource cannot send the header. @param {URL} url @param {string} lastEventId */
function resumed(url, lastEventId) {
  const whole = new URL(url);
  if (lastEventId) whole.searchParams.set("last_event_id", lastEventId);
  return whole;
}

/** @param {URL} url @param {boolean | undefined} withCredentials @param {AbortSignal} signal */
async function request(url, withCredentials, signal) {
  const credentials = withCredentials ? "include" : "same-origin";
  const headers = { accept: "text/event-stream" };
  return fetch(url, { credentials, headers, cache: "no-store", signal }).catch(() => undefined);
}

/** @param {Response} answer */
async function detailOf(answer) {
  const isJson = /json/.test(answer.headers.get("content-type") ?? "");
  const problem = isJson ? await answer.json().catch(() => undefined) : void answer.body?.cancel();
  return String(problem?.detail ?? problem?.title ?? answer.statusText);
}

/**
 * The last id and the reconnection time of a stream that ends without an event that has a listener.
 * The server's lines end with LF. @param {Response} answer @param {(type: string) => boolean} isHeard
 */
async function unheardTail({ headers, body }, isHeard) {
  const isStream = headers.get("content-type")?.startsWith("text/event-stream");
  if (!isStream || !body) return void body?.cancel();
  const [reader, decoder] = [body.getReader(), new TextDecoder()];
  let [rest, type, id, retryMs] = ["", "message", "", 0];
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ value: undefined, done: null }));
    if (done) return { id, retryMs };
    if (done === null) return undefined;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = (lines.pop() ?? "").slice(0, LINE_CHARACTERS_MAX);
    for (const line of lines) {
      if (line.startsWith("id: ")) id = line.slice(4);
      if (line.startsWith("event: ")) type = line.slice(7);
      if (/^retry: [0-9]+$/.test(line)) retryMs = Number(line.slice(7));
      if (line === "") type = "message";
      if (/^data/.test(line) && type !== "downlink.open" && isHeard(type)) return void reader.cancel();
    }
  }
}
