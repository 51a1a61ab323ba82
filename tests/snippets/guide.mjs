// Runs the commands of the guide's chapters about access control in a shell, in order.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { start, startBinary } from '../browser/lib/binaries.mjs';

const CHAPTERS = ['24-access-control.md', '25-tickets.md'];
const FOLDER = '../../crates/downlink/guide/';
/** The address in the chapters. The server of the check has another port. */
const ADDRESS = 'http://127.0.0.1:8080';
/** Blocks with these texts need other machines, or folders of the system. */
const ELSEWHERE = /example\.org|\/run\/|--admin-listen/;
/** The longest time for one block. */
const PATIENCE_MS = 30_000;
/** The pause between two looks at the output of a server. */
const LOOK_EVERY_MS = 20;
/** The number of commands in the chapters. With fewer, the pattern of the blocks is wrong. */
const COMMANDS_MIN = 7;

/** The blocks of a chapter with their language, and the output that is shown below a command. */
function blocks(text) {
  const fences = [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)];
  const found = fences.map(([whole, language, body], at) => {
    const next = fences[at + 1];
    // Only prose that ends with a colon may stand between a command and its output.
    const between = next && text.slice(fences[at].index + whole.length, next.index).trim();
    const isShown = next && ['text', 'json'].includes(next[1]) && /^$|^[^\n]+:$/.test(between);
    return { language, body, output: isShown ? next[2] : null };
  });
  return found.filter(({ language, body }) => language === 'sh' && !ELSEWHERE.test(body));
}

/** The pattern of a line in which `…` stands for any text. */
function pattern(line) {
  const escaped = line.split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${escaped.join('.*')}$`, 'm');
}

function compare(output, shown, base) {
  for (const line of shown.split('\n').filter((line) => line.trim() !== '' && line.trim() !== '…')) {
    assert.match(output, pattern(line.replace(ADDRESS, base)));
  }
}

/** Compares the output of a server that still prints its first lines. */
async function compareSoon(server, shown) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return compare(server.lastLines(), shown, server.base);
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  }
}

/** Runs a block, and returns its output. */
async function run(script, folder, path, base) {
  const env = { PATH: `${path}:${process.env.PATH}`, HOME: folder, DOWNLINK_URL: base };
  const child = start('sh', ['-e', '-c', script], { cwd: folder, env });
  let output = '';
  const errors = [];
  child.stdout.on('data', (bytes) => (output += bytes));
  child.stderr.on('data', (bytes) => errors.push(bytes));
  const timer = setTimeout(() => child.kill(), PATIENCE_MS);
  const code = await new Promise((resolve) => child.on('close', (code, signal) => resolve(code ?? signal)));
  clearTimeout(timer);
  assert.equal(code, 0, `the command succeeds: ${script}\n${errors.join('')}`);
  return output;
}

/** Runs the commands of the chapters in `folder`. `binary` is the path of the server. */
export async function checkGuide(folder, binary) {
  const path = fileURLToPath(new URL('.', `file://${binary}`));
  let server = null;
  let commands = 0;
  for (const chapter of CHAPTERS) {
    const text = await readFile(new URL(FOLDER + chapter, import.meta.url), 'utf8');
    for (const { body, output } of blocks(text)) {
      commands += 1;
      if (body.startsWith('downlink serve')) {
        assert.equal(server, null, 'the chapters start one server');
        const command = `cd '${folder}' && PATH='${path}':$PATH && exec ${body.trim()} --listen 127.0.0.1:0`;
        server = await startBinary('sh', ['-c', command], /http:\/\/127\.0\.0\.1:[0-9]+/);
        await compareSoon(server, output);
        continue;
      }
      const printed = await run(body.replaceAll(ADDRESS, server.base), folder, path, server.base);
      if (output !== null) compare(printed, output, server.base);
    }
  }
  assert.ok(commands >= COMMANDS_MIN, `the chapters have ${commands} commands`);
}
