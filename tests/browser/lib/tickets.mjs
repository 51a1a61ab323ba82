// An app that gives tickets to its pages.

import http from 'node:http';

import { bearer, query } from './api.mjs';

/**
 * Starts the app. `POST /ticket` answers with a ticket for `ask`, which has the parameters of the
 * server's `POST /tickets`. `server()` returns the server, as `{ base, key }`.
 */
export async function startApp({ server, ask }) {
  const app = { tickets: 0 };
  const give = async (response) => {
    const { base, key } = server();
    const issued = await fetch(`${base}/tickets?${query(ask)}`, {
      method: 'POST',
      headers: bearer(key),
    });
    app.tickets += issued.ok ? 1 : 0;
    response.writeHead(issued.status, { 'content-type': issued.headers.get('content-type') });
    response.end(await issued.text());
  };
  let running;
  let port = 0;
  app.start = async () => {
    running = http.createServer((_, response) => give(response).catch(() => response.destroy()));
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
