// Shows the server's metrics, topics, clients and readiness. While the page is visible, it requests
// all of them every two seconds.

import { parseMetrics } from "./page-strip.js";
import { count, element, plain, rate } from "./page-text.js";

/** The pause between two updates, and the pause after an update with a failed request. */
const PAUSE_MS = 2_000;
const PAUSE_AFTER_FAILURE_MS = 5_000;
/** The time without a journal entry after which the engine of a cluster counts as away, as for
 * `/readyz`. Each node appends an entry every two seconds. */
const ENGINE_AWAY_S = 5;
/** The number of rows to request. If the server has more, a note says so. */
const ROWS_MAX = 100;

/** A table with a key for each row. Rows are updated in place, so they keep the focus. */
class Table {
  #body;
  #cells;
  #makeFirst;
  #rows = new Map();

  /** `makeFirst(key)` makes the first cell. `cells` is the number of the other cells. */
  constructor(body, cells, makeFirst) {
    this.#body = body;
    this.#cells = cells;
    this.#makeFirst = makeFirst;
  }

  /** Shows these rows, each `{ key, texts, tag, className, title }`, in this order. */
  show(rows) {
    const keys = new Set(rows.map(({ key }) => key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    rows.forEach(({ key, texts, tag = "", className = "", title = "" }, at) => {
      const row = this.#rows.get(key) ?? this.#make(key);
      row.className = className;
      row.title = title;
      write(row.querySelector(".tag"), tag);
      texts.forEach((text, cell) => write(row.children[cell + 1], text));
      const here = this.#body.children[at] ?? null;
      if (here !== row) this.#body.insertBefore(row, here);
    });
  }

  #make(key) {
    const row = element("tr");
    const first = element("th");
    first.scope = "row";
    first.append(this.#makeFirst(key), element("span", "tag"));
    row.append(first);
    for (let cell = 0; cell < this.#cells; cell += 1) row.append(element("td", "number"));
    this.#rows.set(key, row);
    return row;
  }
}

function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

async function ask(path) {
  const asked = Date.now();
  const answer = await fetch(path);
  if (!answer.ok) {
    const { detail, title } = await answer.json().catch(() => ({}));
    throw new Error(detail ?? title ?? answer.statusText);
  }
  return { answer, clock: clockOf(answer, asked) };
}

async function askJson(path) {
  const { answer, clock } = await ask(path);
  return { body: await answer.json(), clock };
}

async function askText(path) {
  return (await ask(path)).answer.text();
}

/** How far the server's clock is ahead of the browser's, in milliseconds. A difference of up to 2
 * seconds counts as 0. */
function clockOf(answer, asked) {
  const ahead = Date.parse(answer.headers.get("date")) - (asked + Date.now()) / 2;
  return Math.abs(ahead) > 2_000 ? ahead : 0;
}

/** Updates the numbers from the metrics, the table of topics and the table of clients. The page
 * uses `clockAhead` to compute ages. */
export class Overview {
  clockAhead = 0;
  #strip;
  #topics;
  #clients;
  #notes;
  #health;
  #upstream;
  #cluster;
  #own;
  #prefix = "";
  /** The number of events published to each topic at the last update, and the update's time.  */
  #before = new Map();
  #timer = 0;
  #looking = false;
  #again = false;

  /**
   * `by(id)` finds an element. `choose(topic)` is called when a topic is clicked. `own()` returns
   * the connection number of this page.
   */
  constructor({ by, strip, choose, own }) {
    this.#strip = strip;
    this.#topics = new Table(by("topics"), 3, (topic) => {
      const button = element("button", "topic", plain(topic));
      button.type = "button";
      button.title = "Subscribe to this topic";
      button.addEventListener("click", () => choose(topic));
      return button;
    });
    this.#clients = new Table(by("clients"), 3, (key) => element("span", "", plain(JSON.parse(key)[1] ?? "–")));
    this.#notes = { topics: by("topics-note"), clients: by("clients-note") };
    this.#health = by("health");
    this.#upstream = by("upstream");
    this.#cluster = by("cluster");
    this.#own = own;
    document.addEventListener("visibilitychange", () => this.look());
  }

  setPrefix(prefix) {
    this.#prefix = prefix;
    this.look();
  }

  /** Updates now, and then at intervals while the page is visible. */
  async look() {
    this.#again = this.#looking;
    if (document.visibilityState !== "visible" || this.#looking) return;
    clearTimeout(this.#timer);
    this.#looking = true;
    const answered = await this.#lookOnce();
    this.#looking = false;
    const pause = answered ? PAUSE_MS : PAUSE_AFTER_FAILURE_MS;
    this.#timer = setTimeout(() => this.look(), this.#again ? 0 : pause);
  }

  /** Requests and shows all parts. If one request fails, the other parts are still shown. */
  async #lookOnce() {
    const query = new URLSearchParams({ limit: ROWS_MAX, prefix: this.#prefix });
    const parts = [
      askJson(`topics?${query}`),
      askJson(`clients?sort=lag&limit=${ROWS_MAX}`),
      askText("metrics"),
      askText("readyz"),
    ];
    const [topics, clients, metrics, ready] = await Promise.allSettled(parts);
    this.#showHealth(ready.reason?.message ?? "");
    this.clockAhead = topics.value?.clock ?? clients.value?.clock ?? this.clockAhead;
    if (topics.value) this.#showTopics(topics.value.body);
    else this.#notes.topics.textContent = `No answer: ${topics.reason.message}`;
    if (clients.value) this.#showClients(clients.value.body);
    else this.#notes.clients.textContent = `No answer: ${clients.reason.message}`;
    // The server sends the client with the largest lag first.
    const lag = clients.value ? (clients.value.body.clients[0]?.lag ?? 0) : null;
    const counters = parseMetrics(metrics.value ?? "");
    this.#strip.show({ counters, lag });
    if (metrics.value) {
      this.#showUpstream(counters);
      this.#showCluster(counters);
    }
    return [topics, clients, metrics, ready].every(({ status }) => status === "fulfilled");
  }

  /** Shows why the server is not ready. If it is ready, shows nothing. */
  #showHealth(reason) {
    this.#health.hidden = reason === "";
    write(this.#health, reason && `Not ready: ${reason}`);
  }

  /** On a relay, shows whether the upstream is connected, and the lag. */
  #showUpstream(counters) {
    const of = (name) => counters.get(`downlink_upstream_${name}`);
    const connected = of("connected");
    this.#upstream.hidden = connected === undefined;
    if (connected === undefined) return;
    this.#upstream.dataset.state = connected ? "open" : "away";
    const lag = of("lag") === 0 ? "no lag" : `lag ${count(of("lag"))}`;
    // The metric has no finite value before the first message.
    const silent = of("silent_seconds");
    const since = silent === undefined ? "not reached yet" : `away for ${count(Math.round(silent))} s`;
    write(this.#upstream, connected ? `upstream connected, ${lag}` : `upstream ${since}`);
  }

  /** On a node of a cluster, shows whether the engine answers, and the lag. */
  #showCluster(counters) {
    const of = (name) => counters.get(`downlink_cluster_${name}`);
    const lag = of("lag");
    this.#cluster.hidden = lag === undefined;
    if (lag === undefined) return;
    // The metric has no finite value before the first entry.
    const silent = of("silent_seconds");
    const connected = silent !== undefined && silent < ENGINE_AWAY_S;
    this.#cluster.dataset.state = connected ? "open" : "away";
    const behind = lag === 0 ? "no lag" : `${count(lag)} ${lag === 1 ? "entry" : "entries"} behind`;
    const publishes = of("takes_publishes") === 0 ? ", takes no publishes" : "";
    const since = silent === undefined ? "not reached yet" : `away for ${count(Math.round(silent))} s`;
    write(this.#cluster, connected ? `cluster connected, ${behind}${publishes}` : `engine ${since}`);
  }

  #showTopics({ topics, next }) {
    const now = performance.now();
    const seen = new Map();
    const rows = topics.map(({ topic, subscribers, events, published, finished }) => {
      seen.set(topic, { published, now });
      const perSecond = rateOf(this.#before.get(topic), published, now);
      const texts = [count(subscribers), perSecond, count(events)];
      return { key: topic, texts, tag: finished ? "finished" : "" };
    });
    this.#before = seen;
    this.#topics.show(rows);
    const more = next === null ? "" : "There are more topics. Type a prefix to see others.";
    write(this.#notes.topics, rows.length === 0 ? "No topics." : more);
  }

  #showClients({ clients, connections }) {
    const rows = clients.map(({ connection, client, address, age, lag, bytes, topics }) => {
      const own = connection === this.#own();
      // A restarted server reuses connection numbers, so the key includes the client.
      const key = JSON.stringify([connection, client]);
      const className = [own && "own", lag > 0 && "behind"].filter(Boolean).join(" ");
      const texts = [connection, count(lag), count(topics)];
      const title = [
        address ?? "no known address",
        `open for ${count(age)} s`,
        `${count(bytes)} bytes of events`,
      ].join(", ");
      return { key, texts, tag: own ? "this page" : "", className, title };
    });
    this.#clients.show(rows);
    const shown = connections > rows.length ? `${count(rows.length)} of ${count(connections)}, ` : "";
    write(this.#notes.clients, `${shown}slowest first`);
  }
}

/** The rate of a topic; unknown if the topic's counter is lower than before, because the
 * server has then begun to count from 0 again. */
function rateOf(before, published, now) {
  if (!before || published < before.published) return "–";
  return rate((published - before.published) / ((now - before.now) / 1000));
}
