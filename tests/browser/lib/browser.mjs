// The interface of a browser for checks. It runs functions in pages and takes screenshots.

import { addPage } from './pages.mjs';

/**
 * Makes the browser of a check from an engine: `open(url)` returns `{ close }`,
 * `screenshot(url, file)` writes a picture, and `close()` ends the engine.
 */
export function browserOf(engine) {
  const opened = new Set();
  const closeWindow = async (window) => {
    opened.delete(window);
    await window.close();
  };
  return {
    /** Loads a page from `base` with the function `page` as its script. Returns its result. */
    async run({ base, page, args, answers }) {
      const { path, result, forget } = addPage({ page, args, answers });
      // The page may return its result or fail while the window still opens.
      result.catch(() => {});
      const window = await engine.open(base + path);
      opened.add(window);
      try {
        const ended = window.ended?.then(() => {
          throw new Error('the browser ended before the page returned a result');
        });
        return await (ended ? Promise.race([result, ended]) : result);
      } finally {
        forget();
        await closeWindow(window);
      }
    },
    screenshot: (url, file) => engine.screenshot(url, file),
    /** Closes the windows that a failed check left open. */
    closePages: () => Promise.all([...opened].map(closeWindow)),
    close: () => engine.close(),
  };
}
