// The strip of numbers: connections, rates, lag, memory and store. Each number has a graph of the last two
// minutes. A number that the server does not send is shown as a dash.

import { compact, element, rate, short } from "./page-text.js";

/** The points of a graph: one every two seconds, for two minutes. */
const POINTS_MAX = 60;
const SVG = "http://www.w3.org/2000/svg";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Reads the metrics that have no labels, and those of the public listener. Returns their values by
 * name. */
export function parseMetrics(text) {
  const found = [...text.matchAll(/^([a-z_]+)(?:\{listener="public"\})? ([0-9.eE+-]+)$/gm)];
  return new Map(found.map(([, name, value]) => [name, Number(value)]));
}

/** The text of a number of bytes, as `[number, unit]`. */
function bytes(number) {
  const step = Math.min(Math.floor(Math.log2(Math.max(number, 1)) / 10), UNITS.length - 1);
  const scaled = number / 1024 ** step;
  return [step > 0 && scaled < 100 ? scaled.toFixed(1) : short(Math.round(scaled)), UNITS[step]];
}

/** A number with its unit and its graph. */
class Tile {
  #value = element("span", "value", "–");
  #unit = element("span", "unit", "");
  #area = document.createElementNS(SVG, "polygon");
  #line = document.createElementNS(SVG, "polyline");
  #points = [];
  #write;

  /** `write(number)` returns the text of a number, and its unit. */
  constructor(place, write) {
    this.#write = write;
    const graph = document.createElementNS(SVG, "svg");
    graph.setAttribute("viewBox", `0 0 ${POINTS_MAX - 1} 1`);
    graph.setAttribute("preserveAspectRatio", "none");
    graph.setAttribute("aria-hidden", "true");
    graph.append(this.#area, this.#line);
    const text = element("span", "text");
    text.append(this.#value, this.#unit);
    place.append(text, graph);
  }

  /** Adds a number, or null if it is unknown. */
  add(number) {
    const [text, unit] = number === null ? ["–", ""] : this.#write(number);
    this.#value.textContent = text;
    this.#unit.textContent = unit;
    this.#points.push(number);
    if (this.#points.length > POINTS_MAX) this.#points.shift();
    this.#draw();
  }

  /** Draws the graph, with the newest point at the right. The graph begins after the last unknown
   * number. */
  #draw() {
    const known = this.#points.slice(this.#points.lastIndexOf(null) + 1);
    const most = Math.max(...known, 1);
    const first = POINTS_MAX - known.length;
    const line = known.map((number, at) => `${first + at},${(1 - number / most).toFixed(3)}`);
    this.#line.setAttribute("points", line.join(" "));
    const corners = known.length > 0 ? [`${first},1`, ...line, `${POINTS_MAX - 1},1`] : [];
    this.#area.setAttribute("points", corners.join(" "));
  }
}

/** All tiles of the strip. */
export class Strip {
  #tiles;
  #memoryTitle;
  /** The maximum number of connections, or null if it is unknown. */
  #connectionsMax = null;
  /** The counters from the last answer, and the time of this answer. */
  #before = { counters: new Map(), at: 0 };

  /** `by(id)` finds an element. */
  constructor(by) {
    const number = (value) => [short(value), ""];
    const perSecond = (value) => [rate(value), "/s"];
    this.#memoryTitle = by("memory-title");
    this.#tiles = {
      connections: new Tile(by("connections"), (value) => [
        short(value),
        this.#connectionsMax === null ? "" : `of ${compact(this.#connectionsMax)}`,
      ]),
      published: new Tile(by("events-in"), perSecond),
      delivered: new Tile(by("deliveries-out"), perSecond),
      lag: new Tile(by("largest-lag"), (value) => [short(value), value === 1 ? "event" : "events"]),
      memory: new Tile(by("memory"), bytes),
      store: new Tile(by("store"), bytes),
    };
  }

  /** Shows new numbers. `counters` are the metrics by name, and `lag` is the largest lag. */
  show({ counters, lag, at = performance.now() }) {
    const of = (name) => counters.get(`downlink_${name}`) ?? null;
    const since = (name) => this.#rateOf(`downlink_${name}_total`, counters, at);
    this.#connectionsMax = of("connections_max");
    this.#tiles.connections.add(of("connections") ?? of("subscribers"));
    this.#tiles.published.add(since("events_published"));
    this.#tiles.delivered.add(since("events_delivered"));
    this.#tiles.lag.add(lag);
    this.#showMemory(counters.get("process_resident_memory_bytes"), of("bytes_kept"));
    const [file, log] = [of("store_bytes"), of("store_wal_bytes")];
    this.#tiles.store.add(file === null ? null : file + (log ?? 0));
    this.#before = { counters, at };
  }

  /** Shows the memory of the process, or the bytes of history if the memory is unknown. */
  #showMemory(resident, history) {
    const title = resident === undefined ? "History in memory" : "Memory";
    if (this.#memoryTitle.textContent !== title) this.#memoryTitle.textContent = title;
    this.#tiles.memory.add(resident ?? history);
  }

  /** The rate of a counter. Null if the server has restarted, because it then counts from 0. */
  #rateOf(name, counters, at) {
    const [before, now] = [this.#before.counters.get(name), counters.get(name)];
    if (before === undefined || now === undefined || now < before) return null;
    return ((now - before) * 1_000) / (at - this.#before.at);
  }
}
