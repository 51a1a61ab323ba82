// The proxies as a user configures them who has not read our documents: the shortest configuration
// that forwards everything.

import { NAMES, startWritten, withStarted } from './proxies.mjs';

const HAPROXY = (port, mode, server, option = '') => `defaults
    mode ${mode}
    ${option}
    timeout connect 5s
    timeout client 30s
    timeout server 30s

frontend web
    bind 127.0.0.1:${port}
    default_backend app

backend app
    server app ${server}
`;

/**
 * The configurations, for a proxy on `port` in front of `server`, an address such as
 * `127.0.0.1:8080`. `trace` says what shows the server that a request comes through the proxy:
 *
 * - `headers`: the proxy adds a header to each request.
 * - `host`: the proxy passes on the `Host` that the client has sent, and changes nothing else.
 * - `none`: the proxy even replaces `Host` with the address of the server.
 */
const NAIVE = {
  nginx: {
    program: 'nginx',
    trace: 'none',
    text: (port, server) => `server {
    listen 127.0.0.1:${port};
    location / {
        proxy_pass http://${server};
    }
}
`,
  },
  haproxy: {
    program: 'haproxy',
    trace: 'host',
    text: (port, server) => HAPROXY(port, 'http', server),
  },
  'haproxy-forwardfor': {
    program: 'haproxy',
    trace: 'headers',
    text: (port, server) => HAPROXY(port, 'http', server, 'option forwardfor'),
  },
  'haproxy-tcp': {
    program: 'haproxy',
    trace: 'host',
    text: (port, server) => HAPROXY(port, 'tcp', server),
  },
  apache: {
    program: 'apache',
    trace: 'headers',
    text: (port, server) => `Listen 127.0.0.1:${port}
<VirtualHost *:${port}>
    ProxyPass / http://${server}/
    ProxyPassReverse / http://${server}/
</VirtualHost>
`,
  },
  caddy: {
    program: 'caddy',
    trace: 'headers',
    // With the first lines, Caddy uses no other ports and gets no certificates.
    text: (port, server) => `{
	admin off
	auto_https off
}

:${port} {
	reverse_proxy ${server}
}
`,
  },
};

/** Starts each naive proxy in front of `backend`, the base of a server. Runs `use` with the proxies,
 * and then stops them. Each proxy has the member `trace`. */
export function withNaiveProxies(backend, use) {
  const { host } = new URL(backend);
  const installed = Object.entries(NAIVE).filter(([, { program }]) => NAMES.includes(program));
  const starting = installed.map(async ([name, { program, trace, text }]) => {
    const proxy = await startWritten(name, program, (port) => text(port, host));
    return { ...proxy, trace };
  });
  return withStarted(starting, use);
}
