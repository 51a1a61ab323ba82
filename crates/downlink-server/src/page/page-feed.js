// Receives events with one EventSource, and puts them into a bounded queue until the page draws
// them. This file neither parses nor draws events, so that receiving ten thousand events a second
// takes little time.

/** The maximum number of events that wait to be drawn, for example while the page is paused. */
const WAITING_MAX = 10_000;
/** The maximum number of characters in the waiting events. Without this limit, large events could
 * take all memory. */
const WAITING_CHARACTERS_MAX = 16 * 1024 * 1024;

/** A gap is a notice of missing events. If it has one of these reasons, the server did not know the
 * last event id. */
const NOT_ACCEPTED = ["unknown_id", "new_epoch", "lost"];

/** A queue of the newest items. Each item has a weight, such as its number of characters. The queue
 * drops its oldest items above a maximum number of items or a maximum sum of weights, but always
 * keeps at least one item. */
export class Newest {
  #items = [];
  #first = 0;
  #weight = 0;
  #countMax;
  #weightMax;
  /** The number of items dropped since the last `takeAll`. */
  lost = 0;

  constructor(countMax, weightMax) {
    this.#countMax = countMax;
    this.#weightMax = weightMax;
  }

  get length() {
    return this.#items.length - this.#first;
  }

  push(item, weight) {
    this.#items.push({ item, weight });
    this.#weight += weight;
    while (this.length > this.#countMax || (this.#weight > this.#weightMax && this.length > 1)) {
      this.#weight -= this.#items[this.#first].weight;
      this.#items[this.#first] = undefined;
      this.#first += 1;
      this.lost += 1;
    }
    if (this.#first > this.#countMax) {
      this.#items = this.#items.slice(this.#first);
      this.#first = 0;
    }
  }

  /** Returns all items, oldest first. They stay in the queue. */
  all() {
    return this.#items.slice(this.#first).map(({ item }) => item);
  }

  /** Removes all items and returns them, oldest first. */
  takeAll() {
    const items = this.all();
    this.#items = [];
    this.#first = 0;
    this.#weight = 0;
    this.lost = 0;
    return items;
  }
}

/** A subscription. Calls `told(state, text)` for a new state, and `arrived()` for each event. */
export class Feed {
  #source = null;
  #told;
  #arrived;
  waiting = new Newest(WAITING_MAX, WAITING_CHARACTERS_MAX);
  /** The number of events since the page was loaded. */
  received = 0;
  /** The number of the connection in the server's list of clients. */
  connection = null;
  /** The id after which the next connection resumes: the last id from the server, or the id from
   * the form. */
  #lastId = "";

  constructor(told, arrived) {
    this.#told = told;
    this.#arrived = arrived;
  }

  /** Subscribes with these parameters, and closes the previous connection. */
  subscribe(query) {
    this.#close();
    this.#told("connecting", "connecting …");
    const url = `events?meta=1&${query}`;
    const source = new EventSource(url);
    this.#source = source;
    this.#lastId = query.get("last_event_id") ?? "";
    const hear = (kind) => (event) => this.#take({ kind, id: event.lastEventId, text: event.data });
    source.addEventListener("downlink.event", hear("event"));
    source.addEventListener("downlink.gap", hear("gap"));
    source.addEventListener("downlink.gap", ({ data }) => {
      if (NOT_ACCEPTED.includes(JSON.parse(data).reason)) this.#tellOpen(false);
    });
    source.addEventListener("downlink.open", (event) => {
      const { connection, resumed } = JSON.parse(event.data);
      this.connection = connection;
      // Some servers also set `resumed` if a subscription without an id gets older events first.
      // This is not a resume, so the page also checks that it had an id.
      this.#tellOpen(resumed && this.#lastId !== "");
      this.#lastId = event.lastEventId || this.#lastId;
    });
    source.onerror = () => {
      if (source !== this.#source) return;
      this.connection = null;
      if (source.readyState === EventSource.CLOSED) this.#explain(url);
      else this.#told("connecting", "connection lost, reconnecting …");
    };
  }

  leave(text = "not connected") {
    this.#close();
    this.#told("closed", text);
  }

  #tellOpen(resumed) {
    this.#told("open", `connected as number ${this.connection}${resumed ? ", resumed" : ""}`);
  }

  #close() {
    this.#source?.close();
    this.#source = null;
    this.connection = null;
  }

  #take(arrived) {
    if (arrived.kind === "event") this.received += 1;
    this.#lastId = arrived.id || this.#lastId;
    this.waiting.push(arrived, arrived.text.length);
    this.#arrived();
  }

  /** An EventSource does not report why the server refused it. So this method sends the same
   * request again, with `fetch`. */
  async #explain(url) {
    const refused = this.#source;
    const abort = new AbortController();
    let text = "refused, and the server does not answer any more";
    try {
      const answer = await fetch(url, { signal: abort.signal });
      if (answer.status === 204) text = "finished: every event was already read";
      else if (answer.ok) text = "the connection ended; subscribe again";
      else text = `refused: ${(await answer.json()).detail}`;
    } catch {
      // If reading the answer fails, `text` keeps its first value.
    }
    abort.abort();
    if (refused === this.#source) this.leave(text);
  }
}
