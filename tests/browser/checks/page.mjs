// The server's own page subscribes and publishes by its form, and shows data as text only.

import assert from 'node:assert/strict';
import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export const name = 'page';

const HOSTILE = '<img src=x onerror="document.title=1">';

export async function run({ engine, browser, front, server, folder }) {
  const args = { hostile: HOSTILE };
  const answers = { publish: (data) => server.publish({ topic: 'page/demo' }, data) };
  const seen = await browser.run({ base: front.base, page, args, answers });
  assert.equal(seen.images, 0, 'published data became an element');
  assert.ok(seen.text.includes(HOSTILE), 'published data is shown as it is');
  assert.notEqual(seen.title, '1', 'published data ran as script');

  const pictures = join(folder, engine);
  await mkdir(pictures, { recursive: true });
  const picture = join(pictures, 'page.png');
  await browser.screenshot(`${front.base}/`, picture);
  assert.ok((await stat(picture)).size > 0);
  console.log(`  screenshot: ${picture}`);
}

/**
 * Drives the page in a frame, as a reader would: by what its fields are named.
 *
 * The form that publishes has a field `data`; the one that subscribes has a field `topic` and none
 * named `data`.
 */
async function page({ ask, args: { hostile } }) {
  const frame = document.createElement('iframe');
  frame.src = '/';
  Object.assign(frame.style, { width: '1200px', height: '900px' });
  document.body.append(frame);
  await new Promise((resolve) => {
    frame.onload = resolve;
  });
  const inside = frame.contentDocument;
  const field = (form, name) => form.querySelector(`[name="${name}"]`);
  const forms = [...inside.forms];
  const publishing = forms.find((form) => field(form, 'data'));
  const subscribing = forms.find((form) => field(form, 'topic') && !field(form, 'data'));
  if (!publishing || !subscribing) throw new Error(`forms: ${inside.body.innerHTML.slice(0, 2000)}`);

  /** Looks after every change of the page, so that nothing is waited for by the clock. */
  const appears = (text) =>
    new Promise((resolve) => {
      const look = () => {
        if (!inside.body.innerText.includes(text)) return;
        observer.disconnect();
        resolve();
      };
      const observer = new MutationObserver(look);
      observer.observe(inside.body, { subtree: true, childList: true, characterData: true, attributes: true });
      look();
    });

  // Whether the subscription is open is seen by events that appear: one is published again and
  // again until then.
  field(subscribing, 'topic').value = 'page/demo';
  subscribing.requestSubmit();
  let subscribed = false;
  const first = appears('the first event').then(() => {
    subscribed = true;
  });
  while (!subscribed) {
    await ask('publish', 'the first event');
    await new Promise(requestAnimationFrame);
  }
  await first;

  for (const data of ['typed into the form', hostile]) {
    field(publishing, 'topic').value = 'page/demo';
    field(publishing, 'data').value = data;
    publishing.requestSubmit();
    await appears(data);
  }
  return {
    text: inside.body.innerText,
    images: inside.querySelectorAll('img[src="x"]').length,
    title: inside.title,
  };
}
