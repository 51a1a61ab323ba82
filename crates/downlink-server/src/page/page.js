// The page of the server: its forms, buttons and keys. This file also decides when the page draws.
// All received data is shown as text, never as HTML.

import { Feed } from "./page-feed.js";
import { Overview } from "./page-overview.js";
import { KEPT_MAX, ROWS_MAX, Rows, read } from "./page-rows.js";
import { Strip } from "./page-strip.js";
import { count } from "./page-text.js";

const by = (id) => document.getElementById(id);
const subscribing = by("subscribe");
const publishing = by("publish");
const events = by("events");

const rows = new Rows(events);
const feed = new Feed(show, plan);
const overview = new Overview({
  by,
  strip: new Strip(by),
  own: () => feed.connection,
  choose(topic) {
    subscribing.elements.topics.value = quoted(topic);
    subscribing.elements.after.value = "";
    subscribe();
  },
});

/** If more events than this arrive between two frames (1/60 s), the page draws only 10 times a
 * second, not 60 times. Without this pause, drawing would take all the time of the processor. */
const FLOOD_EVENTS = 50;
const FLOOD_PAUSE_MS = 100;

let paused = false;
let planned = false;
let flooded = false;
/** The number of events that were never shown because the queue was full. */
let unseen = 0;
/** Whether the form to subscribe closes when the server accepts the subscription. */
let closesWhenOpen = false;

const now = () => Date.now() + overview.clockAhead;

function show(state, text) {
  by("state").dataset.state = state;
  by("state").textContent = text;
  by("wanted").hidden = state === "closed";
  by("leave").disabled = state === "closed";
  if (state === "open" && closesWhenOpen) toggle("subscribe", false);
}

/** Opens or closes a form. If the closed form had the focus, the button of the form gets it. */
function toggle(name, opens) {
  const [panel, button] = [by(`${name}-panel`), by(`show-${name}`)];
  if (!opens && panel.contains(document.activeElement)) button.focus();
  panel.hidden = !opens;
  button.setAttribute("aria-expanded", String(opens));
  closesWhenOpen = false;
}

/** Opens a form and selects one of its fields. */
function openAt(form, field) {
  toggle(form.id, true);
  form.elements[field].focus();
  form.elements[field].select();
}

/** Makes the page draw at the next frame, or later if very many events arrive. Several calls before
 * the next drawing lead to only one drawing. */
function plan() {
  if (planned) return;
  planned = true;
  if (flooded) setTimeout(requestAnimationFrame, FLOOD_PAUSE_MS, draw);
  else requestAnimationFrame(draw);
}

function draw() {
  planned = false;
  if (!paused) {
    unseen += feed.waiting.lost;
    const entries = feed.waiting.takeAll().map(read);
    flooded = entries.length > FLOOD_EVENTS;
    rows.add(entries, now());
  }
  tellWaiting();
  tellMissing();
  by("empty").hidden = events.children.length > 0;
  by("empty").textContent = rows.filter
    ? "No events with this text."
    : "No events yet. Publish here or with curl.";
}

function tellWaiting() {
  const { length, lost } = feed.waiting;
  const gone = lost > 0 ? `, and ${count(lost)} older events will not be shown` : "";
  by("waiting").textContent = paused ? `Paused: ${count(length)} waiting${gone}.` : "";
}

/** Shows a note below the rows about events that are not shown. */
function tellMissing() {
  const shown = count(ROWS_MAX);
  const full = `Newest ${shown} shown; the filter searches ${count(KEPT_MAX)}.`;
  const gone = `${count(unseen)} events were never shown, because the queue was full.`;
  const parts = [events.children.length === ROWS_MAX && full, unseen > 0 && gone];
  by("note").textContent = parts.filter(Boolean).join(" ");
}

function pause(wanted) {
  paused = wanted;
  by("pause").setAttribute("aria-pressed", String(paused));
  by("pause").textContent = paused ? "Continue" : "Pause";
  plan();
}

/** Splits the text of the field for topics at spaces. A topic may be in quotes. A backslash escapes
 * a quote in a topic. */
function names(text) {
  const found = [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)];
  return found.map(([, inQuotes, plain]) => inQuotes?.replace(/\\(.)/g, "$1") ?? plain).filter(Boolean);
}

/** Writes a name in the form that `names` reads. */
const quoted = (name) => (/[\s"]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name);

/** The subscription that the form describes. */
function wanted() {
  const { topics, client, start, after } = subscribing.elements;
  const query = new URLSearchParams();
  for (const topic of names(topics.value)) query.append("topic", topic);
  if (client.value) query.set("client", client.value);
  if (after.value.trim()) query.set("last_event_id", after.value.trim());
  else query.set("start", start.value);
  return query;
}

/** Subscribes as the form says. Clears the list, unless the subscription resumes after an id. */
function subscribe() {
  const query = wanted();
  // The subscription is stored in the address of the page, so a reload or a shared link opens it
  // again.
  history.replaceState(null, "", `#${query}`);
  closesWhenOpen = true;
  if (!query.has("last_event_id")) clear();
  follow(query);
}

/** Subscribes, and shows the topics and the client of the subscription. */
function follow(query) {
  const topics = query.getAll("topic").map(quoted).join(" ");
  const client = query.get("client");
  const parts = [topics === "*" ? "all topics" : topics, client && `client ${client}`];
  by("wanted").textContent = parts.filter(Boolean).join(", ") || "events for everyone";
  feed.subscribe(query);
}

/** Subscribes as the address of the page says. If the address names no subscription, subscribes to
 * all topics. */
function begin() {
  const query = new URLSearchParams(location.hash.slice(1));
  if (query.size === 0) return follow(wanted());
  const { topics, client, start, after } = subscribing.elements;
  topics.value = query.getAll("topic").map(quoted).join(" ");
  client.value = query.get("client") ?? "";
  after.value = query.get("last_event_id") ?? "";
  const known = [...start.options].some(({ value }) => value === query.get("start"));
  start.value = known ? query.get("start") : "live";
  subscribe();
}

async function publish() {
  const { topic, client, event, everyone, data } = publishing.elements;
  const query = new URLSearchParams();
  for (const field of [topic, client, event]) if (field.value) query.set(field.name, field.value);
  if (everyone.checked) query.set("everyone", "true");
  const answer = await fetch(`events?${query}`, { method: "POST", body: data.value });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? body.title);
  const to = `${count(body.subscribers)} ${body.subscribers === 1 ? "subscription" : "subscriptions"}`;
  return `Published as ${body.id} to ${to}.`;
}

function tellPublished(text, className) {
  by("published").textContent = text;
  by("published").className = className;
}

/** Writes the id of a row into the field of the id to resume after. */
function resumeFrom(id) {
  subscribing.elements.after.value = id;
  openAt(subscribing, "after");
}

/** Moves the focus between the ids of the rows. The Tab key skips all ids except one. */
function move(steps) {
  const ids = [...events.querySelectorAll("button.id")];
  const at = ids.indexOf(document.activeElement);
  ids[Math.min(Math.max(at + steps, 0), ids.length - 1)]?.focus();
}

const KEYS = {
  s: () => openAt(subscribing, "topics"),
  n: () => openAt(publishing, "data"),
  f: () => by("filter").select(),
  "/": () => by("filter").select(),
  e: () => events.focus(),
  p: () => pause(!paused),
  l: () => feed.leave(),
  c: () => clear(),
  "?": () => {
    by("keys").open = !by("keys").open;
    by("keys").querySelector("summary").focus();
  },
};

function clear() {
  rows.clear();
  feed.waiting.takeAll();
  unseen = 0;
  plan();
}

function setFilter(text) {
  rows.setFilter(text, now());
  plan();
}

/** The Escape key: the first press clears the filter, the next one closes the list of keyboard
 * shortcuts, and the next one leaves the field and its form. */
function escape(target) {
  if (target === by("filter") && target.value) {
    target.value = "";
    setFilter("");
  } else if (by("keys").open) by("keys").open = false;
  else {
    target.blur();
    if (publishing.contains(target)) toggle("publish", false);
    if (subscribing.contains(target)) toggle("subscribe", false);
  }
}

const isField = (target) => target.matches("input:not([type=checkbox]), select, textarea");

function press(event) {
  if (event.key === "Escape") return escape(event.target);
  if (event.key === "Enter" && event.ctrlKey && event.target === publishing.elements.data) {
    return publishing.requestSubmit();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && events.contains(event.target)) {
    event.preventDefault();
    return move(step);
  }
  if (!by("letters").checked || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
}

/** Updates the shown number of events and the ages of the rows, once a second. */
function tick(before) {
  const { received } = feed;
  const rate = received - before;
  by("counts").textContent = rate > 0 ? `${count(received)}, ${count(rate)} a second` : count(received);
  rows.grow(now());
  setTimeout(tick, 1_000, received);
}

subscribing.addEventListener("submit", (event) => {
  event.preventDefault();
  subscribe();
});
publishing.addEventListener("submit", (event) => {
  event.preventDefault();
  publish().then(
    (text) => tellPublished(text, ""),
    (error) => tellPublished(error.message, "bad"),
  );
});
for (const form of [subscribing, publishing]) {
  by(`show-${form.id}`).addEventListener("click", () => {
    if (by(`${form.id}-panel`).hidden) openAt(form, form === subscribing ? "topics" : "data");
    else toggle(form.id, false);
  });
}
by("leave").addEventListener("click", () => feed.leave());
by("pause").addEventListener("click", () => pause(!paused));
by("clear").addEventListener("click", clear);
by("filter").addEventListener("input", (event) => setFilter(event.target.value));
by("prefix").addEventListener("input", (event) => overview.setPrefix(event.target.value));
events.addEventListener("click", (event) => {
  if (event.target.matches("button.id")) resumeFrom(event.target.textContent);
});
document.addEventListener("keydown", press);

tick(0);
overview.look();
begin();
