// The script of the dashboard. For each metric, it shows the newest value, and a line through the
// values that it has received.

/** The maximum number of points of a line. The server sends four values a second, so a line shows
 * one minute. */
const POINTS_MAX = 240;
/** The width and height of a plot in SVG units. The style sheet scales the plot to the card. */
const [WIDTH, HEIGHT] = [300, 80];
/** If the browser has stopped reconnecting, the page connects again after this time. A browser
 * waits a similar time before it reconnects. */
const RESTART_MS = 5000;

const STATES = { connecting: 'Connecting…', open: 'Live', reconnecting: 'Reconnecting…' };
const METRICS = {
  uptime: { title: 'Running for', unit: 's', digits: 1 },
  walk: { title: 'Random walk', unit: '', digits: 1 },
  memory: { title: 'Memory of the server', unit: 'MiB', digits: 1 },
  streams: { title: 'Open streams', unit: '', digits: 0 },
};

const [state, metrics, template] = ['state', 'metrics', 'card'].map((id) => document.getElementById(id));

function connect() {
  const source = new EventSource('/events');
  source.onopen = () => show('open');
  source.onerror = () => {
    show('reconnecting');
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RESTART_MS);
  };
  source.onmessage = (event) => hear(JSON.parse(event.data));
  // The server sends this event if it skipped values because the page was slow. The page ignores
  // the event, because only the newest value counts.
  source.addEventListener('downlink.gap', () => {});
}

function show(name) {
  state.dataset.state = name;
  state.textContent = STATES[name];
}

// --- Showing ---

/** The card of each metric, with the points of its line. */
const cards = new Map();

function hear(sample) {
  if (!Object.hasOwn(METRICS, sample.metric)) return;
  if (!cards.has(sample.metric)) cards.set(sample.metric, addCard(sample.metric));
  const card = cards.get(sample.metric);
  // If the time has gone back, the server was restarted. The old points do not fit the new times,
  // so the page removes the old points.
  if (card.points.at(-1)?.at_ms > sample.at_ms) card.points.length = 0;
  card.points.push(sample);
  if (card.points.length > POINTS_MAX) card.points.shift();
  draw(card);
}

function addCard(metric) {
  const { title } = METRICS[metric];
  const root = template.content.cloneNode(true).firstElementChild;
  root.dataset.metric = metric;
  root.setAttribute('aria-label', title);
  root.querySelector('h2').textContent = title;
  const order = Object.keys(METRICS);
  const next = [...metrics.children].find(
    (other) => order.indexOf(other.dataset.metric) > order.indexOf(metric),
  );
  metrics.insertBefore(root, next ?? null);
  const [value, range, plot, line] = ['.value', '.range', 'svg', 'polyline'].map((part) => root.querySelector(part));
  return { ...METRICS[metric], value, range, plot, line, points: [] };
}

function draw({ title, unit, digits, value, range, plot, line, points }) {
  const text = (number) => `${number.toFixed(digits)} ${unit}`.trimEnd();
  const values = points.map((point) => point.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  value.textContent = text(values.at(-1));
  range.textContent = `${text(low)} to ${text(high)}`;
  plot.setAttribute('aria-label', `${title}: from ${text(low)} to ${text(high)}`);
  line.setAttribute('points', lineOf(points, low, high));
}

/** The points of a line, in the format of the SVG attribute `points`. The newest point is at the
 * right edge. */
function lineOf(points, low, high) {
  const newest = points.at(-1).at_ms;
  const span = Math.max(newest - points[0].at_ms, 1);
  const place = ({ at_ms: at, value }) => {
    const x = WIDTH * (1 - (newest - at) / span);
    const y = high === low ? HEIGHT / 2 : HEIGHT * (1 - (value - low) / (high - low));
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  };
  return points.map(place).join(' ');
}

connect();
