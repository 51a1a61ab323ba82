// The server's own page subscribes and publishes by its form, and shows data as text only.

import assert from 'node:assert/strict';
import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export const name = 'page';

const HOSTILE = '<img src=x onerror="document.title=1">';

export async function run({ engine, browser, front, folder }) {
  const args = { hostile: HOSTILE };
  const seen = await browser.run({ base: front.base, page, args });
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

/** Drives the server's page in a frame, as a reader would; it knows the page's names below. */
async function page({ args: { hostile } }) {
  const frame = document.createElement('iframe');
  frame.src = '/';
  Object.assign(frame.style, { width: '1200px', height: '900px' });
  document.body.append(frame);
  await new Promise((resolve) => {
    frame.onload = resolve;
  });
  const inside = frame.contentDocument;
  const find = (selector) => {
    const found = inside.querySelector(selector);
    if (!found) throw new Error(`no ${selector} in ${inside.documentElement.outerHTML.slice(0, 2000)}`);
    return found;
  };
  const [subscribing, publishing, received] = ['form#subscribe', 'form#publish', '#events'].map(find);

  /** Looks after every change of the page, so that nothing is waited for by the clock. */
  const until = (holds) =>
    new Promise((resolve) => {
      const look = () => {
        if (!holds()) return;
        observer.disconnect();
        resolve();
      };
      const observer = new MutationObserver(look);
      const everything = { subtree: true, childList: true, characterData: true, attributes: true };
      observer.observe(inside.body, everything);
      look();
    });

  subscribing.elements.topics.value = 'page/demo';
  subscribing.requestSubmit();
  await until(() => find('#state').dataset.state === 'open');
  for (const data of ['typed into the form', hostile]) {
    publishing.elements.topic.value = 'page/demo';
    publishing.elements.data.value = data;
    publishing.requestSubmit();
    await until(() => received.textContent.includes(data));
  }
  return {
    text: received.innerText,
    images: inside.querySelectorAll('img').length,
    title: inside.title,
  };
}
