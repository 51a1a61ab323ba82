// Debian's Chromium, started through playwright-core.

import { chromium } from 'playwright-core';

import { browserOf } from './browser.mjs';

/** Root has no sandbox, test machines have no GPU, and only our requests may leave it. */
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-quic',
  // A name of this machine that browsers do not trust as they trust localhost.
  '--host-resolver-rules=MAP events.test 127.0.0.1',
];

export async function launchChromium() {
  const executablePath = process.env.DOWNLINK_CHROMIUM ?? '/usr/bin/chromium';
  const chrome = await chromium.launch({ executablePath, args: ARGS });
  const openPage = async (url) => {
    const context = await chrome.newContext();
    const page = await context.newPage();
    await page.goto(url, { waitUntil: 'load' });
    return { page, close: () => context.close() };
  };
  return browserOf({
    open: openPage,
    async screenshot(url, file) {
      const { page, close } = await openPage(url);
      await page.screenshot({ path: file, fullPage: true });
      await close();
    },
    close: () => chrome.close(),
  });
}
