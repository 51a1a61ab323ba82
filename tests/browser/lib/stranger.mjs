// The requests of a stranger: somebody who can send any bytes to a proxy, and has no credential.
//
// In the requests, `BACKEND` stands for the address of the server. A stranger can guess it.

/** The names that the checks use. A stranger knows the first three, but not the hidden topic. */
export const NAMES = { open: 'news/today', secret: 'secret/plan', client: 'ada', hidden: 'hidden/topic' };

/** The data of the events on a public topic begins with this. */
export const OPEN_DATA = 'for everybody';
/** The data of all other events begins with this. */
export const SECRET_DATA = 'for the owner';

const PRIVATE = `topic=${NAMES.secret}`;
const STORY = 'start=earliest';

/** Requests for what every stranger may have. */
export const ALLOWED = ['GET /healthz', 'GET /readyz', 'GET /downlink.js', `GET /events?topic=${NAMES.open}&${STORY}`];

/** The paths and methods of docs/HTTP.md that a stranger must not use. */
export const FORBIDDEN = [
  `GET /events?${PRIVATE}&${STORY}`,
  `GET /events?topic=*&${STORY}`,
  `GET /events?topic=hidden/*&${STORY}&meta=1`,
  `GET /events?topic=${NAMES.open}&${PRIVATE}&${STORY}`,
  `GET /events?client=${NAMES.client}&${STORY}`,
  `GET /events?topic=${NAMES.open}&client=${NAMES.client}&${STORY}`,
  `GET /events?${PRIVATE}&ticket=`,
  `GET /events?ticket=AQAJ`,
  `HEAD /events?${PRIVATE}`,
  `POST /events?${PRIVATE}`,
  `POST /events?topic=${NAMES.open}`,
  `POST /events?client=${NAMES.client}`,
  'POST /events?everyone=true',
  `POST /events?topic=stolen&last=true`,
  'POST /events/batch',
  `POST /tickets?${PRIVATE}`,
  `POST /tickets?topic=${NAMES.open}`,
  `POST /tickets?client=${NAMES.client}`,
  `POST /revoke?client=${NAMES.client}`,
  'POST /revoke?key=0000000000000000',
  `POST /finish?${PRIVATE}`,
  `POST /finish?topic=${NAMES.open}`,
  'GET /topics',
  'GET /topics?prefix=hidden',
  `GET /topics?topic=${NAMES.secret}`,
  'GET /clients',
  `DELETE /clients?client=${NAMES.client}`,
  'GET /metrics',
  'HEAD /metrics',
  'GET /',
  'GET /page.js',
];

/** Other spellings of forbidden requests, which a proxy may change. */
export const SPELLINGS = [
  'GET //metrics',
  'GET ///clients',
  'GET /./metrics',
  'GET /healthz/../metrics',
  'GET /healthz/..;/metrics',
  'GET /healthz/%2e%2e/metrics',
  'GET /healthz%2f..%2fmetrics',
  'GET /healthz%2F%2E%2E%2Fclients',
  'GET /%6detrics',
  'GET /%2fmetrics',
  'GET /metrics/',
  'GET /metrics?',
  'GET /metrics#/healthz',
  'GET /metrics;/healthz',
  'GET /metrics%00/healthz',
  'GET /metrics%20HTTP/1.1',
  'GET /METRICS',
  'GET \\metrics',
  'GET metrics',
  'GET ?/metrics',
  'GET http://localhost/metrics',
  'GET http://BACKEND/metrics',
  'GET http://admin:admin@localhost/metrics',
  'GET https://localhost/metrics',
  'GET unix:/metrics',
  'GET /?/metrics',
  'GET /healthz?/../metrics',
  'GET /healthz%3f/../metrics',
  'GET /healthz%0d%0aHost:%20localhost%0d%0a%0d%0aGET%20/metrics',
  'GET /healthz?x=%0d%0a%0d%0aGET%20/metrics%20HTTP/1.1',
  'get /metrics',
  'PUT /metrics',
  'TRACE /metrics',
  'FOO /metrics',
  'PROPFIND /metrics',
  'CONNECT BACKEND',
  'CONNECT /metrics',
  'OPTIONS *',
  `POST //events?${PRIVATE}`,
  `POST /./events?${PRIVATE}`,
  `POST /%65vents?${PRIVATE}`,
  `POST /events/?${PRIVATE}`,
  `POST http://localhost/events?${PRIVATE}`,
  `PUT /events?${PRIVATE}`,
  `GET //events?${PRIVATE}`,
  `GET /events?topic=secret%2Fplan&${STORY}`,
  `GET /events?topic=secret%252Fplan&${STORY}`,
  `GET /events?topic=${NAMES.open}%26topic%3Dsecret/plan&topic=secret/plan&${STORY}`,
  `GET /events?topic={a}/*&${STORY}`,
  `GET /events?topic=news/today;topic=secret/plan&topic={a}/{b}&${STORY}`,
  `GET /events?topic=secret/%2e%2e/secret/plan&${STORY}`,
  `GET /events?access_token=x&${PRIVATE}`,
];

/** Headers that might make a request look local or trusted. `HOST` stands for the usual `Host`. */
export const FORGERIES = [
  ['Host: HOST'],
  ['Host: localhost'],
  ['Host: BACKEND'],
  ['Host: [::1]'],
  ['Host: push.example'],
  ['Host: HOST', 'Host: localhost'],
  ['Host: localhost', 'X-Forwarded-For: 127.0.0.1', 'X-Forwarded-Host: localhost', 'X-Forwarded-Proto: https'],
  ['Host: HOST', 'X-Real-IP: 127.0.0.1', 'True-Client-IP: 127.0.0.1', 'CF-Connecting-IP: 127.0.0.1'],
  ['Host: HOST', 'Forwarded: for=127.0.0.1;host=localhost;proto=http', 'Via: 1.1 localhost'],
  ['Host: localhost', 'Origin: http://localhost', 'Sec-Fetch-Site: same-origin', 'Cookie: __Host-downlink=x'],
  ['Host: localhost', 'Accept: text/event-stream', 'User-Agent: Mozilla/5.0', 'Sec-Fetch-Mode: cors', 'Last-Event-ID: earliest'],
  ['Host: localhost', 'Origin: http://push.example', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: no-cors'],
  ['Host: HOST', 'Authorization: Basic YWRtaW46YWRtaW4='],
  ['Host: HOST', 'Authorization: Bearer'],
  ['Host: HOST', 'Authorization: Digest username="admin"', 'Proxy-Authorization: Bearer admin'],
  ['Host: HOST', 'X-Original-URL: /metrics', 'X-Rewrite-URL: /metrics', 'X-HTTP-Method-Override: DELETE'],
  ['Host: localhost', 'Connection: close, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Server, Via, Host'],
  ['Host: HOST', 'Connection: close, Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA'],
  ['Host: HOST', 'Connection: close, Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 777', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='],
];

const BODIES = {
  'POST /events/batch': `{"topic":"${NAMES.secret}","data":"of a stranger"}\n`,
  'POST /events?': 'of a stranger',
};

/** The bytes of a request. A forged `Connection` takes the place of `close`. */
export function written(request, headers = FORGERIES[0], version = '1.1') {
  const body = Object.entries(BODIES).find(([beginning]) => request.startsWith(beginning))?.[1] ?? '';
  const hasConnection = headers.some((header) => header.startsWith('Connection:'));
  const lines = [
    `${request} HTTP/${version}`,
    ...headers,
    ...(hasConnection ? [] : ['Connection: close']),
    ...(body || request.startsWith('POST') ? [`Content-Length: ${body.length}`] : []),
  ];
  return `${lines.join('\r\n')}\r\n\r\n${body}`;
}

/** Requests of HTTP/1.0, some without `Host`. */
export function old() {
  return [...FORBIDDEN, ...SPELLINGS].flatMap((request) => [
    written(request, [], '1.0'),
    written(request, ['Host: localhost', 'Connection: keep-alive'], '1.0'),
    `${request}\r\n\r\n`,
  ]);
}

/** A request that a stranger hides in another one. The last two have no end: the next request on the
 * same connection to the server would be taken for a header or for a body, with its key. */
const INNER = [
  written(`POST /events?${PRIVATE}`, ['Host: localhost']),
  `GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n`,
  `POST /finish?${PRIVATE} HTTP/1.1\r\nHost: localhost\r\nX-Rest: `,
  `POST /events?topic=${NAMES.open} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300\r\n\r\n`,
];

/** The outer requests that could hide `inner`. Each is ambiguous in its own way: for one program,
 * `inner` is a part of the body, and for another program, it is the next request. */
const OUTER = {
  'a body of a GET': (inner) => head('GET /downlink.js', `Content-Length: ${inner.length}`) + inner,
  'a body of a HEAD': (inner) => head('HEAD /downlink.js', `Content-Length: ${inner.length}`) + inner,
  'a body of a refused POST': (inner) => head(`POST /events?${PRIVATE}`, `Content-Length: ${inner.length}`) + inner,
  'a body of an unknown path': (inner) => head('POST /nowhere', `Content-Length: ${inner.length}`) + inner,
  'a pipeline': (inner) => head('GET /healthz') + inner,
  'a pipeline after a POST': (inner) => head('POST /healthz', 'Content-Length: 0') + inner,
  'a pipeline after Connection: close': (inner) => head('GET /healthz', 'Connection: close') + inner,
  'Expect': (inner) => head(`POST /events?${PRIVATE}`, 'Expect: 100-continue', `Content-Length: ${inner.length}`) + inner,
  'an Upgrade': (inner) => head('GET /healthz', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 777') + inner,
  'an h2c Upgrade': (inner) => head('GET /healthz', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA') + inner,
  ...Object.fromEntries(
    [
      'Transfer-Encoding: chunked',
      'Transfer-Encoding: xchunked',
      'Transfer-Encoding : chunked',
      'Transfer-Encoding:\tchunked',
      'Transfer-Encoding: \x0bchunked',
      'Transfer-Encoding: "chunked"',
      'Transfer-Encoding: chunKed',
      'Transfer-Encoding: chunked, identity',
      'Transfer-Encoding: identity, chunked',
      'Transfer-Encoding: chunked, chunked',
      'Transfer-Encoding: identity\r\nTransfer-Encoding: chunked',
      'Transfer-Encoding:\r\n chunked',
      'X: y\nTransfer-Encoding: chunked',
      'X: y\rTransfer-Encoding: chunked',
      'X: \x00\r\nTransfer-Encoding: chunked',
      'Transfer_Encoding: chunked',
      'Connection: keep-alive, Transfer-Encoding\r\nTransfer-Encoding: chunked',
      'Connection: keep-alive, Content-Length\r\nX: y',
    ].flatMap((coding) => [
      [`a length with ${JSON.stringify(coding)}`, (inner) => lengthAndChunks(coding, inner)],
      [`${JSON.stringify(coding)} with a short length`, (inner) => shortLength(coding, inner)],
    ]),
  ),
  ...Object.fromEntries(
    ['0\r\nContent-Length: N', 'N\r\nContent-Length: 0', '0, N', 'N, N', '+N', '0xN', '00', '-1', 'N_0', ' 0 N', '0\n', '18446744073709551616', '']
      .map((length) => [`a length of ${JSON.stringify(length)}`, (inner) => head('POST /healthz', `Content-Length: ${length.replaceAll('N', inner.length)}`) + inner]),
  ),
  ...Object.fromEntries(
    ['0\n\n', '0;x\n\r\n', '00\r\n\r\n', '-0\r\n\r\n', '0x0\r\n\r\n', '0 \r\n\r\n', '10000000000000000\r\n\r\n', '1\r\nZ0\r\n\r\n', '0\r\nHost: localhost\r\nX: y\r\n\r\n', '0\r\nContent-Length: 40\r\n\r\n']
      .map((chunks) => [`chunks ${JSON.stringify(chunks)}`, (inner) => head('POST /healthz', 'Transfer-Encoding: chunked') + chunks + inner]),
  ),
  'HTTP/1.0 with chunks': (inner) => head('POST /healthz', 'Connection: keep-alive', 'Transfer-Encoding: chunked').replace('HTTP/1.1', 'HTTP/1.0') + `0\r\n\r\n${inner}`,
  'line ends without CR': (inner) => head('GET /healthz', 'X: y').replaceAll('\r\n', '\n') + inner,
  'a CR inside a header': (inner) => head('GET /healthz', `X: y\r\r${inner.replaceAll('\r\n', '\r')}`),
  'a space before a header': (inner) => head('GET /healthz', ' Content-Length: 0', `Content-Length: ${inner.length}`) + inner,
  'a header without a name': (inner) => head('GET /healthz', `: y`, `Content-Length: ${inner.length}`) + inner,
  'an HTTP version': (inner) => head('GET /healthz HTTP/1.1 ', 'X: y') + inner,
  'the PROXY protocol': (inner) => `PROXY TCP4 127.0.0.1 127.0.0.1 40000 8080\r\n${inner}`,
  'the PROXY protocol for no address': (inner) => `PROXY UNKNOWN\r\n${inner}`,
};

function head(request, ...headers) {
  const line = request.includes(' HTTP/') ? request : `${request} HTTP/1.1`;
  return `${[line, 'Host: localhost', ...headers].join('\r\n')}\r\n\r\n`;
}

/** For a program that sees only the chunks, the body is empty, and `inner` is the next request. */
function lengthAndChunks(coding, inner) {
  const body = `0\r\n\r\n${inner}`;
  return head('POST /healthz', `Content-Length: ${body.length}`, coding) + body;
}

/** For a program that sees only the length, the body ends after the size of the first chunk. */
function shortLength(coding, inner) {
  const size = `${inner.length.toString(16)}\r\n`;
  return `${head('POST /healthz', coding, `Content-Length: ${size.length}`)}${size}${inner}\r\n0\r\n\r\n`;
}

/** The attempts to smuggle a request past a proxy, as `{ name, bytes }`. */
export function smuggled() {
  return Object.entries(OUTER).flatMap(([name, outer]) => INNER.map((inner) => ({ name, bytes: outer(inner) })));
}

/** The forbidden requests for HTTP/2, as objects with headers. */
export function forHttp2() {
  const trusted = [
    { ':authority': 'localhost' },
    { ':authority': 'localhost', 'x-forwarded-for': '127.0.0.1', 'x-real-ip': '127.0.0.1', forwarded: 'for=127.0.0.1' },
    { ':authority': 'push.example', host: 'localhost' },
    { host: 'localhost' },
    { ':authority': 'localhost', authorization: 'Basic YWRtaW46YWRtaW4=', cookie: '__Host-downlink=x' },
  ];
  return trusted.flatMap((headers) =>
    [...FORBIDDEN, ...SPELLINGS.filter((request) => !request.startsWith('CONNECT'))].map((request) => {
      const [, method, path] = /^([^ ]+) (.*)$/.exec(request);
      return { ':method': method, ':scheme': 'http', ':path': path, ...headers };
    }),
  );
}

/** Texts that are only in answers to requests with rights. A refusal contains none of them. */
const TELLTALES = [
  SECRET_DATA,
  NAMES.hidden,
  '"id":"',
  '"ids":',
  '"topics":',
  '"published":',
  '"clients":',
  '"disconnected":',
  '"revoked":',
  '"ticket":"',
  '"finished":',
  '# TYPE',
  'page-feed.js',
];

/** The text of an answer that shows a right, or undefined. */
export function betrayed(answer) {
  return TELLTALES.find((text) => answer.includes(text));
}
