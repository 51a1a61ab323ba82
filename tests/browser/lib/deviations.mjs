// The fixtures that foreign clients do not read as the standard requires, with the reasons.
//
// If a client reads one of its fixtures here correctly, the check fails, because the entry here is
// wrong.

const NO_ID_ONLY = 'a block with only an id does not change the last event id';
const EMPTY_BLOCKS = 'a block without data is an event if it has an id, a type or a retry';
const LATE_CR = 'a CR at the end of a chunk ends its line only when another byte follows';
const NO_NUL = 'the client removes NUL from data, and may drop an event that has NUL in another field';

/** Entries of the form `{ client, fixture, reason }`. The fixture is the file's name without
 * `.sse`. */
const DEVIATIONS = [
  { client: 'firefox', fixture: 'ids', reason: `${NO_ID_ONLY}; ${NO_NUL}` },
  { client: 'firefox', fixture: 'nul_characters', reason: NO_NUL },
  { client: 'eventsource', fixture: 'ids', reason: 'an event without an id does not have the last event id' },
  { client: 'eventsource', fixture: 'line_ends_cr', reason: LATE_CR },
  { client: 'eventsource-parser', fixture: 'ids', reason: NO_ID_ONLY },
  { client: 'eventsource-parser', fixture: 'line_ends_cr', reason: LATE_CR },
  { client: 'httpx-sse', fixture: 'byte_order_mark', reason: 'a byte order mark at the start becomes part of the first field name' },
  { client: 'httpx-sse', fixture: 'empty_data', reason: EMPTY_BLOCKS },
  { client: 'httpx-sse', fixture: 'event_types', reason: EMPTY_BLOCKS },
  { client: 'httpx-sse', fixture: 'ids', reason: EMPTY_BLOCKS },
  { client: 'httpx-sse', fixture: 'resumable', reason: EMPTY_BLOCKS },
  { client: 'httpx-sse', fixture: 'retry_forms', reason: EMPTY_BLOCKS },
];

/** The reason why the client does not read the fixture correctly, or undefined. */
export function deviation(client, fixture) {
  return DEVIATIONS.find((known) => known.client === client && known.fixture === fixture)?.reason;
}

/** The text that this client reads for published data. */
export function readBy(client, data) {
  return client === 'firefox' ? data.replaceAll('\0', '') : data;
}
