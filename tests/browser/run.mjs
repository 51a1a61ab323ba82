// Runs the checks in checks/ with one engine or with all engines. Prints one line per check.

import { mkdtemp, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { startBinary, startDownlink, stopAll } from './lib/binaries.mjs';
import { launchChromium } from './lib/chromium.mjs';
import { launchFirefox } from './lib/firefox.mjs';
import { startFront } from './lib/front.mjs';

/** The engines. The runner starts the browsers. The checks start the other engines. */
const ENGINES = {
  chromium: launchChromium,
  firefox: launchFirefox,
  node: null,
  python: null,
  curl: null,
};
const BROWSERS = ['chromium', 'firefox'];

/** The time limit of a check without its own limit. It is twice the time that the slowest such
 * check needs on a loaded machine. */
const CHECK_TIMEOUT_MS = 60_000;

const { values: options } = parseArgs({
  options: {
    engine: { type: 'string', multiple: true, default: Object.keys(ENGINES) },
    check: { type: 'string', multiple: true, default: [] },
    list: { type: 'boolean', default: false },
  },
});

async function loadChecks() {
  const folder = new URL('./checks/', import.meta.url);
  const files = (await readdir(folder)).filter((file) => file.endsWith('.mjs')).sort();
  const checks = await Promise.all(files.map((file) => import(new URL(file, folder))));
  const chosen = options.check;
  const unknown = chosen.filter((name) => !checks.some((check) => check.name === name));
  if (unknown.length > 0) throw new Error(`there is no check ${unknown.join(', ')}`);
  return chosen.length === 0 ? checks : checks.filter((check) => chosen.includes(check.name));
}

/** Rejects if `promise` takes longer than `ms`. */
async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result after ${ms / 1000} s`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Runs one check with its own server and front. */
async function runCheck(check, engine, browser, folder) {
  const server = await startDownlink();
  const front = await startFront(server.base);
  const fronts = [front];
  const startAnotherFront = async (base, routes) => {
    fronts.push(await startFront(base, routes));
    return fronts.at(-1);
  };
  const tools = { engine, browser, front, server, folder, startBinary, startFront: startAnotherFront };
  try {
    await within(check.timeoutMs ?? CHECK_TIMEOUT_MS, check.run(tools));
  } catch (error) {
    const said = server.lastLines();
    throw new Error(`${error.stack ?? error}${said && `\n--- the server said:\n${said}`}`);
  } finally {
    await browser?.closePages();
    fronts.forEach((front) => front.stop());
    server.stop();
  }
}

async function runEngine(engine, checks, folder) {
  const mine = checks.filter((check) => (check.engines ?? BROWSERS).includes(engine));
  const browser = mine.length > 0 && ENGINES[engine] ? await ENGINES[engine]() : null;
  let failures = 0;
  for (const check of mine) {
    const started = performance.now();
    try {
      await runCheck(check, engine, browser, folder);
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      console.log(`ok ${engine} ${check.name} (${seconds} s)`);
    } catch (error) {
      failures += 1;
      console.log(`FAIL ${engine} ${check.name}: ${error.message}`);
    }
  }
  await browser?.close();
  return failures;
}

async function main() {
  const checks = await loadChecks();
  if (options.list) {
    checks.forEach((check) => console.log(check.name, (check.engines ?? BROWSERS).join(',')));
    return 0;
  }
  const unknown = options.engine.filter((engine) => !(engine in ENGINES));
  if (unknown.length > 0) throw new Error(`there is no engine ${unknown.join(', ')}`);
  const folder = await mkdtemp(join(tmpdir(), 'downlink-browser-'));
  let failures = 0;
  for (const engine of options.engine) failures += await runEngine(engine, checks, folder);
  return failures === 0 ? 0 : 1;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => process.exit(1));
}
process.on('exit', stopAll);

try {
  process.exit(await main());
} catch (error) {
  console.log(`FAIL ${error.stack ?? error}`);
  process.exit(1);
}
