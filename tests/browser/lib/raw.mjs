// Sends bytes over TCP exactly as they are written, and reads the answer as text. HTTP clients refuse
// to send what a stranger can send.

import http2 from 'node:http2';
import net from 'node:net';

/** The longest wait for an answer to a request that asks for the end of the connection. On a loaded
 * machine, an answer may need a few seconds. */
const ANSWER_MS_MAX = 20_000;

/**
 * Sends `bytes` and returns the answer. The answer ends with the connection, or with the first event
 * of a stream. With `quietMs`, there may be several answers, and they end if nothing arrives for this
 * time.
 */
export function exchange(base, bytes, quietMs) {
  const { hostname, port } = new URL(base);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = net.connect({ host: hostname, port }, () => socket.write(bytes, 'latin1'));
    const end = () => {
      socket.destroy();
      resolve(answer);
    };
    if (quietMs) socket.setTimeout(quietMs, end);
    else socket.setTimeout(ANSWER_MS_MAX, () => socket.destroy(new Error(`no answer to ${JSON.stringify(bytes)}: ${answer}`)));
    socket.setEncoding('latin1');
    socket.on('data', (text) => {
      answer += text;
      if (isStream(answer) ? /\ndata: .*\n\n/.test(answer) : !quietMs && isComplete(answer, bytes)) end();
    });
    socket.on('close', () => resolve(answer));
    socket.on('error', (error) => (error.code === 'ECONNRESET' || error.code === 'EPIPE' ? resolve(answer) : reject(error)));
  });
}

/** Whether an answer is an event stream. */
export function isStream(answer) {
  return /^content-type: text\/event-stream/im.test(answer);
}

/** Whether the first answer is complete. */
function isComplete(answer, request) {
  const [, head, body] = /^([^]*?)\r\n\r\n([^]*)$/.exec(answer) ?? [];
  if (head === undefined) return false;
  const length = /^content-length: ([0-9]+)/im.exec(head);
  return request.startsWith('HEAD ') || (length !== null && body.length >= Number(length[1]));
}

/** The status of the first answer, or undefined. */
export function statusOf(answer) {
  const status = /^HTTP\/1\.[01] ([0-9]{3})\b/.exec(answer);
  return status ? Number(status[1]) : undefined;
}

/** Runs `work` for all `items`, `AT_ONCE` of them at the same time. */
export async function several(items, work) {
  const queue = items.values();
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const item of queue) await work(item);
    }),
  );
}

/** Enough to keep a proxy and the server busy. More connections would only wait for each other. */
const AT_ONCE = 8;

/**
 * Sends requests over one connection with HTTP/2 and without TLS. A request is an object with its
 * headers. Returns the answers as texts that begin with the status. If the other side has no HTTP/2,
 * there are no answers.
 */
export async function overHttp2(base, requests) {
  const session = http2.connect(base);
  const isOpen = await new Promise((resolve) => {
    session.once('remoteSettings', () => resolve(true)).on('error', () => resolve(false));
    session.once('close', () => resolve(false));
  });
  const answers = isOpen ? await Promise.all(requests.map((headers) => overOneStream(session, headers))) : [];
  session.destroy();
  return answers;
}

function overOneStream(session, headers) {
  return new Promise((resolve) => {
    let answer = '';
    const isPost = headers[':method'] === 'POST';
    const stream = session.request(headers, { endStream: !isPost });
    stream.setEncoding('latin1');
    stream.on('response', (head) => (answer = `${head[':status']} ${head['content-type']}\n`));
    stream.on('data', (text) => {
      answer += text;
      if (/^200 text\/event-stream/.test(answer) && /\ndata: .*\n\n/.test(answer)) stream.close();
    });
    stream.on('error', () => {}).on('close', () => resolve(answer));
    if (isPost) stream.end('of a stranger');
  });
}
