// Every client reads the golden fixtures with the same result as the project's decoder.

import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';

import { deviation } from '../lib/deviations.mjs';
import { addFile } from '../lib/pages.mjs';
import { clientsOf } from '../lib/readers.mjs';

export const name = 'format_fixtures';
export const engines = ['chromium', 'firefox', 'node', 'python', 'curl'];
export const timeoutMs = 300_000;

const FOLDER = new URL('../../../crates/downlink-proto/tests/fixtures/', import.meta.url);

async function loadFixtures() {
  const names = (await readdir(FOLDER)).filter((file) => file.endsWith('.sse')).sort();
  assert.notEqual(names.length, 0, `no fixtures in ${FOLDER.pathname}`);
  return Promise.all(
    names.map(async (file) => {
      const fixture = file.slice(0, -'.sse'.length);
      const lines = (await readFile(new URL(`${fixture}.jsonl`, FOLDER), 'utf8')).split('\n');
      const expected = lines.filter((line) => line !== '').map((line) => normal(JSON.parse(line)));
      return { fixture, bytes: await readFile(new URL(file, FOLDER)), expected };
    }),
  );
}

/** Gives an event a common form, because clients represent missing values differently. */
function normal({ event, data, id }) {
  return { event: event || 'message', data, id: id ?? '' };
}

function isEqual(a, b) {
  try {
    assert.deepEqual(a, b);
    return true;
  } catch {
    return false;
  }
}

export async function run(tools) {
  const fixtures = await loadFixtures();
  const streams = fixtures.map(({ bytes, expected }) => ({
    url: tools.front.base + addFile(bytes, 'text/event-stream'),
    types: expected.map(({ event }) => event),
  }));
  const wrong = [];
  for (const [client, read] of Object.entries(clientsOf(tools))) {
    const results = await read(streams);
    fixtures.forEach(({ fixture, expected }, index) => {
      const events = results[index].map(normal);
      const reason = deviation(client, fixture);
      const equal = isEqual(events, expected);
      if (equal && reason) wrong.push(`${client} ${fixture}: now correct, remove the deviation (${reason})`);
      if (!equal && !reason) wrong.push(`${client} ${fixture}: ${shown(events)} is not ${shown(expected)}`);
      if (!equal && reason) console.log(`  known: ${client} ${fixture}: ${reason}`);
    });
  }
  assert.deepEqual(wrong, []);
}

/** The JSON of events, shortened for a log line. */
function shown(events) {
  const text = JSON.stringify(events);
  return text.length > 600 ? `${text.slice(0, 600)}… (${text.length} characters)` : text;
}
