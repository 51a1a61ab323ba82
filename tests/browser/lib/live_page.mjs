// Uses the server's own page as a user would. The page is in a frame of a check's page. This file
// and the checks named page* depend on the names of the forms and lists in the page.
//
// This code runs in the browser. A check serves it with `livePage()` and imports it from that path.

/** Opens the page at `base`. `address` is the rest of the URL. */
export async function openPage(address = '', base = '/', [width, height] = [1280, 900]) {
  const frame = document.createElement('iframe');
  frame.src = `${base}${address}`;
  Object.assign(frame.style, { width: `${width}px`, height: `${height}px`, border: 0 });
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

  /** Resolves when `holds()` is true. Calls it after every change of the page. */
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
    /** Subscribes with the form. Waits until the server has confirmed the subscription. */
    async subscribe(values) {
      fill('form#subscribe', values);
      find('form#subscribe').requestSubmit();
      await until(() => find('#state').dataset.state === 'open');
    },
    /** Publishes with the form. Returns the reply that the page shows. */
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
    /** The data of the newest row. This is faster than `rows()`. */
    newest: () => find('#events').querySelector('pre')?.textContent,
    /** The cells of a table's rows. */
    cells: (table) =>
      [...find(table).rows].map((row) => [...row.cells].map(({ textContent }) => textContent)),
    setFilter(text) {
      find('#filter').value = text;
      find('#filter').dispatchEvent(new Event('input', { bubbles: true }));
    },
    /** Dispatches a key event at the focused element. */
    press(key, more = {}) {
      const target = inside.activeElement ?? inside.body;
      const event = new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...more });
      return target.dispatchEvent(event);
    },
  };
}
