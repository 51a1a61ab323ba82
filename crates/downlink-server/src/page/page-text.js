// Functions for texts and elements that all parts of the page use.

const numbers = new Intl.NumberFormat("en");
const compactly = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
/** The function `short` writes this number and larger ones in a short form, such as 100K. */
const SHORT_FROM = 100_000;

/** The text of a number with all its digits. */
export const count = (number) => numbers.format(number);
/** The text of a number with at most six characters. */
export const short = (number) => (number < SHORT_FROM ? count(number) : compactly.format(number));
/** The text of a number with at most four characters, such as 1K. */
export const compact = (number) => compactly.format(number);

/** Makes an element with text. All received data is shown through this function. */
export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/**
 * A name with its invisible characters as escapes. Without escapes, characters that change the
 * direction of text or have no width could make one name look like another.
 */
export const plain = (name) =>
  name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (hidden) => `\\u{${hidden.codePointAt(0).toString(16)}}`);

/** The text of a rate. A rate below 10 has one decimal place. */
export const rate = (number) =>
  number > 0 && number < 10 ? number.toFixed(1) : short(Math.round(number));

/** The text of an age, such as `5 s ago`. */
export function age(at, now) {
  const seconds = Math.max(0, Math.floor((now - at) / 1000));
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}
