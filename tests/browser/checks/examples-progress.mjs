// The example `progress`. The bar of a job moves, a reloaded page shows the same job, and a failed
// job shows its error as text.

import assert from 'node:assert/strict';
import { join } from 'node:path';

export const name = 'examples-progress';

const HOSTILE = '<img src=x onerror="document.title=\'owned\'">';

export async function run({ browser, startBinary, startFront }) {
  const progress = await startBinary(join(process.env.DOWNLINK_BIN_DIR, 'progress'), ['0']);
  try {
    const front = await startFront(progress.base);
    const seen = await browser.run({ base: front.base, page, args: { hostile: HOSTILE } });

    assert.ok(seen.reloadedAt >= seen.leftAt && seen.leftAt > 0, 'a reloaded page shows the current progress of the job');
    assert.deepEqual(seen.done, {
      state: 'done',
      value: 5,
      count: '5 of 5',
      results: ['2 is prime', '12 = 2 × 2 × 3', '97 is prime', '1001 = 7 × 11 × 13', '7 is prime'],
    });
    assert.deepEqual(seen.again, seen.done, 'a page opened after the end shows the finished job');
    assert.equal(seen.failed.state, 'failed');
    assert.equal(seen.failed.value, 1);
    assert.match(seen.failed.error, /^Line 2: “<img src=x onerror=.*” is not a whole number/);
    assert.equal(seen.unknown, 'There is no such job, or it ended long ago. Start another one.');
    assert.equal(seen.elements, 0, 'typed text must not become an element');
    assert.equal(seen.title, 'Progress', 'typed text must not run as script');
  } finally {
    progress.stop();
  }
}

/** Uses the example's own page in a frame, as a user would. */
async function page({ args: { hostile } }) {
  const frame = document.createElement('iframe');
  const load = (go) =>
    new Promise((resolve) => {
      frame.onload = resolve;
      go();
    });
  await load(() => {
    frame.src = '/';
    document.body.append(frame);
  });
  const find = (id) => frame.contentDocument.getElementById(id);
  const until = (holds) =>
    new Promise((resolve) => {
      const look = () => {
        if (!holds()) return;
        observer.disconnect();
        resolve();
      };
      const observer = new frame.contentWindow.MutationObserver(look);
      observer.observe(frame.contentDocument, { attributes: true, childList: true, characterData: true, subtree: true });
      look();
    });
  const start = (numbers) => {
    find('numbers').value = numbers;
    find('form').requestSubmit();
  };
  const state = () => find('state').dataset.state;
  const ended = () => until(() => state() === 'done');
  const read = () => ({
    state: state(),
    value: find('bar').value,
    count: find('count').textContent,
    results: [...find('results').children].map((item) => item.textContent),
  });

  start('2\n12\n97\n1001\n7');
  await until(() => find('bar').value >= 2);
  const leftAt = find('bar').value;
  await load(() => frame.contentWindow.location.reload());
  await until(() => find('count').textContent !== '');
  const reloadedAt = find('bar').value;
  await ended();
  const done = read();
  await load(() => frame.contentWindow.location.reload());
  await ended();
  const again = read();

  start(`2\n${hostile}\n3`);
  await until(() => state() === 'failed');
  const failed = { ...read(), error: find('error').textContent };
  const elements = frame.contentDocument.querySelectorAll('img').length;
  frame.contentWindow.location.hash = 'none';
  await until(() => find('error').textContent.startsWith('There'));
  const unknown = find('error').textContent;
  return { leftAt, reloadedAt, done, again, failed, unknown, elements, title: frame.contentDocument.title };
}
