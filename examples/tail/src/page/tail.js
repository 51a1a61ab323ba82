// The script of the page. It shows new lines as they arrive, as text and never as HTML.

/** The maximum number of lines and notices on the page. More would slow the page down. */
const SHOWN_MAX = 1000;
/** If the browser has stopped reconnecting, the page connects again after this time. A browser
 * waits a similar time before it reconnects. */
const RESTART_MS = 5000;
/** If the user has scrolled up by at most this many pixels, new lines scroll into view. */
const NEAR_BOTTOM = 60;

const STATES = { connecting: 'Connecting…', open: 'Following', reconnecting: 'Reconnecting…' };

const [state, scroller, lines, newest] = ['state', 'scroller', 'lines', 'newest'].map((id) =>
  document.getElementById(id),
);

/** The id of the last event received: the place in the file from which the server continues. */
let lastEventId = '';

function connect() {
  const query = lastEventId && `?last_event_id=${encodeURIComponent(lastEventId)}`;
  const source = new EventSource(`/events${query}`);
  source.onopen = () => show('open');
  source.onerror = () => {
    show('reconnecting');
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RESTART_MS);
  };
  const listen = (type, className) =>
    source.addEventListener(type, (event) => {
      lastEventId = event.lastEventId;
      if (className) append(className, event.data);
    });
  listen('message', 'line');
  listen('cut', 'line cut');
  listen('start', '');
  listen('rotated', 'notice');
  listen('truncated', 'notice');
}

function show(name) {
  state.dataset.state = name;
  state.textContent = STATES[name];
}

/** Adds an item at the end of the list. If the end was visible, the page scrolls down to the new
 * item. */
function append(className, text) {
  const follow = isAtBottom();
  const item = document.createElement('li');
  item.className = className;
  item.textContent = text;
  lines.append(item);
  while (lines.children.length > SHOWN_MAX) lines.firstChild.remove();
  if (follow) scrollToNewest();
  else newest.hidden = false;
}

function isAtBottom() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_BOTTOM;
}

function scrollToNewest() {
  scroller.scrollTop = scroller.scrollHeight;
  newest.hidden = true;
}

newest.addEventListener('click', scrollToNewest);
scroller.addEventListener('scroll', () => {
  if (isAtBottom()) newest.hidden = true;
});

connect();
