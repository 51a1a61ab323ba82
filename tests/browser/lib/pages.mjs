// Serves functions as the pages of checks. It answers the requests of a page and receives its
// result.

import { randomUUID } from 'node:crypto';

/** The runner answers the paths below this prefix. They never reach the server. */
export const PREFIX = '/__test/';

/** The maximum size of a page's result or request. It is JSON of at most a few thousand events. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

const pages = new Map();
const files = new Map();

/** Makes a page from a function. Returns `{ path, result, forget }`. */
export function addPage({ page, args, answers = {} }) {
  const id = randomUUID();
  const result = new Promise((resolve, reject) => {
    pages.set(id, { html: html(id, page, args), answers, resolve, reject });
  });
  return { path: `${PREFIX}page?id=${id}`, result, forget: () => pages.delete(id) };
}

/** Serves bytes at a path, by default a new one below `PREFIX`. Returns the path. */
export function addFile(bytes, type, path = `${PREFIX}file?id=${randomUUID()}`) {
  files.set(path, { bytes, type });
  return path;
}

/** Whether the runner answers this request instead of the server. */
export const isTestRequest = ({ url }) => url.startsWith(PREFIX) || files.has(url);

/** Answers a request for the runner. */
export async function answerTestRequest(request, response) {
  const url = new URL(request.url, 'http://runner');
  const id = url.searchParams.get('id');
  const page = pages.get(id);
  const file = files.get(request.url);
  if (file) return send(response, 200, file.type, file.bytes);
  if (!page) return send(response, 404, 'text/plain', 'no such page');
  switch (url.pathname) {
    case `${PREFIX}page`:
      return send(response, 200, 'text/html; charset=utf-8', page.html);
    case `${PREFIX}ask`:
      return answerQuestion(page, url.searchParams.get('name'), await body(request), response);
    case `${PREFIX}done`:
      page.resolve(await body(request));
      return send(response, 204);
    case `${PREFIX}failed`:
      page.reject(new Error(`in the page: ${await body(request)}`));
      return send(response, 204);
    default:
      return send(response, 404, 'text/plain', 'no such path');
  }
}

async function answerQuestion(page, name, value, response) {
  try {
    if (!page.answers[name]) throw new Error(`the check has no answer named ${name}`);
    const answer = await page.answers[name](value);
    send(response, 200, 'application/json', JSON.stringify(answer ?? null));
  } catch (error) {
    page.reject(error);
    send(response, 500, 'text/plain', String(error));
  }
}

function send(response, status, type, content) {
  const headers = type ? { 'content-type': type, 'cache-control': 'no-store' } : {};
  response.writeHead(status, headers).end(content);
}

async function body(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error(`a page sent more than ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString());
}

/** The JavaScript text of a value. It can be inside a script element. */
function literal(value) {
  return JSON.stringify(value ?? null).replaceAll('<', '\\u003c');
}

function html(id, page, args) {
  return `<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>check</title>
<body>
<script type="module">
const post = async (what, value) => {
  const body = JSON.stringify(value ?? null);
  const response = await fetch('${PREFIX}' + what + (what.includes('?') ? '&' : '?') + 'id=${id}', { method: 'POST', body });
  if (!response.ok) throw new Error(what + ': ' + response.status + ' ' + await response.text());
  return response.status === 204 ? null : response.json();
};
const ask = (name, value) => post('ask?name=' + encodeURIComponent(name), value);
try {
  const page = ${page};
  await post('done', await page({ ask, args: ${literal(args)} }));
} catch (error) {
  await post('failed', error + '\\n' + (error.stack ?? ''));
}
</script>
`;
}
