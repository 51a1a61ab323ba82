// The event stream readers of each engine. Each client is one function, and all of them return
// results of the same form.
//
// A client takes a list of `{ url, types, count }`. For each stream, it returns a list of events
// `{ event, data, id }`. With `count`, the list has the first `count` events that are not control
// events of the server. Without `count`, it has all events up to the end of the stream.

import { EventSource } from 'eventsource';
import { createParser } from 'eventsource-parser';
import { fileURLToPath } from 'node:url';

import { start, stop } from './binaries.mjs';
import { plainReader } from './plain.mjs';

/** The clients of an engine by name. The argument is the same as for `run` of a check. */
export function clientsOf({ engine, browser, front }) {
  switch (engine) {
    case 'node':
      return {
        eventsource: oneByOne((stream) => readWithEventSource(EventSource, stream)),
        'eventsource-parser': oneByOne(readWithParser),
      };
    case 'python':
      return { 'httpx-sse': oneByOne(readWithPython) };
    case 'curl':
      return { curl: oneByOne(readWithCurl) };
    default:
      return { [engine]: (args) => browser.run({ base: front.base, args, page: readingPage }) };
  }
}

function oneByOne(read) {
  return async (streams) => {
    const results = [];
    for (const stream of streams) results.push(await read(stream));
    return results;
  };
}

/** One page reads all streams. With one browser window per stream, a check would take minutes. */
const readingPage = `async ({ args }) => {
  const oneByOne = ${oneByOne};
  const readWithEventSource = ${readWithEventSource};
  return oneByOne((stream) => readWithEventSource(EventSource, stream))(args);
}`;

/** This function also runs in pages, so it uses only its arguments. */
function readWithEventSource(EventSource, { url, types, count }) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    const events = [];
    const finish = () => {
      source.close();
      resolve(events);
    };
    // An event of type `error` from the stream has data. An `error` of the connection has no data.
    const hear = (event) => {
      if (typeof event.data !== 'string') return finish();
      events.push({ event: event.type, data: event.data, id: event.lastEventId });
      if (events.length === count) finish();
    };
    new Set(['message', 'error', ...types]).forEach((type) => source.addEventListener(type, hear));
  });
}

/** Collects events up to `count`. With `count`, it ignores control events of the server. */
function collector(count) {
  const events = [];
  return {
    events,
    add(event) {
      const own = event.event.startsWith('downlink.');
      if (count === undefined || !own) events.push(event);
    },
    full: () => count !== undefined && events.length >= count,
  };
}

async function readWithParser({ url, count }) {
  const found = collector(count);
  // The parser gives an id only with the event that has it, so this function keeps the last id.
  let id = '';
  const onEvent = (event) => {
    id = event.id ?? id;
    found.add({ event: event.event || 'message', data: event.data, id });
  };
  const parser = createParser({ onEvent });
  const decoder = new TextDecoder();
  const response = await fetch(url);
  for await (const chunk of response.body) {
    parser.feed(decoder.decode(chunk, { stream: true }));
    if (found.full()) break;
  }
  return found.events.slice(0, count);
}

async function readWithPython({ url, count }) {
  const script = fileURLToPath(new URL('../clients/httpx_sse_reader.py', import.meta.url));
  const python = process.env.DOWNLINK_PYTHON ?? 'python3';
  const found = collector(count);
  let rest = '';
  await readOutput(python, [script, url], (bytes) => {
    const lines = (rest + bytes.toString()).split('\n');
    rest = lines.pop();
    lines.forEach((line) => found.add(JSON.parse(line)));
    return found.full();
  });
  return found.events.slice(0, count);
}

async function readWithCurl({ url, count }) {
  const found = collector(count);
  const reader = plainReader();
  await readOutput('curl', ['--silent', '--show-error', '--no-buffer', '--fail', url], (bytes) => {
    reader.read(bytes).forEach(found.add);
    return found.full();
  });
  reader.end().forEach(found.add);
  return found.events.slice(0, count);
}

/** Runs a program until it ends or `hear(bytes)` returns true. */
async function readOutput(program, args, hear) {
  const child = start(program, args);
  let said = '';
  child.stderr.on('data', (bytes) => {
    said += bytes;
  });
  const ended = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  let enough = false;
  for await (const bytes of child.stdout) {
    enough = hear(bytes);
    if (enough) break;
  }
  stop(child);
  const code = await ended;
  if (!enough && code !== 0 && code !== null) throw new Error(`${program} ended with ${code}: ${said}`);
}
