// Starts programs and reads their addresses from their output. At the end, all programs are killed.

import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { publish, subscribe } from './api.mjs';

/** The longest start of a program. On a loaded machine, a debug build may need a few seconds. */
const START_TIMEOUT_MS = 30_000;
/** The number of output lines in a report. It is enough to see why a program ended. With more
 * lines, the reason of a failed check would be hard to find. */
const LINES_KEPT = 40;

/** All running processes. Each has its own process group, so its children are killed with it. */
const running = new Set();

/** The environment without variables of the checks. The server would refuse unknown variables. */
const ENVIRONMENT = Object.fromEntries(
  Object.entries(process.env).filter(([variable]) => !variable.startsWith('DOWNLINK_')),
);

/** Starts a process in its own group. */
export function start(program, args, options = {}) {
  const fixed = { stdio: ['ignore', 'pipe', 'pipe'], detached: true, env: ENVIRONMENT };
  const child = spawn(program, args, { ...fixed, ...options });
  running.add(child);
  child.on('exit', () => running.delete(child));
  child.on('error', () => running.delete(child));
  return child;
}

/** Ends a process and its children. */
export function stop(child) {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** Ends all processes. It also runs on exit. */
export function stopAll() {
  running.forEach(stop);
}

/**
 * Starts a server program and waits until a line it prints matches `urlRegex`. `options` are those of
 * `spawn`, such as `cwd`.
 *
 * Returns `{ base, child, stop, lastLines }`. `base` is the first group of the match, or the match.
 */
export async function startBinary(path, args, urlRegex = /https?:\/\/[0-9.]+:[0-9]+/, options = {}) {
  const child = start(path, args, options);
  const lines = [];
  const lastLines = () => lines.slice(-LINES_KEPT).join('\n');
  const base = await new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`${path}: ${why}\n${lastLines()}`));
    const timer = setTimeout(() => fail('printed no address'), START_TIMEOUT_MS);
    const hear = (line) => {
      lines.push(line);
      if (lines.length > 2 * LINES_KEPT) lines.splice(0, LINES_KEPT);
      const match = urlRegex.exec(line);
      if (match) {
        clearTimeout(timer);
        resolve(match[1] ?? match[0]);
      }
    };
    createInterface({ input: child.stdout }).on('line', hear);
    createInterface({ input: child.stderr }).on('line', hear);
    child.on('error', (error) => fail(error.message));
    child.on('exit', (code, signal) => fail(`ended with ${code ?? signal}`));
  }).catch((error) => {
    stop(child);
    throw error;
  });
  return { base, child, lastLines, stop: () => stop(child) };
}

/** The address that a downlink server prints. */
const LOOPBACK_URL = /http:\/\/127\.0\.0\.1:[0-9]+/;

/** The file with the publish key, which a production server makes in its folder. */
const KEY_FILE = 'downlink-publish.key';

/** The flags of a production server at which everyone may subscribe to each topic. */
export const READABLE = ['--public', '*'];

/** Starts a production server in `folder`, where it makes its key files. `publish` sends the key. */
export async function startProductionIn(folder, flags) {
  const args = ['serve', ...flags];
  const server = await startBinary(process.env.DOWNLINK_BIN, args, LOOPBACK_URL, { cwd: folder });
  const key = readFileSync(join(folder, KEY_FILE), 'utf8').trim();
  return { ...server, key, publish: (address, data) => publish(server.base, address, data, key) };
}

/**
 * Starts a production server on a free port, without a store. Checks with real proxies need it,
 * because a development server refuses requests that a proxy has forwarded.
 */
export async function startProduction(flags) {
  const folder = await mkdtemp(join(tmpdir(), 'downlink-keys-'));
  const tidy = () => rmSync(folder, { recursive: true, force: true });
  try {
    const args = ['--listen', '127.0.0.1:0', '--store', 'none', ...flags];
    const server = await startProductionIn(folder, args);
    return { ...server, stop: () => (server.stop(), tidy()) };
  } catch (error) {
    tidy();
    throw error;
  }
}

/** Starts a development server on a free port, without a store. */
export async function startDownlink() {
  const path = process.env.DOWNLINK_BIN;
  if (!path) throw new Error('DOWNLINK_BIN is not set to the path of the server');
  const args = ['dev', '--listen', '127.0.0.1:0', '--store', 'none'];
  const server = await startBinary(path, args, LOOPBACK_URL);
  return {
    ...server,
    publish: (address, data) => publish(server.base, address, data),
    subscribe: (address) => subscribe(server.base, address),
  };
}
