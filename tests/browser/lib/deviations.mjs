// The fixtures that foreign clients read differently from the standard, with the reasons.
//
// Each deviation is checked too: if the client reads a fixture correctly, its line here is wrong
// and the check fails.

const NO_ID_ONLY = 'a block of only an id does not change the last event id';
const EMPTY_BLOCKS = 'a block without data is an event, once there is an id, a type or a retry';
const LATE_CR = 'a CR at the end of a chunk waits for the next byte, and the end of the stream is none';
const NO_NUL = 'NUL is taken out of data, and a field with NUL in it can take its whole event with it';

/** `{ client, fixture, reason }`; the fixture is the file's name without `.sse`. */
const DEVIATIONS = [
  { client: 'firefox', fixture: 'ids', reason: `${NO_ID_ONLY}; ${NO_NUL}` },
  { client: 'firefox', fixture: 'nul_characters', reason: NO_NUL },
  { client: 'eventsource', fixture: 'ids', reason: 'each event tells its own id or none, never an earlier one' },
  { client: 'eventsource', fixture: 'line_ends_cr', reason: LATE_CR },
  { client: 'eventsource-parser', fixture: 'ids', reason: NO_ID_ONLY },
  { client: 'eventsource-parser', fixture: 'line_ends_cr', reason: LATE_CR },
  { client: 'httpx-sse', fixture: 'byte_order_mark', reason: 'the mark at the start becomes part of the first field name' },
  { client: 'httpx-sse', fixture: 'empty_data', reason: EMPTY_BLOCKS },
  { client: 'httpx-sse', fixture: 'event_types', reason: EMPTY_BLOCKS },
  { client: 'httpx-sse', fixture: 'ids', reason: EMPTY_BLOCKS },
  { client: 'httpx-sse', fixture: 'resumable', reason: EMPTY_BLOCKS },
  { client: 'httpx-sse', fixture: 'retry_forms', reason: EMPTY_BLOCKS },
];

/** The reason, or undefined. */
export function deviation(client, fixture) {
  return DEVIATIONS.find((known) => known.client === client && known.fixture === fixture)?.reason;
}

/** A value published to the server, as this client reads it. */
export function readBy(client, data) {
  return client === 'firefox' ? data.replaceAll('\0', '') : data;
}
