// An event stream reader in the simplest form of the standard, for bytes from curl or fetch.

/** Returns `{ read(bytes) }`. It returns the events that end in these bytes. */
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
      // A CR at the end may be half of a CRLF, so it waits for the next bytes.
      const text = rest + decoder.decode(bytes, { stream: true });
      const lines = text.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      return lines.flatMap(readLine);
    },
    /** Ends the stream. A waiting CR then ends its line. */
    end() {
      const line = rest;
      rest = '';
      return line.endsWith('\r') ? readLine(line.slice(0, -1)) : [];
    },
  };
}
