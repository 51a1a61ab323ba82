// The server's own page can be used with only the keyboard. A script cannot press real keys, so in
// both browsers the check dispatches key events and checks their effects. In Chromium, it also
// presses real keys from an empty page to a resumed subscription.

import assert from 'node:assert/strict';

import { chromium } from 'playwright-core';

import { livePage } from './page.mjs';

export const name = 'page-keys';

export async function run({ engine, browser, front }) {
  await browser.run({ base: front.base, page, args: { driver: await livePage() } });
  if (engine === 'chromium') await withRealKeys(front.base);
}

async function page({ args: { driver } }) {
  const { openPage } = await import(driver);
  const live = await openPage();
  const { until, rows, find, press, inside } = live;
  const is = (selector, why) => {
    const wanted = find(selector);
    if (inside.activeElement !== wanted) throw new Error(`${why}: ${inside.activeElement?.outerHTML}`);
  };

  // The user can reach every input with Tab, and every input has a name.
  for (const field of inside.querySelectorAll('input, select, textarea, button, summary, #events')) {
    const name = field.labels?.[0]?.textContent ?? field.ariaLabel ?? field.textContent;
    if (!name.trim() || field.tabIndex < 0) throw new Error(`unreachable or nameless: ${field.outerHTML}`);
  }

  press('s');
  is('#subscribe [name=topics]', 's');
  if (!press('n')) throw new Error('a key in a field must type a letter');
  is('#subscribe [name=topics]', 'a letter key in a field');
  press('Escape');
  is('body', 'Escape leaves a field');
  if (!find('#subscribe-panel').hidden) throw new Error('Escape did not close the form');
  await live.subscribe({ topics: 'keys' });
  press('n');
  is('#publish [name=data]', 'n');
  live.fill('form#publish', { topic: 'keys', data: 'by Ctrl and Enter' });
  press('Enter', { ctrlKey: true });
  await until(() => rows()[0]?.data === 'by Ctrl and Enter');
  press('Escape');

  press('/');
  is('#filter', '/');
  live.setFilter('something else');
  await until(() => rows().length === 0);
  press('Escape');
  is('#filter', 'the first Escape empties the filter');
  await until(() => rows().length === 1);
  press('Escape');
  is('body', 'the second Escape leaves the filter');
  press('f');
  is('#filter', 'f');
  press('Escape');

  await live.publish({ topic: 'keys', data: 'second' });
  await until(() => rows().length === 2);
  press('e');
  is('#events', 'e');
  press('ArrowDown');
  is('#events li:nth-child(1) .id', 'down');
  press('ArrowDown');
  press('ArrowDown');
  is('#events li:nth-child(2) .id', 'ArrowDown stops at the last row');
  press('ArrowUp');
  is('#events li:nth-child(1) .id', 'up');
  inside.activeElement.click();
  is('#subscribe [name=after]', 'the id of the row was not filled in');
  press('Escape');

  press('p');
  await until(() => find('#waiting').textContent === 'Paused: 0 waiting.');
  if (!press('p', { ctrlKey: true }) || find('#pause').ariaPressed !== 'true') throw new Error('the page must leave Ctrl+p to the browser');
  press('p');
  await until(() => find('#waiting').textContent === '');
  press('?');
  if (!find('#keys').open) throw new Error('?');
  press('Escape');
  if (find('#keys').open) throw new Error('Escape did not close the list of keys');
  press('Escape');
  find('#letters').checked = false;
  press('c');
  if (rows().length !== 2) throw new Error('a letter key worked although single letters are off');
  find('#letters').checked = true;
  press('c');
  await until(() => rows().length === 0);
  press('l');
  await until(() => find('#state').dataset.state === 'closed');
  return null;
}

/** Goes from an empty page to a resumed subscription with only the keyboard. */
async function withRealKeys(base) {
  const executablePath = process.env.DOWNLINK_CHROMIUM ?? '/usr/bin/chromium';
  const chrome = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  try {
    const page = await chrome.newPage();
    const wrong = [];
    page.on('pageerror', (error) => wrong.push(error.message));
    page.on('console', (message) => message.type() === 'error' && wrong.push(message.text()));
    await page.goto(base);
    const keys = async (...all) => {
      for (const key of all) await page.keyboard.press(key);
    };
    const focused = () => page.evaluate(() => document.activeElement.name || document.activeElement.id);
    await keys('Tab');
    assert.equal(await focused(), 'show-subscribe', 'the buttons of the forms come first');
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none');
    await keys('Enter');
    assert.equal(await focused(), 'topics', 'the button opens the form');
    await keys('Escape');
    assert.ok(await page.locator('#subscribe-panel').isHidden(), 'Escape closes the form');
    await keys('?');
    assert.equal(await page.evaluate(() => document.activeElement.tagName), 'SUMMARY', 'the key ? opens the list of keys');
    await keys('Escape');
    await keys('s');
    await page.keyboard.type('real/*');
    await keys('Tab', 'Tab', 'Tab');
    assert.equal(await focused(), 'after');
    await keys('Enter');
    await page.waitForFunction(() => document.querySelector('#wanted').textContent === 'real/*');
    await page.waitForSelector('#state[data-state=open]');
    await page.waitForSelector('#subscribe-panel', { state: 'hidden' });
    assert.equal(await focused(), 'show-subscribe', 'the focus goes to the button of the closed form');
    await keys('n', 'Shift+Tab', 'Shift+Tab', 'Shift+Tab', 'Shift+Tab');
    assert.equal(await focused(), 'topic');
    await page.keyboard.type('real/1');
    await keys('Enter');
    await page.waitForFunction(() => document.querySelectorAll('#events li').length === 1);
    await keys('Escape', 'n');
    await page.keyboard.type('second\nline');
    await keys('Control+Enter');
    await page.waitForFunction(() => document.querySelector('#events pre')?.textContent === 'second\nline');
    await keys('Escape', 'f');
    await page.keyboard.type('hello');
    await page.waitForFunction(() => document.querySelectorAll('#events li').length === 1);
    await keys('Escape', 'Escape', 'e', 'ArrowDown', 'ArrowDown', 'Enter');
    assert.equal(await focused(), 'after', 'Enter fills in the id of a row');
    await keys('Escape', 'c', 's', 'Enter');
    await page.waitForFunction(() => document.querySelectorAll('#events li').length === 1);
    assert.equal(await page.locator('#events pre').textContent(), 'second\nline', 'the subscription resumes after the first event');
    await keys('Escape', 'p');
    assert.equal(await page.locator('#pause').getAttribute('aria-pressed'), 'true');
    assert.deepEqual(wrong, [], 'the console has no errors');
  } finally {
    await chrome.close();
  }
}
