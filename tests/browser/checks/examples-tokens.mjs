// The example `tokens`. An answer arrives token by token as text. A page that is reloaded halfway
// or opened after the end shows the whole answer once. An answer that the user stops ends.

import assert from 'node:assert/strict';
import { join } from 'node:path';

export const name = 'examples-tokens';

const PROMPT = 'Is <img src=x onerror="document.title=\'owned\'"> safe?';
const EXPECTED = [
  'I am a pretend model: no mind, only a loop, so that you can watch tokens arrive. Your prompt has 5 words.',
  '1. “Is” has 2 characters.',
  '2. “<img” has 4 characters.',
  '3. “src=x” has 5 characters.',
  '4. “onerror="document.title=\'owned\'">” has 33 characters.',
  '5. “safe?” has 5 characters.',
  'That is all I can say about it.',
].join('\n');

export async function run({ browser, startBinary, startFront }) {
  const tokens = await startBinary(join(process.env.DOWNLINK_BIN_DIR, 'tokens'), ['0']);
  try {
    const front = await startFront(tokens.base);
    const seen = await browser.run({ base: front.base, page, args: { prompt: PROMPT } });

    assert.ok(EXPECTED.startsWith(seen.halfway) && seen.halfway.length < EXPECTED.length, seen.halfway);
    assert.equal(seen.reloaded, EXPECTED, 'each token appears once after a reload');
    assert.equal(seen.afterTheEnd, EXPECTED, 'a page opened after the end shows the whole answer');
    assert.ok(EXPECTED.startsWith(seen.stopped) && seen.stopped.length < EXPECTED.length, seen.stopped);
    assert.equal(seen.ending, 'The answer was stopped here.');
    assert.equal(seen.elements, 0, 'a token must not become an element');
    assert.equal(seen.title, 'Tokens', 'typed text must not run as script');
  } finally {
    tokens.stop();
  }
}

/** Uses the example's own page in a frame, as a user would. */
async function page({ args: { prompt } }) {
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
  const text = () => find('answer').textContent;
  const done = () => until(() => find('state').dataset.state === 'done');
  const ask = () => {
    find('prompt').value = prompt;
    find('form').requestSubmit();
  };

  ask();
  await until(() => text().length > 40);
  const halfway = text();
  await load(() => frame.contentWindow.location.reload());
  await done();
  const reloaded = text();
  await load(() => frame.contentWindow.location.reload());
  await done();
  const afterTheEnd = text();

  const first = frame.contentWindow.location.hash;
  ask();
  await until(() => frame.contentWindow.location.hash !== first && text().length > 10 && !find('stop').disabled);
  find('stop').click();
  await done();
  return {
    halfway,
    reloaded,
    afterTheEnd,
    stopped: text(),
    ending: find('ending').textContent,
    elements: find('answer').children.length,
    title: frame.contentDocument.title,
  };
}
