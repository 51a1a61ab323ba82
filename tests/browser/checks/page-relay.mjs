// The server's own page on a relay. It shows that the upstream is connected and then that it is away.
// On a server that is no relay, it shows neither.

import { startBinary } from '../lib/binaries.mjs';
import { livePage } from './page.mjs';

export const name = 'page-relay';

export async function run({ browser, front, server, startFront }) {
  const flags = ['dev', '--follow', server.base, '--listen', '127.0.0.1:0', '--store', 'none'];
  const relay = await startBinary(process.env.DOWNLINK_BIN, flags);
  try {
    const driver = await livePage();
    await browser.run({ base: front.base, page: onUpstream, args: { driver }, answers: {} });
    const relayFront = await startFront(relay.base);
    const answers = { publish: (data) => server.publish({ topic: 'relayed' }, data), stop: () => server.stop() };
    await browser.run({ base: relayFront.base, page: onRelay, args: { driver }, answers });
  } finally {
    relay.stop();
  }
}

async function onUpstream({ args: { driver } }) {
  const { openPage } = await import(driver);
  const live = await openPage();
  await live.until(() => live.cells('#clients').length > 0);
  if (!live.find('#upstream').hidden) throw new Error(live.find('#upstream').textContent);
}

async function onRelay({ ask, args: { driver } }) {
  const { openPage } = await import(driver);
  const live = await openPage();
  const text = () => live.find('#upstream').textContent;
  await live.until(() => text() === 'upstream connected, no lag');
  await ask('publish', 'over the relay');
  await live.until(() => live.newest() === 'over the relay');
  await ask('stop');
  await live.until(() => /^upstream away for \d+ s$/.test(text()));
  if (!live.find('#health').hidden) throw new Error(live.find('#health').textContent);
}
