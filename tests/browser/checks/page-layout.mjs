// The first view of the server's own page, on a wide screen and on a phone. The page is connected,
// and its numbers, events, topics and clients are visible. No number wraps, and the page does not
// scroll sideways.

import assert from 'node:assert/strict';

import { chromium } from 'playwright-core';

import { livePage } from './page.mjs';

export const name = 'page-layout';

const SIZES = { wide: [1280, 900], phone: [390, 844] };
const JSON_TEXT = '{"b":1.10,"a":[{"deep":[]},12345678901234567890],"b":null,"<img src=x>":"\\u003cb> \\" {"}';

/** The selectors of texts in every colour. All of them are on the background of a card. */
const TEXTS = [
  '#events .topic', '#events pre', '#events .id', '#events .age', '#events .key', '#events .digits',
  '#events .string', '#events .word', '#topics button', '#clients .number', '#strip dt', '#counts', '#pause',
];

export async function run({ engine, browser, front, server }) {
  const lines = Array.from({ length: 1_000 }, (_, n) => JSON.stringify({ topic: 'many/thousand', data: `${n}` }));
  const answer = await fetch(`${server.base}/events/batch`, { method: 'POST', body: lines.join('\n') });
  assert.equal(answer.status, 200);
  await server.publish({ topic: `long/${'x'.repeat(150)}`, event: 'y'.repeat(60) }, 'z'.repeat(500));
  const answers = { publish: (data) => server.publish({ topic: 'layout' }, data) };
  for (const size of Object.values(SIZES)) {
    const args = { driver: await livePage(), size, json: JSON_TEXT };
    await browser.run({ base: front.base, page, args, answers });
  }
  if (engine === 'chromium') await inBothSchemes(front.base);
}

async function page({ ask, args: { driver, size, json } }) {
  const { openPage } = await import(driver);
  const live = await openPage('', '/', size);
  const { until, rows, find, inside, window } = live;
  const check = (holds, why) => {
    if (!holds) throw new Error(`${size}: ${why}`);
  };

  // The page connects by itself to all topics and shows the last events.
  await until(() => find('#state').dataset.state === 'open' && rows().length > 0);
  check(!find('#state').textContent.includes('resumed'), find('#state').textContent);
  check(find('#wanted').textContent === 'all topics', find('#wanted').textContent);
  await until(() => live.cells('#topics').some(([topic]) => topic === 'many/thousand'));
  await until(() => live.cells('#clients').length > 0);

  const inSight = () => {
    check(inside.documentElement.scrollWidth <= size[0], 'the page scrolls sideways');
    for (const selector of ['#strip', '#received', '#events', '#topics tr', '#clients tr']) {
      const { left, right, top, bottom } = find(selector).getBoundingClientRect();
      const isInside = left >= 0 && right <= size[0] && top >= 0 && bottom <= size[1];
      check(isInside && bottom - top > 10, `${selector} is out of sight: ${left} ${right} ${top} ${bottom}`);
    }
    for (const list of [find('#events'), ...inside.querySelectorAll('.rows')]) {
      check(list.scrollWidth <= list.clientWidth, `${list.outerHTML.slice(0, 80)} scrolls sideways`);
    }
  };
  inSight();
  for (const cell of inside.querySelectorAll('.number, #strip .text')) {
    const range = inside.createRange();
    range.selectNodeContents(cell);
    const lines = new Set([...range.getClientRects()].map(({ bottom }) => Math.round(bottom / 10)));
    check(lines.size <= 1, `${cell.textContent} takes ${lines.size} lines`);
  }

  // The forms are closed until the user opens them.
  for (const form of ['subscribe', 'publish']) {
    const [panel, button] = [find(`#${form}-panel`), find(`#show-${form}`)];
    check(panel.hidden && button.ariaExpanded === 'false', `${form} is open`);
    button.click();
    check(!panel.hidden && button.ariaExpanded === 'true', `${form} is closed`);
    check(inside.documentElement.scrollWidth <= size[0], `${form} makes the page scroll sideways`);
    button.click();
    check(panel.hidden, `${form} stays open`);
  }

  // The page indents and colours JSON. It does not change the tokens.
  await ask('publish', json);
  await until(() => live.newest()?.includes('12345678901234567890'));
  const wanted = [
    '{', '  "b": 1.10,', '  "a": [', '    {', '      "deep": []', '    },',
    '    12345678901234567890', '  ],', '  "b": null,', '  "<img src=x>": "\\u003cb> \\" {"', '}',
  ].join('\n');
  check(rows()[0].data === wanted, rows()[0].data);
  const colours = [...find('#events li pre').children].map(({ className }) => className);
  const kinds = ['key', 'digits', 'key', 'key', 'digits', 'key', 'word', 'key', 'string'];
  check(colours.join() === kinds.join(), colours);
  check(find('#events li pre').querySelectorAll('*:not(span)').length === 0, 'data became an element');
  const short = '{"one": "line", "list": 2}';
  await ask('publish', short.replaceAll(' ', ''));
  await until(() => rows()[0].data === short);
  for (const plain of ['['.repeat(40) + ']'.repeat(40), '{"broken": ', '"text"', '12']) {
    await ask('publish', plain);
    await until(() => rows()[0].data === plain);
    check(find('#events li pre').children.length === 0, `${plain} is coloured`);
  }

  // The page shows the numbers from the server's metrics. A missing number is a dash.
  const value = (id) => find(`#${id} .value`).textContent;
  await until(() => Number(value('events-in')) > 0 && Number(value('deliveries-out')) > 0);
  check(Number(value('connections')) >= 1 && value('largest-lag') !== '–', 'connections and lag');
  check(find('#memory-title').textContent === 'Memory' && value('memory') !== '–', 'memory');
  check(/^of [0-9.]+K?M?$/.test(find('#connections .unit').textContent), 'the limit of connections');
  check(find('#health').hidden, 'the server is ready');
  check(find('#connections polyline').getAttribute('points').includes(' '), 'a graph');
  const fetchReally = window.fetch;
  let asked = 0;
  let metrics = 'downlink_subscribers 1234\nprocess_resident_memory_bytes 12582912\n# EOF\n';
  window.fetch = (path) => {
    asked += 1;
    return path === 'metrics' ? Promise.resolve(new window.Response(metrics)) : fetchReally(path);
  };
  await until(() => value('connections') === '1,234' && value('events-in') === '–');
  check(`${find('#memory-title').textContent} ${find('#memory').textContent}` === 'Memory 12.0MiB', find('#memory').textContent);
  metrics = '# EOF\n';
  await until(() => ['connections', 'events-in', 'deliveries-out', 'memory'].every((id) => value(id) === '–'));
  inSight();

  // A hidden page sends no requests.
  let visibility = 'hidden';
  Object.defineProperty(inside, 'visibilityState', { get: () => visibility });
  const become = (state) => {
    visibility = state;
    asked = 0;
    inside.dispatchEvent(new window.Event('visibilitychange'));
    return asked;
  };
  check(become('hidden') === 0, 'a hidden page sent requests');
  check(become('visible') === 4, 'a page that becomes visible must send its requests at once');
  return null;
}

/** In both colour schemes, texts have a contrast of at least 4.5, as WCAG requires. */
async function inBothSchemes(base) {
  const executablePath = process.env.DOWNLINK_CHROMIUM ?? '/usr/bin/chromium';
  const chrome = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  try {
    const backs = [];
    for (const colorScheme of ['light', 'dark']) {
      const context = await chrome.newContext({ colorScheme });
      const page = await context.newPage();
      await page.goto(base);
      for (const selector of TEXTS) await page.waitForSelector(selector, { state: 'attached' });
      const { contrasts, back } = await page.evaluate(measure, TEXTS);
      for (const [selector, contrast] of Object.entries(contrasts)) {
        assert.ok(contrast >= 4.5, `${colorScheme}: ${selector} has a contrast of ${contrast.toFixed(1)}`);
      }
      backs.push(back);
      await context.close();
    }
    assert.ok(backs[0] > 0.8 && backs[1] < 0.1, `light and dark: ${backs}`);
  } finally {
    await chrome.close();
  }
}

/** Runs in the page. Measures the contrasts of texts with the card, and the card's brightness. */
function measure(selectors) {
  const brightness = (colour) => {
    const parts = colour.match(/[\d.]+/g).slice(0, 3).map((part) => {
      const share = Number(part) / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const back = brightness(getComputedStyle(document.querySelector('.card')).backgroundColor);
  const contrasts = selectors.map((selector) => {
    const text = brightness(getComputedStyle(document.querySelector(selector)).color);
    return [selector, (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05)];
  });
  return { contrasts: Object.fromEntries(contrasts), back };
}
