// An event stream reader that follows the standard in the simplest way. Its input is bytes from
// curl or fetch.

/** Returns `{ read(bytes), end() }`. `read` returns the events that end in these bytes. */
export function plainReader() {
  const decoder = new TextDecoder('utf-8');
  let rest = '';
  let event = '';
  let id = '';
  let data = [];

  const dispatch = () => {
    const found = data.length > 0 ? [{ event: event || 'message', data: data.join('\n'), id }] : [];
    event = '';
    data = [];
    return found;
  };
  const readLine = (line) => {
    if (line === '') return dispatch();
    const [, name, value = ''] = /^([^:]*)(?:: ?([^]*))?$/.exec(line);
    if (name === 'event') event = value;
    if (name === 'data') data.push(value);
    if (name === 'id' && !value.includes('\0')) id = value;
    return [];
  };
  return {
    read(bytes) {
      // A CR at the end may be the first half of a CRLF, so it stays until the next bytes arrive.
      const text = rest + decoder.decode(bytes, { stream: true });
      const lines = text.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      return lines.flatMap(readLine);
    },
    /** Ends the stream. A last CR then ends its line. Returns the events. */
    end() {
      const line = rest;
      rest = '';
      return line.endsWith('\r') ? readLine(line.slice(0, -1)) : [];
    },
  };
}
