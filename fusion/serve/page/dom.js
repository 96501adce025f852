/* Elements, and how times are written. Text is only ever put in as text, never as markup. */

/** The element of the page with an id. */
export const find = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag
 * @param {object} attributes functions are event listeners by the event's name; true is an
 *   attribute without a value; false, null and undefined are left out
 * @param {...(Node|string|null)} children strings become text nodes
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Make an element of a drawing (SVG). */
export function shape(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A picture of icons.svg; it says nothing that a text beside it does not say. */
export const icon = (name) =>
  shape("svg", { "aria-hidden": "true" }, shape("use", { href: `/static/icons.svg#${name}` }));

/** A time in seconds as `1:02` or `1:00:02`. */
export function clock(second) {
  const whole = Math.round(second);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const seconds = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${seconds}` : `${minutes}:${seconds}`;
}

/** The time of a clip, `0:01–0:04`. */
export const span = (clip) => `${clock(clip.start)}–${clock(clip.end)}`;

/** A number with its noun: `1 hit`, `2 hits`. */
export const count = (number, noun) =>
  `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** Bytes as a person says them. */
export const megabytes = (bytes) =>
  bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${Math.round(bytes / 1e6)} MB`;
