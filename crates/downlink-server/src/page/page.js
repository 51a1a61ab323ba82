// The page of the server: one EventSource, one form to publish. What arrives is only ever text.
"use strict";

const EVENTS_MAX = 500; // Rows kept; a page left open over night stays small.

const by = (id) => document.getElementById(id);
let source = null;

function show(state, text) {
  by("state").dataset.state = state;
  by("state").textContent = text;
}

function row(about, text, name) {
  const item = document.createElement("li");
  const line = document.createElement("div");
  line.className = "about";
  for (const part of about.filter(Boolean)) {
    const span = document.createElement("span");
    span.textContent = part;
    line.append(span);
  }
  const data = document.createElement("pre");
  data.textContent = text;
  item.append(line, data);
  if (name) item.className = name;
  by("events").prepend(item);
  by("empty").hidden = true;
  while (by("events").children.length > EVENTS_MAX) by("events").lastChild.remove();
}

const time = () => new Date().toLocaleTimeString();

function received(event) {
  row([time(), event.lastEventId, event.type === "message" ? "" : event.type], event.data);
}

function gap(event) {
  const { reason, after, oldest } = JSON.parse(event.data);
  const next = oldest ? ` Events go on at ${oldest}.` : "";
  row([time(), "gap"], `Events after ${after ?? "the beginning"} are missing (${reason}).${next}`, "gap");
}

function leave(text = "not connected") {
  source?.close();
  source = null;
  by("leave").disabled = true;
  show("closed", text);
}

function subscribe(form) {
  leave("connecting …");
  const query = new URLSearchParams();
  for (const topic of form.get("topics").split(/\s+/).filter(Boolean)) query.append("topic", topic);
  if (form.get("client")) query.set("client", form.get("client"));
  query.set("start", form.get("start"));
  const opened = new EventSource(`/events?${query}`);
  source = opened;
  by("leave").disabled = false;
  opened.onopen = () => show("open", "connected");
  opened.onerror = () => {
    if (opened !== source) return;
    if (opened.readyState === EventSource.CLOSED) leave("refused: look at the address and the limits");
    else show("connecting", "connection lost, coming back …");
  };
  opened.onmessage = received;
  opened.addEventListener("downlink.gap", gap);
  for (const type of types) opened.addEventListener(type, received);
}

// An EventSource only hears the types it is told of; those published from here are known.
const types = new Set();

async function publish(form) {
  const query = new URLSearchParams({ topic: form.get("topic") });
  const type = form.get("event");
  if (type) {
    query.set("event", type);
    if (!types.has(type)) {
      types.add(type);
      source?.addEventListener(type, received);
    }
  }
  const answer = await fetch(`/events?${query}`, { method: "POST", body: form.get("data") });
  const body = await answer.json();
  const text = answer.ok
    ? `Published as ${body.id} to ${body.subscribers} ${body.subscribers === 1 ? "subscription" : "subscriptions"}.`
    : body.detail ?? body.title;
  by("published").textContent = text;
  by("published").className = answer.ok ? "" : "bad";
}

by("subscribe").addEventListener("submit", (event) => {
  event.preventDefault();
  subscribe(new FormData(event.target));
});
by("leave").addEventListener("click", () => leave());
by("publish").addEventListener("submit", (event) => {
  event.preventDefault();
  publish(new FormData(event.target)).catch((error) => {
    by("published").textContent = `The server did not answer: ${error.message}`;
    by("published").className = "bad";
  });
});
