// Tables of the server's topics and clients. The page requests both lists about once a second while
// it is visible.

import { count, element } from "./page-rows.js";

/** The pause after an answer, and after a failure. */
const PAUSE_MS = 1_000;
const PAUSE_AFTER_FAILURE_MS = 5_000;
/** The rows requested. A note says when there are more. */
const ROWS_MAX = 100;

/** The rows of a table by key. A row is made once and updated in place, so it keeps the focus. */
class Table {
  #body;
  #cells;
  #rows = new Map();

  /** `makeFirst(key)` makes the first cell; `cells` is the number of cells after it. */
  constructor(body, cells, makeFirst) {
    this.#body = body;
    this.#cells = cells;
    this.makeFirst = makeFirst;
  }

  /** Shows these rows, each `{ key, texts, className }`, in this order. */
  show(rows) {
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    rows.forEach(({ key, texts, className = "" }, at) => {
      const row = this.#rows.get(key) ?? this.#make(key);
      row.className = className;
      texts.forEach((text, cell) => {
        const shown = row.children[cell + 1];
        if (shown.textContent !== text) shown.textContent = text;
      });
      const here = this.#body.children[at] ?? null;
      if (here !== row) this.#body.insertBefore(row, here);
    });
  }

  #make(key) {
    const row = element("tr");
    const first = element("th");
    first.scope = "row";
    first.append(this.makeFirst(key));
    row.append(first);
    for (let cell = 0; cell < this.#cells; cell += 1) row.append(element("td", "number"));
    this.#rows.set(key, row);
    return row;
  }
}

async function ask(path) {
  const asked = Date.now();
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? body.title);
  return { body, clock: clockOf(answer, asked) };
}

/** How far the server's clock is ahead of ours. A difference below its resolution counts as 0. */
function clockOf(answer, asked) {
  const ahead = Date.parse(answer.headers.get("date")) - (asked + Date.now()) / 2;
  return Math.abs(ahead) > 2_000 ? ahead : 0;
}

/** Both tables. The page uses `clockAhead` to show ages. */
export class Tables {
  clockAhead = 0;
  #topics;
  #clients;
  #notes;
  #own;
  #prefix = "";
  /** The events published to each topic at the last look, and the time of that look. */
  #before = new Map();
  #timer = 0;
  #looking = false;

  /** `choose(topic)` is called for a clicked topic; `own()` is the page's connection number. */
  constructor({ topics, clients, topicsNote, clientsNote, choose, own }) {
    this.#topics = new Table(topics, 3, (topic) => {
      const button = element("button", "topic", topic);
      button.type = "button";
      button.title = "Subscribe to it";
      button.addEventListener("click", () => choose(topic));
      return button;
    });
    this.#clients = new Table(clients, 3, (key) => element("span", "", JSON.parse(key)[1] ?? "–"));
    this.#notes = { topics: topicsNote, clients: clientsNote };
    this.#own = own;
    document.addEventListener("visibilitychange", () => this.look());
  }

  setPrefix(prefix) {
    this.#prefix = prefix;
    this.look();
  }

  /** Looks now and then regularly, while the page is visible. */
  async look() {
    clearTimeout(this.#timer);
    if (document.visibilityState !== "visible" || this.#looking) return;
    this.#looking = true;
    let pause = PAUSE_MS;
    try {
      await this.#lookOnce();
    } catch (error) {
      pause = PAUSE_AFTER_FAILURE_MS;
      this.#notes.topics.textContent = `The server does not answer: ${error.message}`;
    }
    this.#looking = false;
    this.#timer = setTimeout(() => this.look(), pause);
  }

  async #lookOnce() {
    const query = new URLSearchParams({ limit: ROWS_MAX, prefix: this.#prefix });
    const [topics, clients] = await Promise.all([ask(`/topics?${query}`), ask(`/clients?limit=${ROWS_MAX}`)]);
    this.clockAhead = topics.clock;
    this.#showTopics(topics.body);
    this.#showClients(clients.body);
  }

  #showTopics({ topics, next }) {
    const now = performance.now();
    const seen = new Map();
    const rows = topics.map(({ topic, subscribers, events, published, finished }) => {
      seen.set(topic, { published, now });
      const rate = rateOf(this.#before.get(topic), published, now);
      const texts = [count(subscribers), rate, finished ? `${count(events)}, finished` : count(events)];
      return { key: topic, texts };
    });
    this.#before = seen;
    this.#topics.show(rows);
    if (next !== null) this.#notes.topics.textContent = "There are more: say how they begin.";
    else this.#notes.topics.textContent = rows.length === 0 ? "None." : "";
  }

  #showClients({ clients, connections }) {
    const rows = clients.map(({ connection, client, lag, topics }) => {
      const own = connection === this.#own();
      const number = own ? `${connection}, this page` : connection;
      // A restarted server reuses connection numbers, so the key includes the client.
      const key = JSON.stringify([connection, client]);
      const className = [own && "own", lag > 0 && "behind"].filter(Boolean).join(" ");
      return { key, texts: [number, count(lag), count(topics)], className };
    });
    this.#clients.show(rows);
    const more = connections > rows.length ? `, ${count(rows.length)} shown` : "";
    this.#notes.clients.textContent = `${count(connections)} ${connections === 1 ? "connection" : "connections"}${more}`;
  }
}

/** If a topic counts from 0 again, the server had forgotten it in between. */
function rateOf(before, published, now) {
  if (!before || published < before.published) return "–";
  const rate = (published - before.published) / ((now - before.now) / 1000);
  return rate > 0 && rate < 10 ? rate.toFixed(1) : count(Math.round(rate));
}
