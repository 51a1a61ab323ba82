// Starts Debian's Chromium through playwright-core.

import { chromium } from 'playwright-core';

import { browserOf } from './browser.mjs';

/** The sandbox does not work for root, and test machines have no GPU. The other flags turn off
 * requests that Chromium makes on its own. */
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-quic',
  // This name also means this machine, but browsers do not trust it like localhost.
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
