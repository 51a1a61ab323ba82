// An app that decides which events its pages get: it gives tickets, and answers the questions of the
// server about a session.

import http from 'node:http';

import { bearer, query } from './api.mjs';

/** The cookie of the app's only user. */
export const SESSION = { name: 'session', value: 'secret-of-ada' };

/**
 * Starts the app. Both of its routes give the client `ada` the topics `rooms/*` for `lifetime`
 * seconds:
 *
 * - `POST /ticket` answers with a ticket. `server()` returns the server, as `{ base, key }`.
 * - `POST /authorize` is for `--authorize-url`.
 */
export async function startApp({ server, lifetime }) {
  const app = { lifetime, grants: 0 };
  const give = async (response) => {
    const { base, key } = server();
    const ask = { topic: 'rooms/*', client: 'ada', lifetime: `${app.lifetime}s` };
    const issued = await fetch(`${base}/tickets?${query(ask)}`, { method: 'POST', headers: bearer(key) });
    app.grants += issued.ok ? 1 : 0;
    response.writeHead(issued.status, { 'content-type': issued.headers.get('content-type') });
    response.end(await issued.text());
  };
  const authorize = (request, response) => {
    const known = request.headers.cookie?.includes(`${SESSION.name}=${SESSION.value}`);
    if (!known) return response.writeHead(401).end();
    app.grants += 1;
    const until = Math.floor(Date.now() / 1_000) + app.lifetime;
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify({ subscribe: ['rooms/*'], client: 'ada', until }));
  };
  let running;
  let port = 0;
  app.start = async () => {
    running = http.createServer((request, response) => {
      if (request.url === '/authorize') return authorize(request, response);
      return give(response).catch(() => response.destroy());
    });
    await new Promise((resolve, reject) => {
      running.once('error', reject).listen(port, '127.0.0.1', resolve);
    });
    ({ port } = running.address());
    app.base = `http://127.0.0.1:${port}`;
  };
  app.stop = () => {
    running.close();
    running.closeAllConnections();
  };
  await app.start();
  return app;
}
