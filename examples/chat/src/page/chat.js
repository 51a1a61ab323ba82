// The script of the chat. It shows messages from the server and sends new messages. It shows
// messages as text, never as HTML.

/** The maximum number of messages and notices on the page. More would slow the page down. */
const SHOWN_MAX = 500;
/** If the browser has stopped reconnecting, the page connects again after this time. A browser
 * waits a similar time before it reconnects. */
const RESTART_MS = 5000;
/** If nothing arrives for this many keep-alive intervals, the page replaces the connection. With a
 * lower number, one late keep-alive might end a working connection. */
const SILENT_KEEP_ALIVES = 3;
/** If the user has scrolled up by at most this many pixels, new messages scroll into view. */
const NEAR_BOTTOM = 60;

const STATES = { connecting: 'Connecting…', open: 'Connected', reconnecting: 'Reconnecting…' };
const GAPS = {
  new_epoch: 'The server has restarted. Messages from before may be missing.',
  other: 'Some messages are missing here.',
};

const [state, scroller, messages, newest, form, problem, user, text] = [
  'state', 'scroller', 'messages', 'newest', 'form', 'problem', 'user', 'text',
].map((id) => document.getElementById(id));

// --- Receiving ---

/** The id of the newest event of any type. */
let lastEventId = '';
let heardAt = 0;
let keepAliveMs = Infinity;
let source;

function connect() {
  const query = lastEventId && `?last_event_id=${encodeURIComponent(lastEventId)}`;
  source = new EventSource(`/events${query}`);
  source.onopen = () => show('open');
  source.onerror = () => {
    show('reconnecting');
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RESTART_MS);
  };
  listen('message', (data, id) => showMessage(id, data));
  listen('downlink.gap', (data) => append(notice(GAPS[data.reason] ?? GAPS.other)));
  listen('downlink.open', (data) => {
    keepAliveMs = data.keep_alive_ms || Infinity;
  });
  listen('downlink.alive', () => {});
}

function listen(type, hear) {
  source.addEventListener(type, (event) => {
    heardAt = Date.now();
    // On a new connection, the id is empty until an event with an id arrives. Until then, the page
    // keeps the id from the previous connection.
    lastEventId = event.lastEventId || lastEventId;
    hear(JSON.parse(event.data), event.lastEventId);
  });
}

/** Replaces a dead connection. After the computer has slept or the network has failed, the browser
 * may still show a dead connection as open. */
function checkSilence() {
  const silent = Date.now() - heardAt > SILENT_KEEP_ALIVES * keepAliveMs;
  if (!silent || source.readyState !== EventSource.OPEN) return;
  source.close();
  show('reconnecting');
  connect();
}

function show(name) {
  if (name === 'open') heardAt = Date.now();
  state.dataset.state = name;
  state.textContent = STATES[name];
}

// --- Showing ---

/** The ids of the events on the page. After a gap (a notice that events are missing), the server
 * may send some events again. The page must not show them twice. */
const shown = new Set();

function showMessage(id, message) {
  if (shown.has(id)) return;
  shown.add(id);
  const item = element('li', 'message');
  item.dataset.id = id;
  const name = element('bdi', 'user', message.user);
  name.style.setProperty('--hue', hueOf(message.user));
  const at = new Date(message.timestamp);
  const time = element('time', '', at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
  time.dateTime = message.timestamp;
  time.title = at.toLocaleString();
  const said = element('p', 'said', message.text);
  said.dir = 'auto';
  item.append(name, time, said);
  append(item);
}

function notice(sentence) {
  return element('li', 'notice', sentence);
}

/** Adds an item at the end of the list. If the end was visible, the page scrolls down to the new
 * item. */
function append(item) {
  const follow = isAtBottom();
  messages.append(item);
  while (messages.children.length > SHOWN_MAX) {
    shown.delete(messages.firstChild.dataset.id);
    messages.firstChild.remove();
  }
  if (follow) scrollToNewest();
  else newest.hidden = false;
}

function element(tag, className, content = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = content;
  return made;
}

/** The colour of a name. It depends only on the name, so all users see the same colour. */
function hueOf(name) {
  let hue = 0;
  for (const character of name) hue = (hue * 31 + character.codePointAt(0)) % 360;
  return hue;
}

function isAtBottom() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_BOTTOM;
}

function scrollToNewest() {
  scroller.scrollTop = scroller.scrollHeight;
  newest.hidden = true;
}

// --- Sending ---

async function send() {
  const body = JSON.stringify({ user: user.value, text: text.value });
  const headers = { 'content-type': 'application/json' };
  const response = await fetch('/messages', { method: 'POST', headers, body });
  if (response.ok) return;
  const { detail } = await response.json();
  throw new Error(detail);
}

let sending = false;

async function submit(event) {
  event.preventDefault();
  if (sending || text.value.trim() === '') return;
  const written = text.value;
  sending = true;
  try {
    await send();
    if (text.value === written) text.value = '';
    complain('');
    scrollToNewest();
  } catch (error) {
    const reason = error instanceof TypeError ? 'The server cannot be reached.' : error.message;
    complain(`Your message was not sent. ${reason}`);
  }
  sending = false;
  text.focus();
}

function complain(sentence) {
  problem.textContent = sentence;
  problem.hidden = sentence === '';
}

form.addEventListener('submit', submit);
newest.addEventListener('click', () => {
  scrollToNewest();
  text.focus();
});
scroller.addEventListener('scroll', () => {
  if (isAtBottom()) newest.hidden = true;
});

try {
  user.value = localStorage.getItem('user') ?? '';
  user.addEventListener('change', () => localStorage.setItem('user', user.value));
} catch {
  // If storage is disabled, the user has to type the name on each visit.
}

connect();
setInterval(checkSilence, 1000);
