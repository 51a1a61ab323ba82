// The checks of downlink.js share these functions. They serve the file and start servers.

import { readFile } from 'node:fs/promises';

import { publish } from './api.mjs';
import { startBinary } from './binaries.mjs';
import { startFaults } from './faults.mjs';
import { addFile } from './pages.mjs';

const FILE = new URL('../../../js/downlink/downlink.js', import.meta.url);

/** Serves downlink.js from the working tree with the headers of the server. Returns its path. */
export async function servedModule() {
  return addFile(await readFile(FILE), 'text/javascript; charset=utf-8', '/downlink.js');
}

/** Starts a development server with additional flags. */
export async function startServer(flags = []) {
  const args = ['dev', '--listen', '127.0.0.1:0', '--store', 'none', ...flags];
  const server = await startBinary(process.env.DOWNLINK_BIN, args, /http:\/\/127\.0\.0\.1:[0-9]+/);
  return { ...server, publish: (address, data) => publish(server.base, address, data) };
}

/** Runs `use` with a front, and with a proxy that can fail between front and server. Returns its
 * result. */
export async function withFaults({ server, startFront }, use) {
  const faults = await startFaults(server.base);
  try {
    const front = await startFront(faults.base);
    return await use({ faults, front, module: await servedModule() });
  } finally {
    faults.stop();
  }
}

/** The numbers from 1 to `last`. */
export function upTo(last) {
  return Array.from({ length: last }, (_, n) => n + 1);
}
