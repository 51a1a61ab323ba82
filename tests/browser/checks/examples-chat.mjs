// The example `chat` in two tabs. Each tab shows the messages of both users as text, even messages
// that were sent while its connection was cut.

import assert from 'node:assert/strict';
import { join } from 'node:path';

export const name = 'examples-chat';

const HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title=\'owned\'</script>';

/** The messages in the order of sending. Each tab waits for the earlier ones. */
const SCRIPT = [
  { user: 'Alice', text: 'Hello, is anybody there?' },
  { user: 'Bob', text: HOSTILE },
  { user: 'Alice', text: 'sent while Bob was cut off', cutsBob: true },
  { user: 'Bob', text: 'I am back & <b>well</b>' },
];

export async function run({ browser, startBinary, startFront }) {
  const chat = await startBinary(join(process.env.DOWNLINK_BIN_DIR, 'chat'), ['0']);
  try {
    const fronts = { Alice: await startFront(chat.base), Bob: await startFront(chat.base) };
    const answers = meeting(fronts.Bob.streams);
    const open = (user) =>
      browser.run({ base: fronts[user].base, page, args: { user, script: SCRIPT }, answers: answers(user) });
    const [alice, bob] = await Promise.all([open('Alice'), open('Bob')]);

    const said = SCRIPT.map(({ user, text }) => ({ user, text }));
    for (const tab of [alice, bob]) {
      assert.deepEqual(tab.messages, said, 'each message appears once, in order and unchanged');
      assert.equal(tab.title, 'Chat', 'a message must not run as script');
      assert.equal(tab.elements, 0, 'a message must not become an element');
      assert.deepEqual(tab.notices, [], 'no message was lost, so there must be no notice');
    }
    assert.deepEqual(alice.states, ['connecting', 'open']);
    assert.deepEqual(bob.states, ['connecting', 'open', 'reconnecting', 'open']);
    assert.equal(fronts.Alice.streams.requests.length, 1, 'Alice was never cut off');
    assert.match(fronts.Bob.streams.requests[1].lastEventId ?? '', /^[0-9a-z]{8}-2$/);
  } finally {
    chat.stop();
  }
}

/** Something that happens once. Others can wait for it. */
function happening() {
  let happen;
  const happened = new Promise((resolve) => {
    happen = resolve;
  });
  return { happen, happened };
}

/** The answers to the tabs. They start the tabs together, and cut and restore Bob's connection. */
function meeting(bobsStreams) {
  const ready = { Alice: happening(), Bob: happening() };
  const bobIsUpToDate = happening();
  const bobNoticed = happening();
  return (user) => ({
    async ready() {
      ready[user].happen();
      await Promise.all([ready.Alice.happened, ready.Bob.happened]);
    },
    bobIsUpToDate: () => bobIsUpToDate.happen(),
    async cutBob() {
      await bobIsUpToDate.happened;
      bobsStreams.hold();
      assert.equal(bobsStreams.cut(), 1, 'one stream of Bob is open');
      await bobNoticed.happened;
    },
    bobNoticed: () => bobNoticed.happen(),
    letBobBack: () => bobsStreams.release(),
  });
}

/** Uses the chat's own page in a frame, as a user would. */
async function page({ ask, args: { user, script } }) {
  const frame = document.createElement('iframe');
  frame.src = '/';
  const loaded = new Promise((resolve) => {
    frame.onload = resolve;
  });
  document.body.append(frame);
  await loaded;
  const inside = frame.contentDocument;
  const find = (id) => inside.getElementById(id);

  const states = ['connecting'];
  const changes = new EventTarget();
  const look = () => {
    const { state } = find('state').dataset;
    if (states.at(-1) !== state) states.push(state);
    changes.dispatchEvent(new Event('change'));
  };
  const observed = { attributes: true, childList: true, subtree: true };
  new frame.contentWindow.MutationObserver(look).observe(inside.body, observed);
  look();
  const until = async (holds) => {
    while (!holds()) {
      await new Promise((resolve) => changes.addEventListener('change', resolve, { once: true }));
    }
  };
  const read = () =>
    [...find('messages').querySelectorAll('.message')].map((item) => ({
      user: item.querySelector('.user').textContent,
      text: item.querySelector('.said').textContent,
    }));

  const speak = async ({ text, cutsBob }, at) => {
    if (cutsBob) await ask('cutBob');
    find('user').value = user;
    find('text').value = text;
    find('form').requestSubmit();
    await until(() => read().length > at);
    if (cutsBob) await ask('letBobBack');
  };
  const listen = async ({ cutsBob }) => {
    if (!cutsBob) return;
    await ask('bobIsUpToDate');
    await until(() => states.at(-1) === 'reconnecting');
    await ask('bobNoticed');
  };

  await until(() => states.at(-1) === 'open');
  await ask('ready');
  for (const [at, line] of script.entries()) {
    await until(() => read().length >= at);
    await (line.user === user ? speak(line, at) : listen(line));
  }
  await until(() => read().length >= script.length && states.at(-1) === 'open');
  return {
    messages: read(),
    notices: [...find('messages').querySelectorAll('.notice')].map((item) => item.textContent),
    elements: find('messages').querySelectorAll('img, script, b').length,
    title: inside.title,
    states,
  };
}
