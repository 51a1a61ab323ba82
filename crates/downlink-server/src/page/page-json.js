// Shows JSON as indented and coloured text. The tokens do not change: no number is rounded, no key
// is moved, and a repeated key is shown twice. For text that is not a JSON object or array,
// `format` returns null.

import { element } from "./page-text.js";

/** An object or array is shown on one line if it has at most this many characters, and no object or
 * array inside. */
const LINE_MAX = 60;
/** JSON with more levels than this is not formatted, because lines with such an indentation are
 * unreadable. */
const DEPTH_MAX = 24;

const TOKEN = /"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[{}[\],:]/g;
const OPENING = ["{", "["];
const CLOSING = ["}", "]"];

/** Whether the text may be a JSON object or array. */
export const mayBeJson = (text) => /^\s*[{[]/.test(text);

/** The nodes of the formatted text, or null if the text is not a JSON object or array. */
export function format(text) {
  const tokens = mayBeJson(text) && read(text);
  return tokens ? nodes(tokens) : null;
}

/** The tokens of a JSON text, or null if the text is not JSON or is too deep. */
function read(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const tokens = text.match(TOKEN);
  let depth = 0;
  for (const token of tokens) {
    if (OPENING.includes(token)) depth += 1;
    if (CLOSING.includes(token)) depth -= 1;
    if (depth > DEPTH_MAX) return null;
  }
  return tokens;
}

function nodes(tokens) {
  const made = [];
  /** The punctuation and space after the last coloured token. */
  let plain = "";
  let depth = 0;
  let lineEnd = -1;
  const breakLine = () => {
    plain += `\n${"  ".repeat(depth)}`;
  };
  tokens.forEach((token, at) => {
    const onLine = at <= lineEnd;
    if (OPENING.includes(token)) {
      plain += token;
      lineEnd = onLine ? lineEnd : endOfLine(tokens, at);
      if (at <= lineEnd) return;
      depth += 1;
      breakLine();
    } else if (CLOSING.includes(token)) {
      if (!onLine) {
        depth -= 1;
        breakLine();
      }
      plain += token;
    } else if (token === ",") {
      plain += onLine ? ", " : ",";
      if (!onLine) breakLine();
    } else if (token === ":") plain += ": ";
    else {
      made.push(plain, element("span", kindOf(token, tokens[at + 1]), token));
      plain = "";
    }
  });
  made.push(plain);
  return made;
}

/** The index of the last token of an object or array that fits on one line, or -1. */
function endOfLine(tokens, first) {
  let length = 0;
  for (let at = first + 1; length <= LINE_MAX && !OPENING.includes(tokens[at]); at += 1) {
    if (CLOSING.includes(tokens[at])) return at;
    length += tokens[at].length + 1;
  }
  return -1;
}

function kindOf(token, next) {
  if (token.startsWith('"')) return next === ":" ? "key" : "string";
  return /^[tfn]/.test(token) ? "word" : "digits";
}
