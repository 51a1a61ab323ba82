// The receiving side: one EventSource, and a bounded queue before the rows. Nothing is parsed or
// drawn here, so ten thousand events a second cost little more than their bytes.

/** Events that wait to be drawn, also while the page is paused or hidden. */
const WAITING_MAX = 10_000;
/** The characters of those events: a few large events weigh as much as many small ones. */
const WAITING_CHARACTERS_MAX = 16 * 1024 * 1024;

/** The reasons of a gap that say that the server did not accept the id. */
const NOT_ACCEPTED = ["unknown_id", "new_epoch", "lost"];

/** The newest items, up to a count and a total weight; at least one is kept. */
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

  /** All items, oldest first; they stay in the queue. */
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

/** A subscription. `told(state, text)` gets its state; `arrived()` is called per event. */
export class Feed {
  #source = null;
  #told;
  #arrived;
  waiting = new Newest(WAITING_MAX, WAITING_CHARACTERS_MAX);
  /** Events since the page was loaded. */
  received = 0;
  /** The number of the connection in the server's list of clients. */
  connection = null;
  /** The last id that this subscription has got or was given. */
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
      // Some servers also say so of a subscription that began in the history without an id.
      this.#tellOpen(resumed && this.#lastId !== "");
      this.#lastId = event.lastEventId || this.#lastId;
    });
    source.onerror = () => {
      if (source !== this.#source) return;
      this.connection = null;
      if (source.readyState === EventSource.CLOSED) this.#explain(url);
      else this.#told("connecting", "connection lost, coming back …");
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

  /** An EventSource does not say why it was refused, so the same request is sent with fetch. */
  async #explain(url) {
    const refused = this.#source;
    const abort = new AbortController();
    let text = "refused, and nothing answers any more";
    try {
      const answer = await fetch(url, { signal: abort.signal });
      if (answer.status === 204) text = "finished: all of it was read before";
      else if (answer.ok) text = "the connection ended; subscribe again";
      else text = `refused: ${(await answer.json()).detail}`;
    } catch {
      // The initial text is the answer.
    }
    abort.abort();
    if (refused === this.#source) this.leave(text);
  }
}
