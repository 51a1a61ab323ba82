// Starts real proxies from Debian's packages. Each uses a copy of its file in deploy/proxies.

import { randomInt } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { start, stop } from './binaries.mjs';

const SHIPPED = fileURLToPath(new URL('../../../deploy/proxies/', import.meta.url));

/** Whether to run the long version of the checks, as the nightly run does. */
export const LONG = process.env.DOWNLINK_PROXY_LONG === '1';

/** The longest start of a proxy. On a loaded machine, Apache may need a few seconds. */
const START_TIMEOUT_MS = 30_000;
const START_POLL_MS = 50;

/** The number of bytes of a proxy's output that the report of a failed check shows. */
const BYTES_KEPT = 2_000;

/** These texts are in all files. The copy has other texts in their place. If a file does not
 * contain one of them, the check fails. */
const BACKEND = '127.0.0.1:8080';
const PRIVATE_NETWORK = '10.0.0.0/8';

/**
 * The proxies. In the copy of the file, the result of `listenOn(port)` replaces `listen`, and
 * another idle limit replaces the 60 seconds in each text of `idle`. `prepare(folder, file)` adapts
 * the copy to the folder. `start(folder, file)` writes the other files that the proxy needs. It
 * returns the command that runs the proxy in the foreground.
 */
const PROXIES = {
  nginx: {
    file: 'nginx.conf',
    listen: 'listen 80;\n    listen [::]:80;',
    listenOn: (port) => `listen 127.0.0.1:${port};`,
    idle: ['proxy_read_timeout 60s;'],
    async start(folder, file) {
      const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
      const main = join(folder, 'main.conf');
      const lines = [
        'daemon off;',
        asRoot('user root;'),
        `pid ${folder}/nginx.pid;`,
        'error_log stderr;',
        'events { worker_connections 1024; }',
        'http {',
        'access_log off;',
        ...temp.map((what) => `${what}_temp_path ${folder}/${what};`),
        `include ${file};`,
        '}',
      ];
      await writeFile(main, lines.join('\n'));
      return ['nginx', '-p', folder, '-e', 'stderr', '-c', main];
    },
  },
  haproxy: {
    file: 'haproxy.cfg',
    listen: 'bind :80\n',
    listenOn: (port) => `bind 127.0.0.1:${port}\n`,
    idle: ['timeout client 60s', 'timeout server 60s'],
    start: (_, file) => ['haproxy', '-db', '-f', file],
  },
  apache: {
    file: 'apache.conf',
    listen: '<VirtualHost *:80>',
    listenOn: (port) => `Listen 127.0.0.1:${port}\n<VirtualHost 127.0.0.1:${port}>`,
    idle: ['timeout=60'],
    async prepare(folder, file) {
      await writeFile(join(folder, 'apache-reconnect.asis'), await readFile(SHIPPED + 'apache-reconnect.asis'));
      await edit(file, '/etc/apache2/apache-reconnect.asis', () => join(folder, 'apache-reconnect.asis'));
    },
    async start(folder, file) {
      const main = join(folder, 'main.conf');
      const modules = ['mpm_event', 'authn_core', 'authz_core', 'authz_host', 'alias', 'asis', 'env', 'proxy', 'proxy_http'];
      const lines = [
        ...modules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`),
        `ServerRoot ${folder}`,
        'ServerName localhost',
        `PidFile ${folder}/apache.pid`,
        `Mutex file:${folder} default`,
        'ErrorLog "|/bin/cat"',
        asRoot('User www-data\nGroup www-data'),
        `Include ${file}`,
      ];
      await writeFile(main, lines.join('\n'));
      return ['apache2', '-f', main, '-DFOREGROUND'];
    },
  },
  caddy: {
    file: 'Caddyfile',
    listen: 'events.example.org {\n',
    listenOn: (port) => `{\n\tadmin off\n\tauto_https off\n}\n\nhttp://127.0.0.1:${port} {\n\tbind 127.0.0.1\n`,
    // Caddy has no limit for a silent stream.
    idle: [],
    start: (_, file) => ['caddy', 'run', '--adapter', 'caddyfile', '--config', file],
  },
};

/** The range of ports for proxies. Linux gives ports from 32768 on to outgoing connections. */
const PORTS = [20_000, 32_768];

/** The ports that `freePort` has returned. */
const given = new Set();

/** A private network that contains this machine, for `publishing`. */
export const THIS_MACHINE = '127.0.0.0/8';

/** The names of the proxies to check. Without the variable, all proxies are checked. */
export const NAMES = process.env.DOWNLINK_PROXIES?.split(',').filter(Boolean) ?? Object.keys(PROXIES);

/** Whether a proxy has a limit for silent streams. */
export function hasIdleLimit(name) {
  return PROXIES[name].idle.length > 0;
}

/**
 * Starts one proxy on a free port in front of `backend`, the base of a server.
 *
 * `idleSeconds` replaces the idle limit of the shipped file. If `publishing` is given, it is a
 * private network, and the commented parts of the file that allow it to publish are in effect.
 *
 * Returns `{ name, publishing, base, stop, lastLines }`.
 */
export async function startProxy(name, { backend, idleSeconds, publishing }) {
  const proxy = PROXIES[name];
  const [folder, file] = await folderFor(name, await readFile(SHIPPED + proxy.file));
  const port = await freePort();
  await edit(file, proxy.listen, () => proxy.listenOn(port));
  await edit(file, BACKEND, () => new URL(backend).host);
  for (const limit of idleSeconds ? proxy.idle : []) {
    await edit(file, limit, () => limit.replace('60', String(idleSeconds)));
  }
  if (publishing) {
    await edit(file, PRIVATE_NETWORK, () => publishing);
    // In the files, a comment has a space after `#`. A line without this space is a setting that is
    // turned off.
    await edit(file, /^(\s*)#(?=\S|\t)/gm, (_, indent) => indent);
  }
  await proxy.prepare?.(folder, file);
  return launch({ name, port, publishing, folder }, proxy, file);
}

/**
 * Starts the proxy `program` on a free port, with the configuration `written(port)`. The failure of a
 * check calls it `name`. Returns the same as `startProxy`.
 */
export async function startWritten(name, program, written) {
  const port = await freePort();
  const [folder, file] = await folderFor(program, written(port));
  return launch({ name, port, folder }, PROXIES[program], file);
}

/** Writes the configuration of a proxy into a new folder. */
async function folderFor(name, configuration) {
  const folder = await mkdtemp(join(tmpdir(), `downlink-${name}-`));
  // Apache and Caddy may run as another user.
  await chmod(folder, 0o755);
  const file = join(folder, PROXIES[name].file);
  await writeFile(file, configuration);
  return [folder, file];
}

async function launch(about, proxy, file) {
  const { folder } = about;
  const [program, ...args] = await proxy.start(folder, file);
  const env = { ...process.env, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
  return running(about, start(program, args, { cwd: folder, env }));
}

/** Starts all proxies, or the proxies with the given `names`, at the same time. Runs `use` and then
 * stops them. */
export function withProxies({ names = NAMES, ...options }, use) {
  return withStarted(names.map((name) => startProxy(name, options)), use);
}

/** Waits until all proxies of `starting` have started. Runs `use` and then stops them. */
export async function withStarted(starting, use) {
  const started = await Promise.allSettled(starting);
  const proxies = started.filter(({ value }) => value).map(({ value }) => value);
  try {
    started.forEach(({ reason }) => {
      if (reason) throw reason;
    });
    return await use(proxies);
  } finally {
    await Promise.all(proxies.map((proxy) => proxy.stop()));
  }
}

/** Runs `check(proxy)` for all proxies at the same time. A failure names the proxy. */
export function forEach(proxies, check) {
  return Promise.all(
    proxies.map(async (proxy) => {
      try {
        return await check(proxy);
      } catch (error) {
        const message = `${proxy.name}: ${error.message}\n--- the output of the proxy:\n${proxy.lastLines()}`;
        throw new Error(message, { cause: error });
      }
    }),
  );
}

async function running({ name, port, publishing, folder }, child) {
  let said = '';
  let ended = '';
  const hear = (bytes) => {
    said = (said + bytes).slice(-BYTES_KEPT);
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  const end = new Promise((resolve) => {
    const hearEnd = (why) => {
      ended ||= why;
      resolve();
    };
    child.on('error', (error) => hearEnd(error.message));
    child.on('close', (code, signal) => hearEnd(`ended with ${code ?? signal}`));
  });
  const stopAndTidy = async () => {
    stop(child);
    await end;
    // The last child processes may still write files while they end.
    await rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  };
  const proxy = { name, publishing, base: `http://127.0.0.1:${port}`, stop: stopAndTidy, lastLines: () => said.trim() };
  const late = performance.now() + START_TIMEOUT_MS;
  // HAProxy answers 503 until its first health check of the server has succeeded.
  while (!(await isHealthy(proxy.base))) {
    if (ended || performance.now() > late) {
      const why = ended || 'does not answer';
      await proxy.stop();
      throw new Error(`${name}: ${why}\n${said}`);
    }
    await pause(START_POLL_MS);
  }
  return proxy;
}

async function isHealthy(base) {
  try {
    return (await fetch(`${base}/healthz`)).ok;
  } catch {
    return false;
  }
}

/** Replaces each occurrence of a text. Throws if the file does not contain the text. */
async function edit(file, text, replacement) {
  const before = await readFile(file, 'utf8');
  const after = before.replaceAll(text, replacement);
  if (after === before) throw new Error(`${file} does not contain ${text}: adapt lib/proxies.mjs`);
  await writeFile(file, after);
}

/** Returns the lines if this process runs as root. Other users do not need these settings. */
function asRoot(lines) {
  return process.getuid() === 0 ? lines : '';
}

/**
 * Returns a port that no process uses and that this function has not returned before. A proxy can
 * use it later, because outgoing connections do not get such ports.
 */
export async function freePort() {
  for (;;) {
    const port = randomInt(...PORTS);
    if (!given.has(port) && (await isFree(port))) {
      given.add(port);
      return port;
    }
  }
}

function isFree(port) {
  const server = net.createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
