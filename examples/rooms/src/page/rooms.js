// The script of the rooms. It signs the user in, shows who is in the room and who is typing, shows
// the messages, and sends new ones. The room's name is in the page's URL. The script shows messages
// as text, never as HTML.

/** The maximum number of messages and notices on the page. More would slow the page down. */
const SHOWN_MAX = 500;
/** If the browser has stopped reconnecting, the page connects again after this time. A browser
 * waits a similar time before it reconnects. */
const RESTART_MS = 5000;
/** How long the page shows that a user is typing, after the last typing notice of this user. */
const TYPING_MS = 3000;
/** The minimum time between two typing notices that this page sends. It is half of TYPING_MS, so
 * that the next notice arrives before other pages stop showing this user. */
const TYPING_EVERY_MS = 1500;
/** If the user has scrolled up by at most this many pixels, new messages scroll into view. */
const NEAR_BOTTOM = 60;

const STATES = {
  connecting: 'Connecting…',
  open: 'Connected',
  reconnecting: 'Reconnecting…',
  idle: 'Signed out',
  failed: 'No access to this room',
};

const [title, state, rooms, door, name, refused, inside, people, leave, scroller, messages, typing, form, text, problem] = [
  'room', 'state', 'rooms', 'door', 'name', 'refused', 'inside', 'people', 'leave', 'scroller', 'messages', 'typing', 'form', 'text', 'problem',
].map((id) => document.getElementById(id));

let me;
let room;
let sources = [];
let restart;

const at = (path) => `${path}?room=${encodeURIComponent(room)}`;

function show(name) {
  state.dataset.state = name;
  state.textContent = STATES[name];
}

/** Sends a request. If the answer is a problem document, throws an error with the document's
 * detail. */
async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response.headers.get('content-type')?.includes('json') ? response.json() : null;
  const { detail } = await response.json();
  throw Object.assign(new Error(detail), { status: response.status });
}

const sentence = (error) => (error instanceof TypeError ? 'The server cannot be reached.' : error.message);

function complain(element, said) {
  element.textContent = said;
  element.hidden = said === '';
}

// --- Signing in and out ---

async function begin() {
  try {
    me = await ask('/me');
    enter();
  } catch (error) {
    if (error.status === 401) showDoor();
    else retry(begin);
  }
}

function retry(what) {
  show('reconnecting');
  restart = setTimeout(what, RESTART_MS);
}

function showDoor() {
  close();
  me = undefined;
  inside.hidden = true;
  rooms.hidden = true;
  door.hidden = false;
  title.textContent = 'Rooms';
  show('idle');
  name.focus();
}

door.addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    await ask('/sign-in', { method: 'POST', body: new URLSearchParams({ user: name.value }) });
    complain(refused, '');
    await begin();
  } catch (error) {
    complain(refused, sentence(error));
  }
});

leave.addEventListener('click', async () => {
  try {
    await ask('/sign-out', { method: 'POST' });
    showDoor();
  } catch (error) {
    if (error.status === 401) showDoor();
    else complain(problem, sentence(error));
  }
});

// --- The room ---

function close() {
  sources.forEach((source) => source.close());
  sources = [];
  clearTimeout(restart);
}

/** Joins the room whose name is in the page's URL. */
function enter() {
  if (!me) return;
  close();
  room = location.hash.slice(1) || me.rooms[0];
  title.textContent = room;
  door.hidden = true;
  inside.hidden = false;
  rooms.hidden = false;
  rooms.replaceChildren(...me.rooms.map(linkTo));
  messages.replaceChildren();
  shown.clear();
  complain(problem, '');
  showPeople({ version: 0, people: [] }, true);
  typists.clear();
  showTypists();
  connect();
  text.focus();
}

function linkTo(other) {
  const link = element('a', '', other);
  link.href = `#${other}`;
  if (other === room) link.setAttribute('aria-current', 'page');
  return link;
}

function connect() {
  show('connecting');
  const source = new EventSource(at('/events'));
  const typed = new EventSource(at('/typing'));
  sources = [source, typed];
  source.onopen = () => show('open');
  source.onerror = () => {
    show('reconnecting');
    if (source.readyState === EventSource.CLOSED) wonder();
  };
  const listen = (type, hear) =>
    source.addEventListener(type, (event) => hear(JSON.parse(event.data), event.lastEventId));
  listen('message', showMessage);
  listen('presence', showPresence);
  listen('downlink.open', askForPeople);
  listen('downlink.gap', () => append(element('li', 'notice', 'Some messages are missing here.')));
  listen('downlink.alive', () => {});
  typing.dataset.state = 'connecting';
  typed.onopen = () => {
    typing.dataset.state = 'open';
  };
  typed.addEventListener('typing', (event) => showTyping(JSON.parse(event.data).user));
}

/** Called when the browser has stopped reconnecting. Finds out the reason: the session has ended,
 * the user may not join the room, or the server is down. */
async function wonder() {
  close();
  try {
    await ask(at('/people'));
    retry(connect);
  } catch (error) {
    if (error.status === 401) return showDoor();
    if (![400, 403].includes(error.status)) return retry(connect);
    show('failed');
    complain(problem, error.message);
  }
}

async function askForPeople() {
  const asked = room;
  try {
    const answer = await ask(at('/people'));
    if (asked === room) showPeople(answer);
  } catch {
    // The page gets the list again when the next user joins or leaves.
  }
}

let newest = 0;

function showPeople({ version, people: names }, anew = false) {
  if (!anew && version < newest) return;
  newest = version;
  people.textContent = names.join(', ') || 'nobody yet';
}

/** The ids of the events on the page. After a gap (a notice that events are missing), the server
 * may send some events again. The page must not show them twice. */
const shown = new Set();

function showPresence(presence, id) {
  showPeople(presence);
  if (shown.has(id)) return;
  shown.add(id);
  const { user, came } = presence;
  const item = element('li', 'notice', came ? `${user} joined.` : `${user} left.`);
  item.dataset.id = id;
  append(item);
  if (!came) stopTyping(user);
}

function showMessage(message, id) {
  if (shown.has(id)) return;
  shown.add(id);
  stopTyping(message.user);
  const item = element('li', 'message');
  item.dataset.id = id;
  const said = element('p', 'said', message.text);
  said.dir = 'auto';
  const when = new Date(message.at);
  const time = element('time', '', when.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
  time.dateTime = message.at;
  item.append(element('bdi', 'user', message.user), time, said);
  append(item);
}

/** Adds an item at the end of the list. If the end was visible, the page scrolls down to the new
 * item. */
function append(item) {
  const follow = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_BOTTOM;
  messages.append(item);
  while (messages.children.length > SHOWN_MAX) {
    shown.delete(messages.firstChild.dataset.id);
    messages.firstChild.remove();
  }
  if (follow) scroller.scrollTop = scroller.scrollHeight;
}

function element(tag, className, content = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = content;
  return made;
}

// --- Typing ---

/** The users who are typing. Each has a timer, which removes the user when no further notice
 * arrives. */
const typists = new Map();

function showTyping(user) {
  if (user === me?.user) return;
  clearTimeout(typists.get(user));
  typists.set(user, setTimeout(() => stopTyping(user), TYPING_MS));
  showTypists();
}

function stopTyping(user) {
  clearTimeout(typists.get(user));
  typists.delete(user);
  showTypists();
}

function showTypists() {
  const names = [...typists.keys()];
  typing.textContent = names.length === 0 ? '' : `${names.join(', ')} ${names.length === 1 ? 'is' : 'are'} typing…`;
}

let saidAt = 0;

text.addEventListener('input', () => {
  if (text.value === '' || Date.now() - saidAt < TYPING_EVERY_MS) return;
  saidAt = Date.now();
  // If this notice is lost, the page soon sends the next notice, so it ignores the error.
  ask(at('/typing'), { method: 'POST' }).catch(() => {});
});

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const written = text.value;
  if (written.trim() === '') return;
  try {
    const headers = { 'content-type': 'application/json' };
    await ask(at('/messages'), { method: 'POST', headers, body: JSON.stringify({ text: written }) });
    if (text.value === written) text.value = '';
    saidAt = 0;
    complain(problem, '');
    scroller.scrollTop = scroller.scrollHeight;
  } catch (error) {
    complain(problem, `Your message was not sent. ${sentence(error)}`);
  }
});

window.addEventListener('hashchange', enter);
begin();
