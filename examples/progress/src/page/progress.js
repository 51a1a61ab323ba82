// The script of the page. It starts a job and shows the job's progress. The job's id is in the
// page's URL, so a reloaded page shows the same job. The script shows input as text, never as HTML.

/** If the browser has stopped reconnecting, the page connects again after this time. A browser
 * waits a similar time before it reconnects. */
const RESTART_MS = 5000;

const STATES = {
  idle: 'No job yet',
  connecting: 'Connecting…',
  open: 'Running',
  reconnecting: 'Reconnecting…',
  done: 'Done',
  failed: 'Failed',
};

const [state, form, numbers, start, problem, job, found, count, bar, failure, results] = [
  'state', 'form', 'numbers', 'start', 'problem', 'job', 'found', 'count', 'bar', 'error', 'results',
].map((id) => document.getElementById(id));

let source;
let restart;

function show(name) {
  state.dataset.state = name;
  job.dataset.state = name;
  state.textContent = STATES[name];
}

// --- Watching ---

/** If the page's URL has the id of a job, shows the progress of this job. */
function watch() {
  source?.close();
  clearTimeout(restart);
  const id = location.hash.slice(1);
  job.hidden = id === '';
  if (id === '') return show('idle');
  showProgress({ done: 0, steps: 1 });
  show('connecting');
  source = new EventSource(`/jobs/${encodeURIComponent(id)}/events`);
  source.onopen = () => show('open');
  source.onerror = () => wonder(id);
  source.onmessage = (event) => hear(JSON.parse(event.data));
  // The server sends this event if it skipped other events. The page ignores it, because each event
  // of a job has the whole state.
  source.addEventListener('downlink.gap', () => {});
}

function hear(progress) {
  showProgress(progress);
  if (progress.state === 'running') return;
  source.close();
  show(progress.state);
}

/** Called when the stream fails. If the browser has stopped reconnecting, this function sends the
 * request again to learn why. If the response is a 404, the job does not exist, and the function
 * shows the error. After any other outcome, it watches the job again later. */
async function wonder(id) {
  show('reconnecting');
  if (source.readyState !== EventSource.CLOSED) return;
  const aborted = new AbortController();
  try {
    const { signal } = aborted;
    const response = await fetch(`/jobs/${encodeURIComponent(id)}/events`, { signal });
    if (response.status !== 404) throw new Error('worth another try');
    const { detail } = await response.json();
    showProgress({ done: 0, steps: 1, error: detail });
    show('failed');
  } catch {
    restart = setTimeout(watch, RESTART_MS);
  }
  aborted.abort();
}

function showProgress({ state: progressed, done, steps, found: newest, results: all, error }) {
  const isDone = progressed === 'done';
  bar.max = steps;
  bar.value = isDone ? steps : done;
  count.textContent = progressed ? `${bar.value} of ${steps}` : '';
  found.textContent = isDone ? 'All steps are done.' : (newest ?? '');
  failure.textContent = error ?? '';
  failure.hidden = !error;
  results.replaceChildren(...(all ?? []).map((result) => {
    const item = document.createElement('li');
    item.textContent = result;
    return item;
  }));
}

// --- Starting ---

async function order() {
  const body = JSON.stringify({ numbers: numbers.value });
  const headers = { 'content-type': 'application/json' };
  const response = await fetch('/jobs', { method: 'POST', headers, body });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer.id;
}

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  start.disabled = true;
  try {
    location.hash = await order();
    complain('');
  } catch (error) {
    const reason = error instanceof TypeError ? 'The server cannot be reached.' : error.message;
    complain(`The job was not started. ${reason}`);
  }
  start.disabled = false;
});

function complain(sentence) {
  problem.textContent = sentence;
  problem.hidden = sentence === '';
}

window.addEventListener('hashchange', watch);
watch();
