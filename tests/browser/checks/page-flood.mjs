// The server's own page receives a flood of events. It stays fast and keeps a limited number of
// rows. If it drops events during a pause, it shows a notice.

import assert from 'node:assert/strict';

import { livePage } from './page.mjs';

export const name = 'page-flood';

/** The maximum numbers of waiting events and of rows. The page has the same limits. */
const WAITING_MAX = 10_000;
const ROWS_MAX = 300;
/** The minimum number of events per drawing. The page draws a few times per second during a flood.
 * If it drew each event separately, this number would be 1. */
const EVENTS_A_DRAWING = 10;
/** The minimum number of frames during a flood. A frozen page has only the first frame and one
 * frame at the end. The number for a working page depends on the machine, which may be busy. */
const FRAMES_MIN = 4;

export async function run({ browser, front, server }) {
  const answers = {
    publish: ({ topic, first, count, json }) => publish(server.base, topic, first, count, json),
  };
  const args = { driver: await livePage(), waitingMax: WAITING_MAX, rowsMax: ROWS_MAX };
  const seen = await browser.run({ base: front.base, page, args, answers });
  const { events, seconds, drawings, frames, latest } = seen;
  console.log(`  ${Math.round(events / seconds)} events a second in ${drawings} drawings, no frame later than ${latest} ms`);
  assert.ok(drawings * EVENTS_A_DRAWING < events, `${drawings} drawings of ${events} events`);
  assert.ok(frames >= FRAMES_MIN, `${frames} frames in ${seconds} seconds`);
}

/** Publishes numbers in batches of a thousand. */
async function publish(base, topic, first, count, json = false) {
  const write = (number) => (json ? `{"number":${number},"list":[1,2,3]}` : `#${number}#`);
  for (let at = first; at < first + count; at += 1_000) {
    const numbers = Array.from({ length: Math.min(1_000, first + count - at) }, (_, more) => at + more);
    const lines = numbers.map((number) => JSON.stringify({ topic, event: number % 2 ? 'odd' : 'even', data: write(number) }));
    const answer = await fetch(`${base}/events/batch`, { method: 'POST', body: `${lines.join('\n')}\n` });
    assert.equal(answer.status, 200, await answer.text());
  }
}

async function page({ ask, args: { driver, waitingMax, rowsMax } }) {
  const { openPage } = await import(driver);
  const live = await openPage();
  const { until, rows, find } = live;
  const check = (holds, why) => {
    if (!holds) throw new Error(`${why}: ${JSON.stringify(rows().slice(0, 3))}, ${find('#waiting').textContent}`);
  };
  const waiting = (count) => until(() => find('#waiting').textContent.startsWith(`Paused: ${count.toLocaleString('en')} waiting`));

  // A paused page holds events up to a limit. Beyond the limit, it shows the number of dropped
  // events.
  await live.subscribe({ topics: 'flood' });
  find('#pause').click();
  for (let first = 0; first < waitingMax; first += 500) {
    await ask('publish', { topic: 'flood', first, count: 500 });
    await waiting(first + 500);
  }
  check(rows().length === 0 && find('#pause').getAttribute('aria-pressed') === 'true', 'paused');
  await ask('publish', { topic: 'flood', first: waitingMax, count: 5 });
  await until(() => find('#waiting').textContent.includes('5 older events'));
  await waiting(waitingMax);
  find('#pause').click();
  await until(() => rows().length > 0);
  check(rows().length === rowsMax && rows()[0].data === `#${waitingMax + 4}#`, 'rows after the pause');
  check(rows().every(({ data }, at) => data === `#${waitingMax + 4 - at}#`), 'in order');
  check(find('#waiting').textContent === '', 'nothing waits');
  check(/Newest 300 shown;.* 5 events were never shown/.test(find('#note').textContent), find('#note').textContent);
  find('#clear').click();
  check(rows().length === 0, 'cleared');
  await until(() => find('#note').textContent === '');

  // The filter applies to earlier and to new events.
  await ask('publish', { topic: 'flood', first: 0, count: 20 });
  await until(() => rows().length === 20);
  live.setFilter('EVEN');
  check(rows().length === 10 && rows().every(({ type }) => type === 'even'), 'filtered by type');
  await ask('publish', { topic: 'flood', first: 20, count: 2 });
  await until(() => rows().length === 11);
  live.setFilter('#7#');
  check(rows().length === 1 && rows()[0].data === '#7#', 'filtered by data');
  live.setFilter('nowhere');
  await until(() => rows().length === 0 && find('#empty').textContent === 'No events with this text.');
  live.setFilter('flood');
  check(rows().length === 22, 'filtered by topic');
  live.setFilter('');

  // During a flood, the page draws a few times per second, and the number of its rows stays
  // limited.
  let [latest, last, frames, drawings, most] = [0, 0, 0, 0, 0];
  let watching = true;
  const watch = (now) => {
    if (frames > 0) latest = Math.max(latest, now - last);
    last = now;
    frames += 1;
    if (watching) live.window.requestAnimationFrame(watch);
  };
  live.window.requestAnimationFrame(watch);
  const drawn = new live.window.MutationObserver(() => {
    drawings += 1;
    most = Math.max(most, find('#events').children.length);
  });
  drawn.observe(find('#events'), { childList: true });
  const received = () => Number(/^[\d,]+/.exec(find('#counts').textContent)[0].replaceAll(',', ''));
  const before = received();
  const began = performance.now();
  await ask('publish', { topic: 'flood', first: 100_000, count: 40_000 });
  await until(() => live.newest() === '#139999#');
  const seconds = (performance.now() - began) / 1000;
  watching = false;
  drawn.disconnect();
  check(most === rowsMax, `${most} rows`);
  // The page updates the count once per second. When it shows no rate, the count is complete.
  await until(() => received() > before && !find('#counts').textContent.includes('second'));
  const events = received() - before;

  // During a flood of JSON, the page formats only rows that are visible or nearly visible.
  await ask('publish', { topic: 'flood', first: 0, count: 2_000, json: true });
  const coloured = (row) => find(`#events li:nth-child(${row})`).querySelector('.digits');
  await until(() => live.newest().includes('1999') && coloured(1));
  check(!coloured(rowsMax), 'the last row is not visible and must not be formatted');
  find('#events').scrollTop = find('#events').scrollHeight;
  await until(() => coloured(rowsMax));
  return { events, seconds, drawings, frames, latest: Math.round(latest) };
}
