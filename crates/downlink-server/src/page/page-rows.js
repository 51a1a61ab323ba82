// The rows of the list of events. All received data is shown as text, never as HTML.

import { Newest } from "./page-feed.js";
import { format, mayBeJson } from "./page-json.js";
import { age, count, element, plain } from "./page-text.js";

/** The maximum number of rows. A browser can lay out this many within one frame. */
export const ROWS_MAX = 300;
/** The page keeps at most this many events for the filter, and at most the number of characters in
 * the next constant. */
export const KEPT_MAX = 2_000;
const KEPT_CHARACTERS_MAX = 4 * 1024 * 1024;
/** The maximum number of characters that a row shows: about two screens. */
const SHOWN_MAX = 4_000;
/** The number of new rows whose JSON is formatted as soon as the rows are added, so that visible
 * rows do not change their height. Other rows are formatted when they become visible, because very
 * many rows may arrive together. */
const FORMATTED_AT_ONCE = 12;

const REASONS = {
  evicted: "no longer kept",
  lagged: "this connection was too slow, and the events are no longer kept",
  new_epoch: "the id is from an earlier epoch of the server's history",
  unknown_id: "the server does not know the id",
  lost: "the id is newer than the newest event of the server",
  unreadable: "the store has the events but cannot read them",
};

/** Parses a received event into an entry, which also has the text that the filter searches. */
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
  const next = oldest ? ` The next event is ${oldest}.` : "";
  const data = `Events are missing ${from}${upTo}: ${REASONS[reason] ?? reason}.${next}`;
  return { kind: "gap", id, reason, at: null, data };
}

/** The list of rows, and the newest events. */
export class Rows {
  #list;
  #kept = new Newest(KEPT_MAX, KEPT_CHARACTERS_MAX);
  #wanted = "";
  /** The time element of each row. */
  #times = new WeakMap();
  /** Formats the JSON of rows that become visible. */
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

  /** Adds entries, oldest first. Only entries that fit into the list become rows. */
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

  /** Updates the ages in all rows. */
  grow(now) {
    for (const row of this.#list.children) {
      const found = this.#times.get(row);
      const text = found && age(found.at, now);
      if (found && found.time.textContent !== text) found.time.textContent = text;
    }
  }

  /** Whether the filter shows an entry. It hides only events, never a gap (a
   * notice of missing events). */
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
    button.title = "Resume after this event";
    return button;
  }
}

/** The elements for the addresses and the type of an event. */
function named({ topics, clients, everyone, event }) {
  const parts = topics.map((topic) => element("span", "topic", plain(topic)));
  for (const client of clients) parts.push(element("span", "client", plain(client)));
  if (everyone) parts.push(element("span", "everyone", "everyone"));
  if (event) parts.push(element("span", "type", plain(event)));
  return parts;
}
