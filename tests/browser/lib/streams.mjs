// Reads event streams as text. Checks use it to see when bytes arrive and when a stream ends.

/** Opens a stream. Rejects if its head takes longer than `ms`. */
export async function openStream(url, ms) {
  const abort = new AbortController();
  const late = setTimeout(() => abort.abort(new Error(`no head after ${ms / 1000} s`)), ms);
  const response = await fetch(url, { signal: abort.signal }).finally(() => clearTimeout(late));
  return new Stream(response, abort);
}

/** A stream and the text that has arrived so far. */
class Stream {
  text = '';
  /** Whether the stream has ended or broken. */
  ended = false;
  #abort;
  #watchers = new Set();

  constructor(response, abort) {
    this.status = response.status;
    this.headers = response.headers;
    this.#abort = abort;
    this.#read(response.body);
  }

  close() {
    this.#abort.abort();
  }

  /** Resolves when `text` has arrived. Rejects if the stream ends first, or after `ms`. */
  carried(text, ms) {
    return this.#until(() => {
      if (this.text.includes(text)) return true;
      if (this.ended) throw new Error(`the stream ended without ${JSON.stringify(text)}: ${this.text}`);
      return false;
    }, `${JSON.stringify(text)} after ${ms / 1000} s`, ms);
  }

  /** Resolves when the stream has ended. Rejects after `ms`. */
  end(ms) {
    return this.#until(() => this.ended, `end of the stream after ${ms / 1000} s`, ms);
  }

  async #read(body) {
    const decoder = new TextDecoder();
    try {
      for await (const bytes of body) {
        this.text += decoder.decode(bytes, { stream: true });
        this.#watchers.forEach((watch) => watch());
      }
    } catch {
      // A proxy may break a stream instead of ending it.
    }
    this.ended = true;
    this.#watchers.forEach((watch) => watch());
  }

  #until(holds, missing, ms) {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        this.#watchers.delete(watch);
        settle(value);
      };
      const watch = () => {
        try {
          if (holds()) finish(resolve);
        } catch (error) {
          finish(reject, error);
        }
      };
      const timer = setTimeout(() => finish(reject, new Error(`no ${missing}`)), ms);
      this.#watchers.add(watch);
      watch();
    });
  }
}
