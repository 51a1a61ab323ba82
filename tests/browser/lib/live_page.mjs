// Drives the server's own page as a reader would, in a frame of a check's page. The checks named
// page* rely on what is looked for here and in them: the page's forms, lists and their names.
//
// It runs in the browser: a check serves it with `livePage()` and imports it by that path.

/** Opens the page; `address` is what follows after its `/`. */
export async function openPage(address = '') {
  const frame = document.createElement('iframe');
  frame.src = `/${address}`;
  Object.assign(frame.style, { width: '1200px', height: '900px' });
  document.body.append(frame);
  await new Promise((resolve) => {
    frame.onload = resolve;
  });
  const inside = frame.contentDocument;
  const { Event, KeyboardEvent, MutationObserver } = frame.contentWindow;
  const find = (selector) => {
    const found = inside.querySelector(selector);
    if (!found) throw new Error(`no ${selector} in ${inside.documentElement.outerHTML.slice(0, 2000)}`);
    return found;
  };

  /** Looks after every change of the page, so that nothing is waited for by the clock. */
  const until = (holds) =>
    new Promise((resolve, reject) => {
      const look = () => {
        try {
          const held = holds();
          if (!held) return;
          observer.disconnect();
          resolve(held);
        } catch (error) {
          observer.disconnect();
          reject(error);
        }
      };
      const observer = new MutationObserver(look);
      const everything = { subtree: true, childList: true, characterData: true, attributes: true };
      observer.observe(inside.body, everything);
      look();
    });

  const fill = (form, values) => {
    for (const [name, value] of Object.entries(values)) {
      const field = find(form).elements[name];
      if (field.type === 'checkbox') field.checked = value;
      else field.value = value;
    }
  };

  return {
    inside,
    window: frame.contentWindow,
    find,
    until,
    fill,
    /** Subscribes by the form and waits until the server has said that it is so. */
    async subscribe(values) {
      fill('form#subscribe', values);
      find('form#subscribe').requestSubmit();
      await until(() => find('#state').dataset.state === 'open');
    },
    /** Publishes by the form; returns what the page says then. */
    async publish(values) {
      const empty = { topic: '', client: '', event: '', everyone: false, data: '' };
      fill('form#publish', { ...empty, ...values });
      find('#published').textContent = '';
      find('form#publish').requestSubmit();
      return until(() => find('#published').textContent);
    },
    /** The rows, newest first, as `{ kind, topics, clients, type, id, age, data }`. */
    rows: () =>
      [...find('#events').children].map((row) => {
        const texts = (name) => [...row.querySelectorAll(name)].map(({ textContent }) => textContent);
        const text = (name) => texts(name)[0] ?? null;
        return {
          kind: row.className,
          topics: texts('.topic'),
          clients: texts('.client'),
          type: text('.type'),
          id: text('.id'),
          age: text('.age'),
          data: text('pre'),
        };
      }),
    /** The data of the newest row, in little time. */
    newest: () => find('#events').querySelector('pre')?.textContent,
    /** The cells of a table's rows. */
    cells: (table) =>
      [...find(table).rows].map((row) => [...row.cells].map(({ textContent }) => textContent)),
    setFilter(text) {
      find('#filter').value = text;
      find('#filter').dispatchEvent(new Event('input', { bubbles: true }));
    },
    /** A key where the focus is, as far as a script can press one. */
    press(key, more = {}) {
      const target = inside.activeElement ?? inside.body;
      const event = new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...more });
      return target.dispatchEvent(event);
    },
  };
}
