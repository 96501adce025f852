/* When steps happen in the film of the player: for each its second, and its score over the film. */

import { steps as ask } from "./api.js";
import { clock, find, make, shape } from "./dom.js";
import { leftOut } from "./status.js";

const [WIDE, HIGH, EDGE] = [1000, 48, 3]; // of a curve, in its own units

/**
 * The timeline below the film.
 * @param {HTMLVideoElement} video
 * @returns {{show: (hit: object) => void, leave: () => void}}
 */
export function makeTimeline(video) {
  const [form, text, told] = [find("steps-form"), find("steps-text"), find("steps-told")];
  const [ordered, button, list] = [find("steps-ordered"), find("steps-find"), find("curves")];
  let film = null;
  let duration = 0;
  let asking = new AbortController();

  const clear = () => {
    asking.abort();
    told.replaceChildren();
    list.replaceChildren();
    button.disabled = false;
    duration = 0;
  };
  const seek = (second) => {
    video.currentTime = second;
    video.play().catch(() => {});
  };
  const mark = () => {
    if (!duration) return;
    const x = String(Math.min(WIDE, (WIDE * video.currentTime) / duration));
    for (const line of list.querySelectorAll(".now")) {
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = text.value.split("\n").map((line) => line.trim()).filter(Boolean);
    clear();
    if (!lines.length || film === null) return;
    asking = new AbortController();
    const { signal } = asking;
    button.disabled = true;
    told.replaceChildren("Reading the film; a long one takes a while …");
    try {
      const found = await ask(film, lines, ordered.checked, signal);
      told.replaceChildren();
      duration = found.duration;
      if (found.unknown.length) told.replaceChildren(leftOut(found.unknown));
      const ends = [clock(0), clock(duration)].map((time) => make("span", {}, time));
      const axis = make("li", { class: "axis small", "aria-hidden": "true" }, ...ends);
      list.replaceChildren(...rows(found, seek), axis);
      mark();
    } catch (error) {
      if (error.name !== "AbortError") told.replaceChildren(error.message);
    } finally {
      if (!signal.aborted) button.disabled = false;
    }
  });
  video.addEventListener("timeupdate", mark);

  return {
    show(hit) {
      if (film === hit.film.id) return; // another clip of the same film
      clear();
      film = hit.film.id;
    },
    leave() {
      asking.abort();
      button.disabled = false;
    },
  };
}

function rows(found, seek) {
  const values = found.steps.flatMap(({ curve }) => curve.map(([, value]) => value));
  const known = values.filter((value) => value !== null);
  const scale = { low: Math.min(...known), high: Math.max(...known), end: found.duration };
  return found.steps.map((step) => row(step, scale, seek));
}

function row(step, scale, seek) {
  const has = step.start !== null;
  const time = has ? clock(step.start) : "–";
  const go = () => seek(step.start);
  const label = `Play ${step.step} at ${time}`;
  const button = make("button", { type: "button", class: "quiet time", disabled: !has,
    "aria-label": label, click: go }, time);
  const score = make("span", { class: "number small" }, has ? step.score.toFixed(2) : "not found");
  const name = make("span", { class: "step", dir: "auto" }, step.step);
  return make("li", {}, button, name, score, curve(step, scale, seek));
}

/** Draw the score of a step over the film; a click goes to that second. */
function curve(step, { low, high, end }, seek) {
  const x = (second) => ((WIDE * second) / end).toFixed(1);
  const room = Math.max(high - low, 1e-6);
  const y = (value) => (HIGH - EDGE - ((HIGH - 2 * EDGE) * (value - low)) / room).toFixed(1);
  let path = "";
  let drawn = false; // the point before is known
  for (const [second, value] of step.curve) {
    if (value !== null) path += `${drawn ? "L" : "M"}${x(second)} ${y(value)}`;
    drawn = value !== null;
  }
  const parts = [shape("path", { class: "line", d: path || "M0 0" })];
  if (step.start !== null) {
    const width = Math.max(4, Number(x(step.end - step.start)));
    parts.unshift(shape("rect", { class: "found", x: x(step.start), y: 0, width, height: HIGH }));
  }
  parts.push(shape("line", { class: "now", x1: 0, x2: 0, y1: 0, y2: HIGH }));
  const label = `How well “${step.step}” fits each second`;
  const options = { class: "curve", viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none",
    role: "img", "aria-label": label };
  const svg = shape("svg", options, ...parts);
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect();
    seek((end * (event.clientX - box.left)) / box.width);
  });
  return svg;
}
