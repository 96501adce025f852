/* The question: its files, how they come, and what to search in. */

import { find, icon, make, megabytes, span } from "./dom.js";
import { recall, remember } from "./state.js";

const KINDS = { audio: "sound", picture: "picture", video: "film" };
const ENDINGS = {
  audio: ["wav", "mp3", "flac", "ogg", "oga", "opus", "m4a", "aac", "wma", "aif", "aiff"],
  picture: ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif"],
  video: ["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "wmv", "flv", "ogv"],
};
const SIGHT = ["picture", "video"]; // a question has one of them at most

/** What a file is, by what the browser says or by its name's ending; null: neither of the three. */
function kindOf(file) {
  const type = file.type.split("/")[0];
  if (type === "audio" || type === "video") return type;
  if (type === "image") return "picture";
  const ending = file.name.split(".").pop().toLowerCase();
  return Object.keys(ENDINGS).find((kind) => ENDINGS[kind].includes(ending)) ?? null;
}

/**
 * Add files to those of the question; a new sound takes the place of the old one, and a new picture
 * or film that of the old picture or film.
 * @param {object[]} present facts of the files that the question has
 * @param {Iterable<File>} files
 * @param {number|undefined} limit bytes that the server takes, of all files together
 * @returns {{files: object[], problem: string|null}}
 */
export function withFiles(present, files, limit) {
  let chosen = [...present];
  let problem = null;
  for (const file of files) {
    const kind = kindOf(file);
    const same = SIGHT.includes(kind) ? SIGHT : [kind];
    const others = chosen.filter((old) => !same.includes(old.kind));
    const bytes = file.size + others.reduce((sum, old) => sum + (recall(old)?.size ?? 0), 0);
    if (kind === null) {
      problem = `${file.name} is neither a sound nor a picture nor a film.`;
    } else if (limit && bytes > limit) {
      const whose = others.length ? "The files have" : `${file.name} has`;
      problem = `${whose} ${megabytes(bytes)}; at most ${megabytes(limit)} can be sent.`;
    } else if (file.size === 0) {
      problem = `${file.name} is empty.`;
    } else {
      chosen = [...others, remember(kind, file)];
    }
  }
  return { files: chosen, problem };
}

const urls = new Set(); // of previews; each holds its file in memory until it is revoked
let drawn = ""; // what the chips show: a preview that plays is not drawn anew

/**
 * Show the files of the question, and the clip whose like is searched for.
 * @param {object} state
 * @param {object|null} like the clip of state.near
 * @param {(changes: object) => void} change
 */
export function showChips(state, like, change) {
  const timed = state.files.some(({ kind }) => kind !== "picture");
  find("part").hidden = !timed;
  find("start").value = state.start;
  find("end").value = state.end;
  const wanted = JSON.stringify([state.files, like?.id ?? null]);
  if (wanted === drawn) return;
  drawn = wanted;
  for (const url of urls) URL.revokeObjectURL(url);
  urls.clear();
  const chips = state.files.map((facts) => {
    const without = state.files.filter((other) => other !== facts);
    return fileChip(facts, () => change({ files: without, ...(without.length ? {} : WHOLE) }));
  });
  if (like) chips.push(likeChip(like, () => change({ near: null })));
  find("chips").replaceChildren(...chips);
}

const WHOLE = { start: "", end: "" };

function fileChip(facts, remove) {
  const file = recall(facts);
  const parts = [make("span", { class: "label", dir: "auto", title: facts.name }, facts.name)];
  if (file) parts.unshift(preview(facts.kind, file));
  else parts.push(make("span", { class: "small" }, "no longer here; add it again"));
  return chip(parts, `Remove the ${KINDS[facts.kind]} ${facts.name}`, remove);
}

function likeChip(like, remove) {
  const name = `like ${like.film.name} ${span(like)}`;
  const parts = [make("span", { class: "label", dir: "auto", title: name }, name)];
  if (like.thumbnail) {
    parts.unshift(make("img", { src: like.thumbnail, alt: "", class: "preview" }));
  }
  return chip(parts, "Search no longer for clips like this", remove);
}

function chip(parts, label, remove) {
  const options = { type: "button", class: "quiet icon", "aria-label": label, click: remove };
  return make("li", { class: "chip" }, ...parts, make("button", options, icon("close")));
}

function preview(kind, file) {
  const url = URL.createObjectURL(file);
  urls.add(url);
  const alone = () => element.replaceWith(icon(kind === "audio" ? "sound" : "film"));
  let element;
  if (kind === "picture") {
    element = make("img", { src: url, alt: `Your picture ${file.name}`, class: "preview" });
    element.addEventListener("error", () => element.replaceWith(icon("picture")));
  } else if (kind === "audio") {
    element = make("audio", { src: url, controls: true, preload: "metadata", error: alone });
  } else {
    const seen = { src: url, muted: true, loop: true, playsinline: true, preload: "metadata" };
    element = make("video", { ...seen, class: "preview", "aria-label": `Your film ${file.name}` });
    element.muted = true; // the attribute alone does not count for elements made by a script
    element.addEventListener("error", alone);
    element.addEventListener("pointerenter", () => element.play().catch(() => {}));
    element.addEventListener("pointerleave", () => element.pause());
  }
  return element;
}

/**
 * Show what can be searched in, in plain words.
 * @param {object} about what the server says of the index
 * @param {(changes: object) => void} change
 */
export function showWithin(about, change) {
  const options = inReadingOrder(about).map((combination) => [combination, inWords(combination, about)]);
  const labels = [["", "anything"], ...options].map(([value, words]) => {
    const radio = make("input", { type: "radio", name: "in", value, change: () => change(value) });
    return make("label", {}, radio, make("span", {}, words));
  });
  const legend = find("within").querySelector("legend");
  find("within").replaceChildren(legend, ...labels);
}

/** Combinations as people go through them: seen, heard, said, and then two of them, all three. */
function inReadingOrder(about) {
  const order = inOrder(about.modalities, about).map((name) => name[0]);
  const places = (combination) => order.map((letter) => (combination.includes(letter) ? "0" : "1"));
  const rank = (combination) => `${combination.length}${places(combination).join("")}`;
  return [...about.combinations].sort((one, other) => (rank(one) < rank(other) ? -1 : 1));
}

/** Mark what is searched in; several combinations, of an address, are marked as none of them. */
export function markWithin(within) {
  for (const radio of find("within").querySelectorAll("input")) {
    radio.checked = radio.value === within;
  }
}

/** `va` as "seen + heard". */
export function inWords(combination, about) {
  const names = about.modalities.filter((name) => combination.includes(name[0]));
  return inOrder(names, about).map((name) => about.words[name] ?? name).join(" + ");
}

/** Modalities as people name them: what is seen, heard, said. */
export function inOrder(names, about) {
  const order = Object.keys(about.words).sort(byWord(about.words));
  const place = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  return [...names].sort((one, other) => place(one) - place(other));
}

const WORDS = ["seen", "heard", "said"];
const byWord = (words) => (one, other) => WORDS.indexOf(words[one]) - WORDS.indexOf(words[other]);

/** Call `add` with files, whichever way they come. */
export function takeFiles(add) {
  const file = find("file");
  find("attach").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    const files = [...file.files];
    file.value = ""; // so that the same file can be chosen again
    if (files.length) add(files);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return; // text goes where it would go
    event.preventDefault();
    add(files);
  });
  takeDrops(add);
}

function takeDrops(add) {
  const zone = find("drop");
  const brings = (event) => event.dataTransfer?.types.includes("Files");
  let inside = 0; // elements of the page that were entered and not left
  const hide = () => {
    inside = 0;
    zone.hidden = true;
  };
  addEventListener("dragenter", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    inside += 1;
    zone.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!brings(event)) return;
    inside -= 1;
    if (inside <= 0) hide();
  });
  addEventListener("dragover", (event) => {
    if (brings(event)) event.preventDefault(); // else the browser would open the file
  });
  addEventListener("drop", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    hide();
    add([...event.dataTransfer.files]);
  });
}
