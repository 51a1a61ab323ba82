// What a check sees of a browser, whichever it is: run a function in a page, take a picture.

import { addPage } from './pages.mjs';

/**
 * Makes the browser of a check from what an engine can do: `open(url)` answers with `{ close }`,
 * `screenshot(url, file)` writes a picture, `close()` ends the engine.
 */
export function browserOf(engine) {
  const opened = new Set();
  const closeWindow = async (window) => {
    opened.delete(window);
    await window.close();
  };
  return {
    /** Loads a page from `base` whose script is the function `page`; returns what it returns. */
    async run({ base, page, args, answers }) {
      const { path, result, forget } = addPage({ page, args, answers });
      // The result may come, or fail, while the window still opens.
      result.catch(() => {});
      const window = await engine.open(base + path);
      opened.add(window);
      try {
        const ended = window.ended?.then(() => {
          throw new Error('the browser ended before the page had a result');
        });
        return await (ended ? Promise.race([result, ended]) : result);
      } finally {
        forget();
        await closeWindow(window);
      }
    },
    screenshot: (url, file) => engine.screenshot(url, file),
    /** Closes what a failed check left open. */
    closePages: () => Promise.all([...opened].map(closeWindow)),
    close: () => engine.close(),
  };
}
