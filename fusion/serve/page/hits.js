/* The hits: a grid of clips, each with the reasons why it was found. */

import { find, icon, make, span } from "./dom.js";
import { preview } from "./playing.js";
import { inOrder } from "./question.js";

/**
 * Show hits in the grid.
 * @param {object[]} hits
 * @param {object} about what the server says of the index
 * @param {{open: Function, like: Function, only: Function}} acts each is called with a hit
 */
export function showHits(hits, about, acts) {
  const scale = scaleOf(hits);
  find("hits").replaceChildren(
    ...hits.map((hit, place) => card(hit, place + 1, scale, about, acts)),
  );
  makeReachable(find("hits").firstElementChild);
}

/** The longest bar of an answer: bars of its hits can be compared with each other. */
export const scaleOf = (hits) =>
  Math.max(0.01, ...hits.flatMap((hit) => [hit.score, ...Object.values(hit.by)]));

function card(hit, place, scale, about, acts) {
  const open = make(
    "button",
    {
      type: "button",
      class: "open",
      "aria-label": `Play ${hit.film.name} from ${span(hit)}, hit ${place}`,
      click: () => acts.open(hit),
    },
    // Behind a picture that is narrower or higher than its place: the same, out of focus.
    hit.thumbnail && make("img", { src: hit.thumbnail, alt: "", class: "behind", loading: "lazy" }),
    picture(hit),
    make("span", { class: "time" }, span(hit)),
    make("span", { class: "play" }, icon("play")),
  );
  preview(open, hit);
  const folder = hit.film.name.slice(0, hit.film.name.lastIndexOf("/") + 1);
  const film = make(
    "button",
    {
      type: "button",
      class: "film",
      dir: "auto",
      title: `${hit.film.name}: search in this film only`,
      "aria-label": `Search only in ${hit.film.name}`,
      click: () => acts.only(hit),
    },
    make("span", { class: "base" }, hit.film.name.slice(folder.length)),
    folder ? make("span", { class: "small" }, folder) : null,
  );
  const like = make(
    "button",
    { type: "button", class: "quiet like", click: () => acts.like(hit) },
    icon("like"),
    "More like this",
  );
  const facts = make(
    "div",
    { class: "facts" },
    make("div", { class: "line" }, film, make("span", { class: "place", title: placed(hit) }, String(place))),
    hit.text ? make("p", { class: "text", dir: "auto", title: hit.text }, hit.text) : null,
    reasons(hit, scale, about),
    like,
  );
  const item = make("li", { class: "hit", "data-id": hit.id }, open, facts);
  item.addEventListener("focusin", () => makeReachable(item));
  item.hit = hit;
  return item;
}

/** The picture of a clip, or a sign that there is none. */
export function picture(hit) {
  if (hit.thumbnail === null) {
    return make("span", { class: "silent" }, icon("sound"), "no picture");
  }
  const alt = `${hit.film.name} at ${span(hit)}`;
  const image = make("img", { src: hit.thumbnail, alt, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(make("span", { class: "silent" }, icon("film"))));
  return image;
}

/** What the order of the hits follows from: clips without sound or picture are compared too. */
export function placed({ calibrated }) {
  const value = `${calibrated < 0 ? "" : "+"}${calibrated.toFixed(2)}`;
  return `Hits are in order of the similarity above the average of the clips compared alike: ${value}`;
}

/** Why a clip was found: its similarity all together, and by each modality, as small bars. */
export function reasons(hit, scale, about) {
  const rows = inOrder(about.modalities, about).map((name) => [
    about.words[name] ?? name,
    hit.by[name],
    name,
  ]);
  return make(
    "dl",
    { class: "why" },
    ...[["together", hit.score, "all"], ...rows].map((row) => reason(...row, scale)),
  );
}

function reason(word, value, name, scale) {
  const has = typeof value === "number";
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i", { class: `by-${name}` }));
  const part = has ? Math.max(0, Math.min(1, value / scale)) : 0;
  bar.firstChild.style.setProperty("width", `${(100 * part).toFixed(1)}%`);
  const title = has ? null : `the clip has nothing that is ${word}, or the index does not compare it`;
  return make(
    "div",
    { class: has ? null : "lacks", title },
    make("dt", {}, word),
    make("dd", {}, bar, make("span", { class: "number" }, has ? value.toFixed(2) : "–")),
  );
}

/** Of the grid, only the controls of one hit are stops of the Tab key; arrows go to the others. */
function makeReachable(item) {
  if (!item) return;
  for (const button of find("hits").querySelectorAll("button")) {
    button.tabIndex = item.contains(button) ? 0 : -1;
  }
}

/** Move the focus in the grid; false: the key does not move. */
export function moveInGrid(key, item) {
  const items = [...find("hits").querySelectorAll(".hit")];
  const place = items.indexOf(item);
  const top = items[0].offsetTop;
  const next = items.findIndex((other) => other.offsetTop > top);
  const columns = next < 0 ? items.length : next;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const ends = { Home: 0, End: items.length - 1 };
  const target = key in ends ? ends[key] : place + steps[key];
  if (Number.isNaN(target)) return false;
  if (target < 0 && key === "ArrowUp") find("words").focus();
  else items[Math.max(0, Math.min(target, items.length - 1))].querySelector(".open").focus();
  return true;
}
