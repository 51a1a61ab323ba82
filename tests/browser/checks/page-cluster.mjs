// The server's own page on a node of a cluster. It shows whether the engine answers, and the lag. The
// check adds the metrics of a node to those of the server, so it needs no engine. On a server that is
// no node, the page shows nothing about a cluster.

import { livePage } from './page.mjs';

export const name = 'page-cluster';

export async function run({ browser, front }) {
  const driver = await livePage();
  await browser.run({ base: front.base, page: onNode, args: { driver }, answers: {} });
}

async function onNode({ args: { driver } }) {
  const { openPage } = await import(driver);
  const live = await openPage();
  const line = () => live.find('#cluster');
  await live.until(() => live.cells('#clients').length > 0);
  if (!line().hidden) throw new Error(line().textContent);
  const metrics = {};
  const fetchOfServer = live.window.fetch.bind(live.window);
  live.window.fetch = async (path, ...options) => {
    const answer = await fetchOfServer(path, ...options);
    if (path !== 'metrics') return answer;
    const lines = Object.entries(metrics).map(([name, value]) => `downlink_cluster_${name} ${value}\n`);
    const { headers } = answer;
    return new live.window.Response(`${lines.join('')}${await answer.text()}`, { headers });
  };
  for (const [change, state, text] of [
    [{ takes_publishes: 0, lag: 0, silent_seconds: '+Inf' }, 'away', 'engine not reached yet'],
    [{ takes_publishes: 0, lag: 1200, silent_seconds: 0.1 }, 'open', 'cluster connected, 1,200 entries behind, takes no publishes'],
    [{ takes_publishes: 1, lag: 1, silent_seconds: 0.1 }, 'open', 'cluster connected, 1 entry behind'],
    [{ takes_publishes: 1, lag: 0, silent_seconds: 2 }, 'open', 'cluster connected, no lag'],
    [{ takes_publishes: 0, lag: 0, silent_seconds: 61.2 }, 'away', 'engine away for 61 s'],
  ]) {
    Object.assign(metrics, change);
    await live.until(() => line().textContent === text && line().dataset.state === state && !line().hidden);
  }
}
