// The script of the page. It sends a prompt, shows the tokens of the answer as they arrive, and can
// stop the answer. The answer's id is in the page's URL, so a reloaded page reads the answer from
// its beginning. The script shows tokens as text, never as HTML.

/** If the browser has stopped reconnecting, the page connects again after this time. A browser
 * waits a similar time before it reconnects. */
const RESTART_MS = 5000;

const STATES = {
  idle: 'Nothing asked yet',
  connecting: 'Connecting…',
  open: 'Answering',
  reconnecting: 'Reconnecting…',
  done: 'Answered',
  failed: 'Not found',
};
const ENDINGS = {
  complete: '',
  stopped: 'The answer was stopped here.',
  unheard: 'The answer stopped here, because no page was reading it.',
};

const [state, form, prompt, ask, stop, problem, reply, answer, ending] = [
  'state', 'form', 'prompt', 'ask', 'stop', 'problem', 'reply', 'answer', 'ending',
].map((id) => document.getElementById(id));

const idInAddress = () => location.hash.slice(1);
const pathOf = (id) => `/answers/${encodeURIComponent(id)}`;

let source;
let restart;

function show(name) {
  state.dataset.state = name;
  state.textContent = STATES[name];
  stop.disabled = !['open', 'reconnecting'].includes(name);
}

// --- Listening ---

/** If the page's URL has the id of an answer, reads the answer from its beginning. */
function listen() {
  source?.close();
  clearTimeout(restart);
  const id = idInAddress();
  reply.hidden = id === '';
  answer.textContent = '';
  ending.textContent = '';
  if (id === '') return show('idle');
  show('connecting');
  source = new EventSource(pathOf(id));
  source.onopen = () => show('open');
  source.onerror = () => wonder(id);
  source.onmessage = (event) => hear(JSON.parse(event.data));
  // The server skipped some tokens. The hub still has the whole answer, so the page reads it again
  // from its beginning.
  source.addEventListener('downlink.gap', listen);
}

function hear({ token, end }) {
  if (token !== undefined) return answer.append(token);
  source.close();
  ending.textContent = ENDINGS[end];
  show('done');
}

/** Called when the stream fails. If the browser has stopped reconnecting, this function sends the
 * request again to learn why. If the response is a 404, the answer does not exist, and the function
 * shows the error. After any other outcome, it reads the answer again later. */
async function wonder(id) {
  show('reconnecting');
  if (source.readyState !== EventSource.CLOSED) return;
  const aborted = new AbortController();
  try {
    const response = await fetch(pathOf(id), { signal: aborted.signal });
    if (response.status !== 404) throw new Error('worth another try');
    const { detail } = await response.json();
    ending.textContent = detail;
    show('failed');
  } catch {
    restart = setTimeout(listen, RESTART_MS);
  }
  aborted.abort();
}

// --- Asking and stopping ---

async function post(path, body) {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(path, { method: 'POST', headers, body });
  if (response.ok) return response.status === 204 ? null : response.json();
  const { detail } = await response.json();
  throw new Error(detail);
}

/** Calls a function. If the call fails, shows the error. */
async function attempt(what, tried) {
  try {
    await tried();
    complain('');
  } catch (error) {
    const reason = error instanceof TypeError ? 'The server cannot be reached.' : error.message;
    complain(`${what} ${reason}`);
  }
}

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  ask.disabled = true;
  await attempt('Your question was not sent.', async () => {
    const { id } = await post('/ask', JSON.stringify({ prompt: prompt.value }));
    location.hash = id;
  });
  ask.disabled = false;
});

stop.addEventListener('click', () =>
  attempt('The answer was not stopped.', () => post(`${pathOf(idInAddress())}/stop`)),
);

function complain(sentence) {
  problem.textContent = sentence;
  problem.hidden = sentence === '';
}

window.addEventListener('hashchange', listen);
listen();
