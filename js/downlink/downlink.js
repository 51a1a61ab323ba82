// A feed of events from a downlink server, over the browser's own EventSource.
//
// EventSource reconnects and resumes by itself after a lost connection. The feed handles the other
// cases: a connection that died without an error, an answer after which EventSource never
// reconnects, a server that ends every stream at once, a reloaded page, credentials that expire.
// The listeners of the page get the events in order. They get each event at least once, if the
// server still has it. The feed drops an event only if the listeners got an event with the same id
// before. It calls `onGap` if events were lost.
//
// A feed may have the URLs of several servers that send the same events with the same ids. Its
// attempts form rounds. In a round, the feed tries each URL at most once, without a wait between two
// attempts. After a round, it waits in the same way as a feed with one URL.

/** The feed replaces a connection that delivers nothing for this many keep-alive intervals. The
 * server sends something in each interval. So the feed keeps a connection if one keep-alive is
 * missing, and replaces it if two in a row are missing. */
const SILENT_INTERVALS_MAX = 2.5;
/** When the page becomes visible or comes online, the feed replaces a connection that has delivered
 * nothing for this many intervals. The number is well above 1, because the server makes each
 * interval up to 20 % longer or shorter at random. */
const SILENT_INTERVALS_ON_WAKE = 1.5;
/** The longest silence that the feed allows doubles after each silent connection, but at most this
 * many times. */
const SILENT_DOUBLINGS_MAX = 4;
/** If a connection has not opened after this time, the feed replaces it. When the browser
 * reconnects, it first waits for the time that the server has set with `retry:`. This wait counts
 * too. Most servers set less than a minute, so the browser can usually wait to the end. */
const CONNECTING_MS_MAX = 60_000;
/** The same limit for a feed with several URLs, except while the browser reconnects by itself. It is
 * shorter, because the feed can ask another server. It is long enough for a server that is busy with
 * a storm of reconnects. */
const CONNECTING_MS_MAX_SEVERAL = 10_000;
/** The maximum number of URLs. If no server answers, a round with this number takes almost three
 * minutes. */
const URLS_MAX = 16;
/** The shortest wait between a failed connection and the next one. So even a server that sends
 * `retry: 0` and closes at once gets at most one request a second from each page. */
const RECONNECTION_MS_MIN = 1_000;
/** If a connection lasted for at least this time, the browser reconnects by itself. After a shorter
 * connection, the feed makes the next connection. */
const SHORT_MS = 1_000;
/** After the first failure, the feed adds a random wait of at most this time. The maximum doubles
 * with each further failure. */
const BACKOFF_STEP_MS = 1_000;
/** The random wait is never longer than this. A longer wait would keep a page offline after the
 * server is back; with a shorter one, all pages together could overload the server. */
const BACKOFF_MS_MAX = 30_000;
/** If a server asks for a longer wait with `Retry-After` or `retry:`, the feed waits only for this
 * time. An hour is enough for maintenance of the server. A longer time may be a mistyped number,
 * and must not stop a page for days. */
const WAIT_MS_MAX = 3_600_000;
/** The longest delay that `setTimeout` accepts. */
const TIMER_MS_MAX = 2 ** 31 - 1;
/** The feed keeps the ids of this many events. If the server does not know the feed's last id, the
 * server replays its newest events, at most 1,000. The feed then drops the replayed events whose
 * ids it has kept. */
const SEEN_MAX = 1_000;
/** While the next connection opens, the present one delivers events, and the feed keeps their ids.
 * After this many events, the feed closes the present connection, and waits for the next one. */
const OVERLAP_MAX = 1_000;
/** When the feed reads a stream with `fetch`, it keeps only this many characters of an unfinished
 * line. They are enough for every id and event type. */
const LINE_CHARACTERS_MAX = 1_024;
/** These refusals concern the subscription or its credentials, so all servers would answer the same.
 * Another refusal, such as 404, may be the fault of one server or its proxy. */
const SHARED = [400, 401, 403];
/** These refusals are temporary, so the feed tries again: timeout, too early, too many requests. */
const PASSING = [408, 425, 429];
/** Matches the ids that the server makes, and no id that a publisher gives. */
const OWN_ID = /^[0-9a-z]{8}-[0-9]+$/;
/** The type of all events of a subscription with `meta=1`. They are events of publishers, although
 * their type begins with `downlink.`. */
const DESCRIBED = "downlink.event";

/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */
/** @typedef {{ reason: string, after: string | null, until: string | null, oldest: string | null, waitMs: number }} Gap */
/** @typedef {{ status: number, code?: string, detail: string }} Problem `code` comes from the server's answer */
/** @typedef {string | URL | { url: string | URL } | URLSearchParams | Record<string, string>} Renewal
 * the new credentials that `renew` returns: a URL, an object with a URL, or query parameters to set */
/** @typedef {(event: MessageEvent<string>) => unknown} Listener */
/**
 * @typedef {object} Server a server that the feed may use
 * @property {URL} url
 * @property {boolean} tried true if the feed has tried this server in the present round
 * @property {boolean} wrong true if the last answer was a final refusal whose status is not in `SHARED`
 * @property {boolean} asked true if the feed has called `#askWhy` for this server since the last
 * success. `#askWhy` asks the server why the browser gave up
 * @property {number} askedMs the wait that the server has asked for since the last success
 * @property {number} restsUntil until this time, the server wants no request. The time is on the
 * steady clock
 */
/**
 * @typedef {object} Successor the connection that will replace the present one
 * @property {AbortController} attempt
 * @property {EventSource} [source] undefined until `renew` has returned
 * @property {Set<string>} heard the ids of the events that the present connection has delivered since
 * the successor began. The successor delivers these events again
 */
/**
 * @typedef {object} Address
 * @property {string | URL | (string | URL)[]} [url] one URL, or the URLs of several servers with the
 * same events. The default is `events` in the folder of this file
 * @property {string[]} [topics] topics and patterns
 * @property {string} [client] a client id: the feed also gets the events for this client
 * @property {string} [start] where to begin if the feed has no last id: `live`, `earliest`, `last:50`, `after:<id>` …
 */
/**
 * @typedef {object} Options
 * @property {string} [storage] the key in sessionStorage for the last id, so that a reloaded page resumes
 * @property {boolean} [withCredentials] sends cookies to another origin
 * @property {boolean} [alive] `false` if the server sends no `downlink.alive`; the feed then does not
 * watch for dead connections
 * @property {() => Renewal | Response | void | Promise<Renewal | Response | void>} [renew] called
 * before each connection that the feed makes, and before the credentials end. A `Response` holds the
 * renewal as JSON
 * @property {(gap: Gap) => unknown} [onGap] events are missing: fetch the state again after `waitMs`
 * @property {(state: State) => unknown} [onState] the state has changed
 * @property {() => unknown} [onFinished] the topics are finished and the feed has read all events; the
 * feed is closed
 * @property {(problem: Problem) => unknown} [onFailed] the server refuses the subscription, or the app
 * refuses to renew the credentials; the feed is closed
 */

/**
 * Makes a feed, which connects at once. Throws a `TypeError` if the address is not a URL, and if a
 * list of URLs is empty, longer than 16, or has the same URL twice.
 * @param {string | URL | (string | URL)[] | Address} address
 * @param {Options} [options]
 */
export function subscribe(address, options = {}) {
  return new Feed(address, options);
}

/** A subscription that `subscribe` made. */
export class Feed {
  /** @type {Server[]} in the order of the next attempts. The first is the present server. */
  #servers;
  #options;
  /** @type {State} */
  #state = "connecting";
  #lastEventId;
  /** @type {Map<string, Set<Listener>>} */
  #listeners = new Map();
  /** The current attempt. An attempt is one try to connect, and the connection that it opens. The
   * feed aborts it when the next attempt begins. The callbacks of an aborted attempt do nothing. */
  #attempt = new AbortController();
  /** @type {EventSource | undefined} */
  #source;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** The number of failures since the last success (see `#succeed`). A failure is a refusal, or a
   * connection that delivered no event or fell silent. A round of refusals counts as one failure. */
  #failures = 0;
  /** True if the server has refused the credentials since a connection last opened. The feed then
   * renews them once, and the next refusal ends the feed. */
  #refused = false;
  /** @type {Successor | undefined} */
  #successor;
  /** @type {ReturnType<typeof setTimeout> | undefined} begins or abandons a successor */
  #successorTimer;
  /** The number of successors since the server last announced a new end of the credentials. */
  #successors = 0;
  /** The end of the credentials that the server last announced, as a time of the wall clock. */
  #endsAt = 0;
  /** @type {Set<string>} the ids of events that the previous connection has delivered, and that the
   * present one delivers again */
  #overlap = new Set();
  /** The time at which the current connection opened, on the steady clock (`performance.now()`). */
  #openedAt = Infinity;
  /** True if the current connection has delivered an event. */
  #delivered = false;
  /** True while the browser reconnects by itself. */
  #interrupted = false;
  #keepAliveMs = Infinity;
  /** The time at which the feed last saw that the connection works. It is on two clocks, because
   * the steady clock may stop while the machine sleeps, and a user may set the wall clock back. */
  #heard = { steady: 0, wall: 0 };
  /** @type {Set<string>} the ids of events that listeners got, in the order of arrival */
  #seen = new Set();
  /** @type {Set<string>} the ids in `#seen` that a replay may repeat */
  #repeats = new Set();

  /** @param {string | URL | (string | URL)[] | Address} address @param {Options} options */
  constructor(address, options) {
    const fresh = { tried: false, wrong: false, asked: false, askedMs: 0, restsUntil: 0 };
    this.#servers = urlsOf(address).map((url) => ({ url, ...fresh }));
    this.#options = options;
    this.#lastEventId = this.#storage((store, key) => store.getItem(key)) ?? "";
    this.#onControl("downlink.open", ({ keep_alive_ms }) => {
      this.#keepAliveMs = options.alive !== false && keep_alive_ms > 0 ? keep_alive_ms : Infinity;
      this.#watch();
    });
    this.#onControl("downlink.alive", () => {});
    this.#onControl("downlink.expiring", ({ in_ms }) => this.#expiring(in_ms));
    this.#onControl("downlink.expired", ({ code }) => this.#expired(code === "revoked"));
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

  /** The URL of the present connection or of the next attempt, with the topics. */
  get url() {
    return this.#servers[0].url.href;
  }

  /** The id after which the feed resumes: the id of the last event. Before the first event, it is
   * the id that the server sent when the stream began. */
  get lastEventId() {
    return this.#lastEventId;
  }

  /**
   * Calls the listener for each event of this type. Events without a type have the type `message`.
   * Returns a function that removes the listener.
   * @param {string} type @param {Listener} listener
   */
  on(type, listener) {
    if (["open", "error"].includes(type)) throw new TypeError(`no event can have the type ${type}`);
    const known = this.#listeners.get(type);
    const listeners = known ?? new Set();
    if (!known) {
      this.#listeners.set(type, listeners);
      if (this.#source) this.#attach(this.#source, type, this.#attempt);
      if (this.#successor?.source) this.#attach(this.#successor.source, type, this.#successor.attempt);
    }
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  /** Ends the feed. The feed then calls `onState("closed")`, and nothing after that. */
  close() {
    this.#begin();
    this.#attempt.abort();
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    for (const type of ["online", "pageshow"]) globalThis.removeEventListener(type, this.#wake);
    this.#enter("closed");
  }

  /** Ends the current attempt and its successor, and returns the next attempt. */
  #begin() {
    this.#abandon();
    this.#attempt.abort();
    this.#attempt = new AbortController();
    this.#source = undefined;
    this.#openedAt = Infinity;
    this.#interrupted = false;
    clearTimeout(this.#timer);
    return this.#attempt;
  }

  async #connect() {
    const attempt = this.#begin();
    const { signal } = attempt;
    this.#touch();
    this.#enter("connecting");
    this.#watch();
    if (signal.aborted) return;
    try {
      const url = await this.#renewedUrl();
      if (signal.aborted) return;
      this.#source = this.#open(url, attempt);
      this.#touch();
      this.#watch();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refusal) return this.#end(this.#options.onFailed, error.problem);
      reportError(error);
      this.#pause();
    }
  }

  /** Calls `renew`, and returns the address of the next connection. */
  async #renewedUrl() {
    const isOneOfSeveral = this.#servers.length > 1;
    const renewal = await this.#options.renew?.();
    const [{ url }] = this.#servers;
    return renewed(url, renewal instanceof Response ? await renewalIn(renewal) : renewal, isOneOfSeveral);
  }

  /** @param {URL} address @param {AbortController} attempt */
  #open(address, attempt) {
    const { signal } = attempt;
    const { alive = true, withCredentials = false } = this.#options;
    const url = resumed(address, this.#lastEventId);
    if (alive) url.searchParams.set("alive", "1");
    const source = new EventSource(url, { withCredentials });
    let accepted = false;
    signal.addEventListener("abort", () => source.close());
    for (const type of this.#listeners.keys()) this.#attach(source, type, attempt);
    source.onopen = () => {
      accepted = true;
      if (attempt === this.#attempt) this.#opened();
    };
    source.onerror = () => {
      if (signal.aborted) return;
      if (attempt === this.#attempt) this.#lost(source, () => this.#askWhy(url, accepted, signal), signal);
      else if (source.readyState === EventSource.CLOSED) this.#abandon();
      else this.#postponeSuccessor();
    };
    return source;
  }

  #opened() {
    this.#interrupted = false;
    this.#openedAt = performance.now();
    this.#delivered = false;
    this.#refused = false;
    this.#touch();
    this.#enter("open");
  }

  /**
   * Called when the server has announced the end of the credentials. The feed renews them, and opens
   * a successor of the connection. The feed does nothing if it has no `renew`, because the successor
   * would have the same end. It also does nothing if it has no last id, because the successor could
   * not continue after the last event.
   * @param {number} leftMs
   */
  #expiring(leftMs) {
    if (!this.#options.renew || !this.#lastEventId || this.#successor) return;
    const endsAt = Date.now() + leftMs;
    if (endsAt > this.#endsAt + RECONNECTION_MS_MIN) this.#successors = 0;
    this.#endsAt = endsAt;
    const age = performance.now() - this.#openedAt;
    if (this.#successors > 0) this.#postponeSuccessor();
    else this.#prepareSuccessor(RECONNECTION_MS_MIN - age);
  }

  /** Begins a successor after this time. @param {number} waitMs */
  #prepareSuccessor(waitMs) {
    this.#abandon();
    this.#successorTimer = setTimeout(() => this.#beginSuccessor(), waitMs);
  }

  /** Begins another successor after a wait. The feed calls this if the last successor has failed,
   * or if the new credentials of the last successor end at the same time as the old ones. */
  #postponeSuccessor() {
    const rangeMs = backoffMsMax(this.#successors - 1);
    this.#prepareSuccessor(RECONNECTION_MS_MIN + rangeMs * Math.random());
  }

  /** Ends the successor. The present connection stays, and the feed reconnects after its end. */
  #abandon() {
    this.#successor?.attempt.abort();
    this.#successor = undefined;
    clearTimeout(this.#successorTimer);
  }

  async #beginSuccessor() {
    const attempt = new AbortController();
    /** @type {Successor} */
    const successor = { attempt, heard: new Set() };
    this.#successor = successor;
    this.#successors += 1;
    this.#successorTimer = setTimeout(() => this.#postponeSuccessor(), CONNECTING_MS_MAX);
    try {
      const url = await this.#renewedUrl();
      if (!attempt.signal.aborted) successor.source = this.#open(url, attempt);
    } catch (error) {
      if (attempt.signal.aborted) return;
      // The present connection stays until its end. When the feed then reconnects, it calls `renew`
      // again. If the app still refuses, the feed ends.
      if (error instanceof Refusal) return this.#abandon();
      reportError(error);
      this.#postponeSuccessor();
    }
  }

  /**
   * Replaces the present connection with its successor. Called at the first event of the successor,
   * and not when the successor opens, because a stream without events may be a refusal. Also called
   * when the present connection has delivered `OVERLAP_MAX` events since the successor began.
   * @param {Successor} successor
   */
  #takeOver({ attempt, source, heard }) {
    this.#attempt.abort();
    this.#attempt = attempt;
    this.#source = source;
    this.#overlap = heard;
    this.#successor = undefined;
    clearTimeout(this.#successorTimer);
    if (source?.readyState === EventSource.OPEN) return this.#opened();
    this.#openedAt = Infinity;
    this.#interrupted = false;
    this.#touch();
    this.#enter("connecting");
  }

  /** Called when the server says that the credentials have ended. The feed closes the connection,
   * and makes a new one after a wait.
   * @param {boolean} revoked */
  #expired(revoked) {
    if (revoked) this.#refused = true;
    if (this.#lasted() || this.#delivered) this.#succeed();
    if (this.#lasted()) this.#beginRound();
    this.#source?.close();
    this.#pause();
  }

  /**
   * Called when a connection has ended or an attempt has failed. After a short connection the feed
   * makes the next one itself, and waits longer after each failure. The browser would wait for the
   * same time after each failure, and that time may be zero.
   * @param {EventSource} source @param {() => void} askWhy @param {AbortSignal} signal
   */
  #lost(source, askWhy, signal) {
    this.#touch();
    const opened = this.#openedAt < Infinity;
    const lasted = this.#lasted();
    const delivered = opened && this.#delivered;
    this.#openedAt = Infinity;
    if (lasted || delivered) this.#succeed();
    if (lasted) this.#beginRound();
    const refused = source.readyState === EventSource.CLOSED;
    this.#interrupted = lasted && !refused;
    if (this.#interrupted) return this.#enter("connecting");
    source.close();
    // A stream that delivered nothing to the page may still have had a reconnection time, or events
    // without a listener. `#askWhy` can see both. It is called at most once before the next
    // success, so that it does not double the number of requests.
    const [server] = this.#servers;
    const unclear = opened && !delivered && !server.asked;
    if (!refused && !unclear) return delivered ? this.#pause() : this.#moveOn();
    server.asked = true;
    this.#enter("connecting");
    if (!signal.aborted) askWhy();
  }

  /** Whether the connection is open and has lasted for at least `SHORT_MS`. */
  #lasted() {
    return performance.now() - this.#openedAt >= SHORT_MS;
  }

  /** Records a success: a connection has lasted for at least `SHORT_MS` or has delivered an event.
   * The next failure counts as the first. */
  #succeed() {
    this.#failures = 0;
    for (const server of this.#servers) Object.assign(server, { asked: false, askedMs: 0 });
  }

  /** @param {EventSource} source @param {string} type @param {AbortController} attempt */
  #attach(source, type, attempt) {
    source.addEventListener(type, (event) => {
      if (!attempt.signal.aborted) this.#hear(event, attempt);
    });
  }

  /** @param {MessageEvent<string>} event @param {AbortController} attempt */
  #hear(event, { signal }) {
    const successor = this.#successor;
    if (successor?.attempt.signal === signal) this.#takeOver(successor);
    this.#touch();
    const { type, lastEventId: id } = event;
    const control = type.startsWith("downlink.") && type !== DESCRIBED;
    // A server may send `downlink.open` and `downlink.gap` and then close the connection, again and
    // again. So these two types do not count as a success.
    if (!control || type === "downlink.alive") this.#succeed();
    if (!control) this.#delivered = true;
    // `delete` removes the id from the set, so only one event with this id is dropped as a repeat.
    // The next event may have no id of its own. Its `lastEventId` is then the same id, although it
    // is another event. The feed must not drop it.
    const repeated = !control && [this.#repeats, this.#overlap].some((ids) => ids.delete(id));
    for (const listener of repeated ? [] : [...(this.#listeners.get(type) ?? [])]) {
      if (!signal.aborted) this.#call(listener, event);
    }
    if (!control && this.#successor?.source) {
      this.#successor.heard.add(id);
      if (this.#successor.heard.size >= OVERLAP_MAX) this.#takeOver(this.#successor);
    }
    if (!control && OWN_ID.test(id)) {
      this.#seen.delete(id);
      this.#seen.add(id);
      const [oldest] = this.#seen;
      if (this.#seen.size > SEEN_MAX) this.#seen.delete(oldest);
    }
    if (id === this.#lastEventId) return;
    this.#lastEventId = id;
    // While the new connection repeats events of the previous one, the feed stores no ids. A stored
    // id would be too old, and a page that is reloaded meanwhile would get events again.
    const behind = this.#overlap.size > 0 && (control || repeated);
    if (!behind) this.#storage((store, key) => store.setItem(key, id));
  }

  /**
   * Finds out why the browser gave up, or why a stream delivered no event. The feed sends the same
   * request once more and reads the answer.
   * @param {URL} url @param {boolean} accepted true if the server has accepted these credentials before
   * @param {AbortSignal} signal
   */
  async #askWhy(url, accepted, signal) {
    const { renew, withCredentials } = this.#options;
    const ask = (/** @type {string} */ id) => request(resumed(url, id), withCredentials, signal);
    const answer = await ask(this.#lastEventId);
    const status = answer?.status ?? 0;
    if (signal.aborted) return;
    if (status === 204) return this.#end(this.#options.onFinished, undefined);
    // If the server has accepted these credentials before, a 403 means that the rights have changed.
    // New credentials may have the new rights.
    const old = status === 401 || (accepted && status === 403);
    const renewable = renew && old && !this.#refused;
    if (renewable) this.#refused = true;
    if (answer && isFinal(status) && !renewable) {
      const othersAreWrong = this.#servers.slice(1).every(({ wrong }) => wrong);
      const problem = await problemOf(answer);
      if (signal.aborted) return;
      if (!SHARED.includes(status) && !othersAreWrong) return this.#moveOn(0, true);
      return this.#end(this.#options.onFailed, problem);
    }
    const askedMs = Number(answer?.headers.get("retry-after")) * 1000;
    const isStream = answer?.headers.get("content-type")?.startsWith("text/event-stream");
    if (!answer || status !== 200 || !isStream) {
      void answer?.body?.cancel();
      return this.#moveOn(askedMs);
    }
    this.#pause(askedMs);
    // The topics may be finished and end with events that have no listener. The feed does not know
    // the ids of these events, and the server answers 204 only to a request with the id of the last
    // event. So the feed reads this id from the stream, and asks again with it.
    const tail = await unheardTail(answer, (type) => this.#listeners.has(type));
    if (!tail || signal.aborted) return;
    const canMove = this.#servers.slice(1).some(({ tried }) => !tried);
    if (!canMove && tail.retryMs > RECONNECTION_MS_MIN) {
      this.#wait(this.#recordAsked(tail.retryMs), BACKOFF_STEP_MS);
    }
    const end = tail.id ? await ask(tail.id) : undefined;
    if (signal.aborted) return;
    if (end?.status === 204) this.#end(this.#options.onFinished, undefined);
    else if (canMove) this.#moveOn(tail.retryMs);
  }

  /** Begins a new round, in which the feed may try each URL. */
  #beginRound() {
    for (const server of this.#servers) server.tried = server.wrong = false;
  }

  /** Goes to the first server that fits. Returns false if there is none.
   * @param {(server: Server) => boolean} fits */
  #goTo(fits) {
    const index = this.#servers.findIndex(fits);
    if (index > 0) this.#servers.push(...this.#servers.splice(0, index));
    return index >= 0;
  }

  /** Goes to the next server of the round that wants a request. If there is none, goes to the server
   * after the present one, and returns false. @param {boolean} wrong see `Server` */
  #next(wrong) {
    const now = performance.now();
    const [present, ...others] = this.#servers;
    Object.assign(present, { tried: true, wrong });
    this.#servers = [...others, present];
    if (this.#goTo(({ tried, restsUntil }) => !tried && restsUntil <= now)) return true;
    for (const server of this.#servers) server.tried = false;
    return false;
  }

  /** Goes on at the next server of the round at once. After the round, waits for the server that
   * wants a request first.
   * @param {number} [askedMs] the wait that the present server asked for in this answer
   * @param {boolean} [wrong] see `Server` */
  #moveOn(askedMs = 0, wrong = false) {
    const now = performance.now();
    this.#servers[0].restsUntil = now + this.#recordAsked(askedMs);
    if (this.#next(wrong)) return void this.#connect();
    const first = Math.min(...this.#servers.map(({ restsUntil }) => restsUntil));
    this.#goTo(({ restsUntil }) => restsUntil <= Math.max(first, now + RECONNECTION_MS_MIN));
    this.#backOff(first - now);
  }

  /** Counts a failure, and makes a new connection to the same server after a wait.
   * @param {number} [askedMs] the wait that the server asked for in this answer */
  #pause(askedMs = 0) {
    this.#backOff(this.#recordAsked(askedMs));
  }

  /** Records the wait that the present server asked for in this answer. If it asked for none, its
   * last wait since the last success still applies. Returns the wait. @param {number} askedMs */
  #recordAsked(askedMs) {
    const [server] = this.#servers;
    if (askedMs > 0) server.askedMs = Math.min(askedMs, WAIT_MS_MAX);
    return server.askedMs;
  }

  /** Counts a failure, and makes a new connection after a wait. @param {number} askedMs */
  #backOff(askedMs) {
    const rangeMs = backoffMsMax(this.#failures);
    this.#failures += 1;
    this.#wait(askedMs, rangeMs);
    this.#enter("waiting");
  }

  /**
   * Makes a new connection after the wait that the server asked for, plus a random time up to
   * `rangeMs` (full jitter). Without the random time, all pages would reconnect at once.
   * @param {number} askedMs @param {number} rangeMs
   */
  #wait(askedMs, rangeMs) {
    const ms = Math.max(RECONNECTION_MS_MIN, askedMs) + rangeMs * Math.random();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), ms);
  }

  /** Replaces the connection if it has been silent for too long. Otherwise sets a timer for the
   * next check. */
  #watch() {
    if (this.#state !== "open" && this.#state !== "connecting") return;
    clearTimeout(this.#timer);
    // Some servers send no keep-alive while they send events, and the feed does not see events
    // without a listener. With such a server, a connection that works may seem silent. So the limit
    // doubles after each silent connection, and the feed replaces these connections less and less
    // often.
    const doublings = Math.min(this.#failures, SILENT_DOUBLINGS_MAX);
    const silentMsMax = SILENT_INTERVALS_MAX * this.#keepAliveMs * 2 ** doublings;
    const leftMs = (this.#state === "open" ? silentMsMax : this.#connectingMsMax()) - this.#silentMs();
    if (leftMs <= 0) {
      this.#failures += 1;
      if (this.#state === "open") this.#beginRound();
      this.#next(false);
      this.#connect();
    } else if (leftMs < Infinity) {
      this.#timer = setTimeout(() => this.#watch(), Math.min(leftMs, TIMER_MS_MAX));
    }
  }

  /** The limit for connecting. While `renew` runs, the feed waits for the app and not for a server. */
  #connectingMsMax() {
    const askable = this.#servers.length > 1 && this.#source && !this.#interrupted;
    return askable ? CONNECTING_MS_MAX_SEVERAL : CONNECTING_MS_MAX;
  }

  /** Called when the page is visible again or the network is back. If the feed waits for its next
   * attempt, or the connection seems dead, the feed connects at once. */
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
      return undefined; // Storage may be forbidden, full or missing. A reloaded page then has no id.
    }
  }
}

/** @param {string | URL | (string | URL)[] | Address} address */
function urlsOf(address) {
  const plain = typeof address === "string" || address instanceof URL || Array.isArray(address);
  const beside = new URL("events", import.meta.url);
  const { url = beside, topics = [], client, start } = plain ? { url: address } : address;
  const urls = [url].flat().map((one) => {
    const whole = parsed(one);
    for (const topic of topics) whole.searchParams.append("topic", topic);
    if (client !== undefined) whole.searchParams.set("client", client);
    if (start !== undefined) whole.searchParams.set("start", start);
    return whole;
  });
  if (urls.length === 0) throw new TypeError("the list of URLs is empty: give at least one URL");
  if (urls.length > URLS_MAX) {
    throw new TypeError(`${urls.length} URLs were given, but the maximum is ${URLS_MAX}: remove some`);
  }
  const repeated = urls.find(({ href }, at) => urls.findIndex((earlier) => earlier.href === href) < at);
  if (repeated) throw new TypeError(`the list has ${repeated.href} twice: remove one of them`);
  return urls;
}

/** @param {string | URL} url */
function parsed(url) {
  try {
    return new URL(url, globalThis.document?.baseURI ?? location.href);
  } catch (cause) {
    throw new TypeError(`${url} is not a URL`, { cause });
  }
}

/** The app refuses to renew the credentials. */
class Refusal extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** The maximum of the random wait after this many earlier failures. @param {number} failures */
function backoffMsMax(failures) {
  return Math.min(BACKOFF_MS_MAX, BACKOFF_STEP_MS * 2 ** failures);
}

/** Whether an answer with this status is a refusal for good. @param {number} status */
function isFinal(status) {
  return status >= 400 && status < 500 && !PASSING.includes(status);
}

/**
 * The address of a connection with new credentials. If the feed has several servers, a ticket is
 * valid at all of them. So the feed uses only the query of a new URL, and stays at the server that
 * is next in its order.
 * @param {URL} url @param {Renewal | void} renewal @param {boolean} isOneOfSeveral
 */
function renewed(url, renewal, isOneOfSeveral) {
  const isUrl = typeof renewal === "string" || renewal instanceof URL;
  const address = isUrl ? renewal : /** @type {any} */ (renewal)?.url;
  if (address) {
    const whole = new URL(address, url);
    return isOneOfSeveral ? new URL(whole.search, url) : whole;
  }
  const whole = new URL(url);
  const parameters = /** @type {URLSearchParams | Record<string, string>} */ (renewal ?? {});
  new URLSearchParams(parameters).forEach((value, name) => whole.searchParams.set(name, value));
  return whole;
}

/** The renewal in an answer of the app. @param {Response} answer @returns {Promise<Renewal>} */
async function renewalIn(answer) {
  if (answer.ok) return answer.json();
  const problem = await problemOf(answer);
  if (isFinal(problem.status)) throw new Refusal(problem);
  throw new Error(`renew: ${problem.status} ${problem.detail}`);
}

/** Adds the last id to the query. A page cannot set the headers of an EventSource.
 * @param {URL} url @param {string} lastEventId */
function resumed(url, lastEventId) {
  const whole = new URL(url);
  if (lastEventId) whole.searchParams.set("last_event_id", lastEventId);
  return whole;
}

/** @param {URL} url @param {boolean | undefined} withCredentials @param {AbortSignal} signal */
async function request(url, withCredentials, signal) {
  // By default, the server refuses a browser with an empty stream. With this parameter, it sends
  // the status of the refusal, which `fetch` can read.
  url.searchParams.set("refuse_with_status", "1");
  const credentials = withCredentials ? "include" : "same-origin";
  const headers = { accept: "text/event-stream" };
  return fetch(url, { credentials, headers, cache: "no-store", signal }).catch(() => undefined);
}

/** @param {Response} answer @returns {Promise<Problem>} */
async function problemOf(answer) {
  const { status, statusText } = answer;
  const isJson = /json/.test(answer.headers.get("content-type") ?? "");
  const told = isJson ? await answer.json().catch(() => undefined) : void answer.body?.cancel();
  const detail = String(told?.detail ?? told?.title ?? statusText);
  return { status, ...(told?.code && { code: String(told.code) }), detail };
}

/**
 * Reads a stream to its end and returns the stream's last id and reconnection time. Returns
 * undefined if the stream breaks off, or has an event for which the page has a listener. The page
 * has to get this event through an EventSource. All lines of a downlink server end with LF, so
 * this function looks for no other line end.
 * @param {Response} answer @param {(type: string) => boolean} isHeard
 */
async function unheardTail({ headers, body }, isHeard) {
  if (!body) return undefined;
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
