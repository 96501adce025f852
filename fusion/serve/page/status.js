/* What the page tells: how many hits, what goes on, what is wrong. */

import { count, find, make } from "./dom.js";

const QUICK = 150; // milliseconds: what is done by then needs no sign that it goes on

/** Say a line, or how many hits an answer has and which words were left out. */
export function say(found) {
  const status = find("status");
  if (typeof found === "string") return status.replaceChildren(found);
  const hits = found.hits.length ? count(found.hits.length, "hit") : "Nothing was found";
  const time = found.seconds === undefined ? "" : ` in ${duration(found.seconds)}`;
  const parts = [`${hits}${time}.`];
  const notes = (found.notes ?? []).map((note) => `${note[0].toUpperCase()}${note.slice(1)}.`);
  if (found.unknown?.length) notes.unshift(leftOut(found.unknown));
  for (const note of notes) parts.push(" ", make("span", { class: "left-out" }, note));
  return status.replaceChildren(...parts);
}

const duration = (seconds) =>
  seconds < 1 ? `${Math.max(1, Math.round(1000 * seconds))} ms` : `${seconds.toFixed(1)} s`;

/** Say which words the model does not know. */
export const leftOut = (words) =>
  `Left out, as the model does not know ${words.length === 1 ? "it" : "them"}: ${words.join(", ")}.`;

/**
 * Tell what is wrong, in one line.
 * @param {string} line
 * @param {object} more `unknown` words; `retry` asks again after a failure, `again` after a change;
 *   `mild`: nothing is wrong
 */
export function tell(line, { unknown = [], retry = null, again = null, mild = false } = {}) {
  const notice = find("notice");
  const missing = unknown.filter((word) => !line.includes(word));
  const words = missing.length ? ` Not known: ${missing.join(", ")}.` : "";
  notice.replaceChildren(make("span", {}, `${line}${words}`));
  const act = retry ?? again;
  if (act) {
    const name = retry ? "Try again" : "Search again";
    notice.append(make("button", { type: "button", class: "quiet", click: act }, name));
  }
  notice.classList.toggle("mild", mild);
  notice.hidden = false;
}

export function clearNotice() {
  find("notice").hidden = true;
  find("notice").replaceChildren();
}

/**
 * Show that something goes on, if it takes long enough to be noticed.
 * @param {string} line
 * @param {{stop: Function|null, draw: Function}} how `stop` gives it up, `draw` shows where the
 *   hits will be
 * @returns {Function} ends it
 */
export function busy(line, { stop, draw }) {
  const hits = find("hits");
  const begin = () => {
    hits.setAttribute("aria-busy", "true");
    draw();
    say(line);
    if (stop) {
      const button = make("button", { type: "button", class: "quiet", click: stop }, "Stop");
      find("status").append(" ", button);
    }
  };
  const waiting = setTimeout(begin, QUICK);
  return () => {
    clearTimeout(waiting);
    hits.removeAttribute("aria-busy");
  };
}

/** Show empty places where hits will be. */
export function skeletons() {
  const empty = () => make("li", { class: "hit empty", "aria-hidden": "true" });
  find("hits").replaceChildren(...Array.from({ length: 8 }, empty));
}
