// The example `tail`. The lines of a growing file arrive once and as text, even after a cut and a
// rotation of the file.

import assert from 'node:assert/strict';
import { appendFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export const name = 'examples-tail';

const HOSTILE = '<img src=x onerror="document.title=\'owned\'">';

export async function run({ engine, folder, browser, startBinary, startFront }) {
  const file = join(folder, `tail-${engine}.log`);
  await writeFile(file, 'first\n');
  const tail = await startBinary(join(process.env.DOWNLINK_BIN_DIR, 'tail'), [file, '0']);
  try {
    const front = await startFront(tail.base);
    const answers = {
      grow: (text) => appendFile(file, text),
      cut() {
        front.streams.hold();
        assert.equal(front.streams.cut(), 1, 'one stream is open');
      },
      letBack: () => front.streams.release(),
      async rotate(text) {
        await rename(file, `${file}.old`);
        await writeFile(file, text);
      },
    };
    const seen = await browser.run({ base: front.base, page, args: { hostile: HOSTILE }, answers });

    const rotated = 'Another file has this name now. Its lines follow:';
    assert.deepEqual(seen.items, ['first', HOSTILE, 'while it was cut', rotated, 'the new file']);
    assert.deepEqual(seen.notices, [rotated]);
    assert.deepEqual(seen.states, ['connecting', 'open', 'reconnecting', 'open']);
    assert.equal(seen.elements, 0, 'a line must not become an element');
    assert.equal(seen.title, 'Tail', 'a line must not run as script');
    assert.match(front.streams.requests[1].lastEventId ?? '', /^tail-[0-9a-f]+-[0-9]+$/);
  } finally {
    tail.stop();
  }
}

/** Opens the example's own page in a frame, as a user would see it. */
async function page({ ask, args: { hostile } }) {
  const frame = document.createElement('iframe');
  frame.src = '/';
  await new Promise((resolve) => {
    frame.onload = resolve;
    document.body.append(frame);
  });
  const inside = frame.contentDocument;
  const states = ['connecting'];
  const until = (holds) =>
    new Promise((resolve) => {
      const look = () => {
        const { state } = inside.getElementById('state').dataset;
        if (states.at(-1) !== state) states.push(state);
        if (!holds()) return;
        observer.disconnect();
        resolve();
      };
      const observer = new frame.contentWindow.MutationObserver(look);
      observer.observe(inside, { attributes: true, childList: true, characterData: true, subtree: true });
      look();
    });
  const texts = (selector) => [...inside.querySelectorAll(selector)].map((item) => item.textContent);
  const shows = (text) => until(() => texts('#lines > li').at(-1) === text);

  await shows('first');
  await ask('grow', `${hostile}\n`);
  await shows(hostile);
  await ask('cut');
  await until(() => states.at(-1) === 'reconnecting');
  await ask('grow', 'while it was cut\n');
  await ask('letBack');
  await shows('while it was cut');
  await ask('rotate', 'the new file\n');
  await shows('the new file');
  return {
    items: texts('#lines > li'),
    notices: texts('.notice'),
    elements: inside.querySelectorAll('#lines img').length,
    title: inside.title,
    states,
  };
}
