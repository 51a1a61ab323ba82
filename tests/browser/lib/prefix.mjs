// A proxy that shows a server below a prefix of its paths. It removes the prefix, as nginx does
// with `location /live/ { proxy_pass http://server/; }`. Any other path gets 404.

import http from 'node:http';

/** Starts a proxy in front of the server at `target`. It forwards `Host` and the rest unchanged. */
export async function startPrefixProxy(target, prefix) {
  const { hostname, port } = new URL(target);
  /** The requested paths outside the prefix. */
  const strays = [];
  const server = http.createServer((request, response) => {
    const { method, url, headers } = request;
    if (!url.startsWith(prefix)) {
      strays.push(url);
      return response.writeHead(404, { 'content-type': 'text/plain' }).end('outside the prefix');
    }
    const path = `/${url.slice(prefix.length)}`;
    const upstream = http.request({ hostname, port, method, path, headers, agent: false });
    upstream.on('error', () => response.destroy());
    response.on('close', () => upstream.destroy());
    upstream.on('response', (answer) => {
      response.writeHead(answer.statusCode, answer.statusMessage, answer.headers);
      response.flushHeaders();
      answer.on('error', () => response.destroy());
      answer.pipe(response);
    });
    request.pipe(upstream);
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { base: `http://127.0.0.1:${server.address().port}`, strays, stop };
}
