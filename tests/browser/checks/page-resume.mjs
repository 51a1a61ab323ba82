// The server's own page shows gaps, resumes after an id, and reconnects by itself.

import assert from 'node:assert/strict';

import { livePage } from './page.mjs';

export const name = 'page-resume';

export async function run({ browser, front, server }) {
  const ids = [];
  for (const data of ['one', 'two', 'three']) {
    ids.push((await server.publish({ topic: 'kept' }, data)).id);
  }
  const answers = {
    async cut() {
      front.streams.hold();
      assert.equal(front.streams.cut(), 1);
    },
    async goOn() {
      await server.publish({ topic: 'kept' }, 'while away');
      front.streams.release();
    },
  };
  const args = { driver: await livePage(), ids };
  await browser.run({ base: front.base, page, args, answers });
  // There may be a later request, because a closing window may request the reason why its stream
  // ended.
  const cameBack = front.streams.requests.filter(({ lastEventId }) => lastEventId === ids[2]);
  assert.equal(cameBack.length, 1, 'the browser reconnects once with its last id');
  assert.ok(cameBack[0].url.includes('meta=1'));
}

async function page({ ask, args: { driver, ids } }) {
  const { openPage } = await import(driver);
  const live = await openPage('#topic=kept&start=earliest');
  const { until, rows } = live;
  const shown = () => rows().map(({ data }) => data);
  const expect = (wanted) => {
    const found = JSON.stringify(shown());
    if (found !== JSON.stringify(wanted)) throw new Error(`${found} instead of ${JSON.stringify(wanted)}`);
  };

  const resumed = () => live.find('#state').textContent.includes('resumed');

  // The page subscribes according to its URL. It does not resume on a first visit.
  await until(() => rows().length === 3);
  if (resumed()) throw new Error('the page resumed on a first visit');
  expect(['three', 'two', 'one']);
  if (rows().some(({ id }, at) => id !== ids[2 - at])) throw new Error('the rows have other ids than the published events');

  // A click on the id of a row fills in the id after which to resume.
  live.find('#events li:nth-child(2) .id').click();
  const { after } = live.find('form#subscribe').elements;
  if (after.value !== ids[1] || live.inside.activeElement !== after) throw new Error('the id was not filled in');
  live.find('#clear').click();
  await live.subscribe({});
  await until(() => rows().length === 1);
  expect(['three']);
  if (!resumed()) throw new Error('the page did not resume after a known id');

  // After an unknown id, the page shows a notice and then the events that the server has.
  live.find('#clear').click();
  await live.subscribe({ after: 'nonsense<b>' });
  await until(() => rows().length === 4);
  const gap = rows()[3];
  if (gap.kind !== 'gap' || !gap.data.includes('after nonsense<b>')) throw new Error(JSON.stringify(gap));
  if (resumed()) throw new Error('the page resumed after an unknown id');
  if (!gap.data.includes('the server does not know the id') || !gap.data.includes(ids[0])) throw new Error(gap.data);

  // When the connection is cut, the page shows it. No event is lost or repeated.
  live.find('#clear').click();
  await live.subscribe({ after: ids[2] });
  await ask('cut');
  await until(() => live.find('#state').dataset.state === 'connecting');
  await ask('goOn');
  await until(() => resumed() && rows().length > 0);
  expect(['while away']);

  // The URL of the page has the subscription, so a reload would open the same subscription.
  if (!live.window.location.hash.includes(`last_event_id=${ids[2]}`)) throw new Error(live.window.location.hash);
  return null;
}
