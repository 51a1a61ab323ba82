// Rows of events. All received data is shown as text: no row is made from HTML.

import { Newest } from "./page-feed.js";
import { format, mayBeJson } from "./page-json.js";
import { age, count, element, plain } from "./page-text.js";

/** The most rows at once: more than a person reads, few enough to lay out within a frame. */
export const ROWS_MAX = 300;
/** The events that a filter can bring back, and their characters. */
export const KEPT_MAX = 2_000;
const KEPT_CHARACTERS_MAX = 4 * 1024 * 1024;
/** The characters of one event that a row shows: about two screens. */
const SHOWN_MAX = 4_000;
/** The newest rows of a drawing have their JSON formatted at once, so that they do not jump. The
 * others are formatted when they come into sight, since a flood brings more than anybody sees. */
const FORMATTED_AT_ONCE = 12;

const REASONS = {
  evicted: "no longer kept",
  lagged: "this connection was too slow for the history that is kept",
  new_epoch: "the id is of an earlier life of the server",
  unknown_id: "the id means nothing here",
  lost: "the id is ahead of the server",
  unreadable: "the store has them and cannot read them",
};

/** Parses a received event into an entry: the text of a row and of the filter's search. */
export function read({ kind, id, text }) {
  try {
    const said = JSON.parse(text);
    return kind === "gap" ? gap(id, said) : event(id, said);
  } catch {
    return { kind: "event", id, topics: [], clients: [], at: null, data: text, searched: text };
  }
}

function event(id, said) {
  const searched = [said.data, said.event ?? "", ...said.topics, ...said.clients].join("\n");
  return { kind: "event", id, ...said, searched: searched.toLowerCase() };
}

function gap(id, { reason, after, until, oldest }) {
  const from = after ? `after ${after}` : "from the beginning";
  const upTo = until ? ` up to ${until}` : "";
  const next = oldest ? ` It goes on with ${oldest}.` : "";
  const data = `Events are missing ${from}${upTo}: ${REASONS[reason] ?? reason}.${next}`;
  return { kind: "gap", id, reason, at: null, data };
}

/** The newest events, as rows of a list. */
export class Rows {
  #list;
  #kept = new Newest(KEPT_MAX, KEPT_CHARACTERS_MAX);
  #wanted = "";
  /** The time element of each row. */
  #times = new WeakMap();
  /** Formats the JSON of rows that come into sight. */
  #inSight;

  constructor(list) {
    this.#list = list;
    const look = (seen) => {
      for (const { target, isIntersecting } of seen) if (isIntersecting) this.#format(target);
    };
    this.#inSight = new IntersectionObserver(look, { root: list, rootMargin: "100%" });
  }

  get filter() {
    return this.#wanted;
  }

  /** Adds entries, oldest first. Only those that will stay become rows. */
  add(entries, now) {
    for (const entry of entries) this.#kept.push(entry, entry.data.length);
    this.#prepend(entries.filter((entry) => this.#wants(entry)), now);
  }

  /** Shows the kept events that contain this text. */
  setFilter(text, now) {
    this.#wanted = text.toLowerCase();
    this.#empty();
    this.#prepend(this.#kept.all().filter((entry) => this.#wants(entry)), now);
  }

  clear() {
    this.#kept.takeAll();
    this.#empty();
  }

  /** Updates the ages. */
  grow(now) {
    for (const row of this.#list.children) {
      const found = this.#times.get(row);
      const text = found && age(found.at, now);
      if (found && found.time.textContent !== text) found.time.textContent = text;
    }
  }

  /** A filter never hides a gap. */
  #wants(entry) {
    return entry.kind !== "event" || !this.#wanted || entry.searched.includes(this.#wanted);
  }

  #prepend(entries, now) {
    const made = entries.slice(-ROWS_MAX).map((entry) => this.#row(entry, now));
    const surplus = this.#list.children.length + made.length - ROWS_MAX;
    for (let left = surplus; left > 0; left -= 1) this.#remove(this.#list.lastElementChild);
    this.#list.prepend(...made.reverse());
    made.slice(0, FORMATTED_AT_ONCE).forEach((row) => this.#format(row));
  }

  #remove(row) {
    this.#inSight.unobserve(row);
    row.remove();
  }

  #empty() {
    this.#inSight.disconnect();
    this.#list.replaceChildren();
  }

  /** Formats the data of a row if it is JSON. */
  #format(row) {
    this.#inSight.unobserve(row);
    const data = row.querySelector("pre");
    const nodes = format(data.textContent);
    if (nodes) data.replaceChildren(...nodes);
  }

  #row(entry, now) {
    const row = element("li", entry.kind);
    const about = element("div", "about");
    if (entry.kind === "event") about.append(...named(entry));
    else about.append(element("span", "label", `gap: ${entry.reason}`));
    if (entry.id) about.append(this.#id(entry.id));
    if (entry.at !== null) {
      const time = element("time", "age", age(entry.at, now));
      const date = new Date(entry.at);
      time.dateTime = date.toISOString();
      time.title = date.toLocaleString();
      about.append(time);
      this.#times.set(row, { time, at: entry.at });
    }
    row.append(about, element("pre", "", entry.data.slice(0, SHOWN_MAX)));
    if (entry.kind === "event" && mayBeJson(entry.data)) this.#inSight.observe(row);
    const more = entry.data.length - SHOWN_MAX;
    if (more > 0) row.append(element("p", "soft", `and ${count(more)} characters more`));
    return row;
  }

  #id(id) {
    const button = element("button", "id", id);
    button.type = "button";
    button.tabIndex = -1;
    button.title = "Resume after this";
    return button;
  }
}

/** The addresses of an event, and its type. */
function named({ topics, clients, everyone, event }) {
  const parts = topics.map((topic) => element("span", "topic", plain(topic)));
  for (const client of clients) parts.push(element("span", "client", plain(client)));
  if (everyone) parts.push(element("span", "everyone", "everyone"));
  if (event) parts.push(element("span", "type", plain(event)));
  return parts;
}
