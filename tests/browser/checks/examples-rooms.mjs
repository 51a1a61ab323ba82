// The example `rooms`. Carol uses a browser, and Bob uses plain requests. The check covers sign-in,
// presence, typing notices, messages as text, a private room, and leaving.

import assert from 'node:assert/strict';
import { join } from 'node:path';

export const name = 'examples-rooms';
export const timeoutMs = 90_000;

const HOSTILE = '<img src=x onerror="document.title=\'owned\'">';

export async function run({ browser, startBinary, startFront }) {
  const rooms = await startBinary(join(process.env.DOWNLINK_BIN_DIR, 'rooms'), ['0']);
  try {
    const front = await startFront(rooms.base);
    const bob = await startPerson(rooms.base, 'bob');
    await bob.join('lobby');
    const answers = {
      bobTypes: () => bob.post('/typing?room=lobby'),
      bobSays: (text) => bob.say('lobby', text),
      bobLeaves: () => bob.leave(),
      bobHears: (text) => bob.hears(text),
    };
    const seen = await browser.run({ base: front.base, page, args: { hostile: HOSTILE }, answers });

    assert.equal(seen.refused, 'A name has 1 to 20 letters from a to z, digits, - and _. Choose another one.');
    assert.equal(seen.people, 'bob, carol');
    assert.equal(seen.typing, 'bob is typing…');
    assert.deepEqual(seen.said, [['bob', HOSTILE], ['carol', 'Hello, <b>bob</b>']]);
    assert.equal(seen.typingAfter, '', 'after a message, its author is not shown as typing');
    assert.equal(seen.alone, 'carol');
    assert.deepEqual(seen.notices, ['bob joined.', 'carol joined.', 'bob left.'], 'a user with two tabs counts once');
    assert.deepEqual(seen.rooms, ['lobby', 'random']);
    assert.equal(seen.privately, 'The room private-team is not for carol. Go to another one.');
    assert.equal(seen.elements, 0, 'typed text must not become an element');
    assert.equal(seen.title, 'Rooms', 'typed text must not run as script');
    assert.equal(seen.cookie, '', 'scripts must not see the session cookie');
    assert.equal(seen.signedOut, true);
  } finally {
    rooms.stop();
  }
}

/** A user who sends requests without a page. */
async function startPerson(base, user) {
  const signedIn = await fetch(`${base}/sign-in`, { method: 'POST', body: new URLSearchParams({ user }) });
  const [cookie] = signedIn.headers.get('set-cookie').split(';');
  const left = new AbortController();
  let heard = '';
  let look = () => {};
  const post = async (path, body, type = 'application/json') => {
    const answer = await fetch(base + path, { method: 'POST', body, headers: { cookie, 'content-type': type } });
    assert.equal(answer.status, 202);
  };
  return {
    post,
    say: (room, text) => post(`/messages?room=${room}`, JSON.stringify({ text })),
    async join(room) {
      const { body } = await fetch(`${base}/events?room=${room}`, { headers: { cookie }, signal: left.signal });
      const read = async () => {
        for await (const bytes of body) {
          heard += Buffer.from(bytes).toString();
          look();
        }
      };
      read().catch(() => {});
    },
    leave: () => left.abort(),
    hears: (text) =>
      new Promise((resolve) => {
        look = () => heard.includes(text) && resolve();
        look();
      }),
  };
}

/** Uses the example's own page in a frame, as a user would. */
async function page({ ask, args: { hostile } }) {
  const frame = document.createElement('iframe');
  frame.src = '/';
  await new Promise((resolve) => {
    frame.onload = resolve;
    document.body.append(frame);
  });
  const inside = frame.contentDocument;
  const find = (id) => inside.getElementById(id);
  const until = (holds) =>
    new Promise((resolve) => {
      const look = () => {
        if (!holds()) return;
        observer.disconnect();
        resolve();
      };
      const observer = new frame.contentWindow.MutationObserver(look);
      observer.observe(inside, { attributes: true, childList: true, characterData: true, subtree: true });
      look();
    });
  const signIn = (user) => {
    find('name').value = user;
    find('door').requestSubmit();
  };
  const shows = (id, text) => until(() => find(id).textContent === text);
  const said = () =>
    [...find('messages').querySelectorAll('.message')].map((item) => [
      item.querySelector('.user').textContent,
      item.querySelector('.said').textContent,
    ]);

  await until(() => !find('door').hidden);
  signIn('<b>');
  await until(() => !find('refused').hidden);
  const refused = find('refused').textContent;
  signIn('Carol');
  await shows('people', 'bob, carol');
  const people = find('people').textContent;
  await until(() => find('state').dataset.state === 'open' && find('typing').dataset.state === 'open');
  await ask('bobHears', '"user":"carol","came":true');
  const typingShown = shows('typing', 'bob is typing…');
  await ask('bobTypes');
  await typingShown;
  const typing = find('typing').textContent;
  await ask('bobSays', hostile);
  await until(() => said().length === 1);
  const typingAfter = find('typing').textContent;
  find('text').value = 'Hello, <b>bob</b>';
  find('form').requestSubmit();
  await until(() => said().length === 2);
  const second = document.createElement('iframe');
  second.src = '/';
  document.body.append(second);
  const carolIsThereTwice = () => second.contentDocument.getElementById('state')?.dataset.state === 'open';
  while (!carolIsThereTwice()) await new Promise((resolve) => requestAnimationFrame(resolve));
  second.remove();
  await ask('bobLeaves');
  await shows('people', 'carol');
  const result = {
    refused,
    people,
    typing,
    typingAfter,
    said: said(),
    alone: find('people').textContent,
    notices: [...find('messages').querySelectorAll('.notice')].map((item) => item.textContent),
    rooms: [...find('rooms').children].map((link) => link.textContent),
    elements: find('messages').querySelectorAll('img, b').length,
    title: inside.title,
    cookie: inside.cookie,
  };
  frame.contentWindow.location.hash = 'private-team';
  await until(() => find('state').dataset.state === 'failed');
  const privately = find('problem').textContent;
  find('leave').click();
  await until(() => !find('door').hidden);
  return { ...result, privately, signedOut: find('inside').hidden };
}
