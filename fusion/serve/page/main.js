/* The page: what is asked is the state; each state has an address, a question and hits. */

import * as api from "./api.js";
import { makeAsking } from "./asking.js";
import { count, find } from "./dom.js";
import { chooseFilm, showFilm } from "./films.js";
import { moveInGrid, showHits } from "./hits.js";
import { makePlayer } from "./player.js";
import { stopPreview } from "./playing.js";
import { markWithin, showChips, showWithin, takeFiles, withFiles } from "./question.js";
import { NOTHING, TOP, asks, key, read, recall, write } from "./state.js";
import { busy, clearNotice, say, skeletons, tell } from "./status.js";

const KEPT = 30; // answers in memory, for going back
const MOST = 200; // hits that "Show more" leads to

let about = null; // what the server says of the index
let state = NOTHING;
let shown = null; // the answer on the page: {key, hits}
let asking = new AbortController();
let ready = false; // the page knows what the index has
const waiting = []; // what the user has done before that
let returning = false; // the browser is on its way back: that takes it a moment
const answers = new Map(); // by key
const filmNames = new Map(); // by number
const clips = new Map(); // by number: those that no answer has

const player = makePlayer({
  closed: () => {
    if (state.clip === null) return;
    find("hits").querySelector(`[data-id="${state.clip}"] .open`)?.focus();
    if (!history.state?.ours) return go({ clip: null }, true);
    returning = true;
    return history.back();
  },
  step: (by) => {
    const place = shown.hits.findIndex((hit) => hit.id === state.clip);
    const next = place < 0 ? null : shown.hits[place + by];
    if (next) go({ clip: next.id }, true);
  },
  like: (hit) => like(hit),
  only: (hit) => only(hit),
});

const pictureOf = ({ files }) => files.find(({ kind }) => kind === "picture") ?? null;

const aboutPicture = makeAsking(find("picture-ask"), "Ask about this picture", () => {
  const file = recall(pictureOf(state) ?? {});
  return file ? { picture: file } : null;
});

/** Offer to ask about the picture of the question, if there is one. */
function offerToAsk(before) {
  const picture = pictureOf(state);
  if (picture?.id !== pictureOf(before)?.id) aboutPicture.clear();
  find("picture-ask").hidden = !about?.answers || !picture || !recall(picture);
}

const acts = { open: (hit) => go({ clip: hit.id }), like, only };

/** The words in the box, which may not have been searched for yet. */
function written() {
  const q = find("words").value.trim();
  return q ? { q, near: null, top: TOP, clip: null } : { q, top: TOP, clip: null };
}

function like(hit) {
  clips.set(hit.id, hit);
  find("words").value = "";
  go({ q: "", files: [], start: "", end: "", near: hit.id, top: TOP, clip: null });
  scrollTo({ top: 0 });
}

function only({ film }) {
  filmNames.set(film.id, film.name);
  go({ ...written(), film: film.id });
}

const change = (changes) => go({ ...written(), ...changes });

/** Go to another state: as a new page of the history, or in place of the present one. */
function go(changes, replace = false) {
  if (!ready) return waiting.push(changes);
  if (returning) return addEventListener("popstate", () => go(changes, replace), { once: true });
  const next = { ...state, ...changes };
  const same = key(next) === key(state) && next.clip === state.clip;
  write(next, replace || same);
  return show(next, same);
}

/** Show a state. */
async function show(next, again = false) {
  const before = state;
  state = next;
  offerToAsk(before);
  if (state.clip === null) player.close();
  stopPreview();
  if (ready && find("words").value.trim() !== state.q) find("words").value = state.q;
  document.title = `${titleOf(state)}fusion`;
  markWithin(state.within);
  showChips(state, state.near === null ? null : clips.get(state.near), change);
  showFilm(filmOf(state), () => change({ film: null }));
  find("welcome").hidden = asks(state);
  if (shown?.key !== key(state) || again) await answer(again);
  await openClip();
  await nameThings();
}

const titleOf = ({ q, near, files }) =>
  q ? `${q} · ` : near !== null ? "more like this · " : files.length ? `${files[0].name} · ` : "";

const filmOf = ({ film }) =>
  film === null ? null : { id: film, name: filmNames.get(film) ?? `film ${film}` };

/** Ask the server, or take the answer that it has given before. */
async function answer(again) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const inGrid = find("hits").contains(document.activeElement);
  const focus = () => inGrid && find("hits").querySelector(".open")?.focus();
  const [asked, mine] = [state, key(state)];
  clearNotice();
  if (!asks(asked)) return display(mine, { hits: [], unknown: [] });
  if (answers.has(mine) && !again) {
    display(mine, answers.get(mine));
    return focus();
  }
  const files = asked.files.map((facts) => ({ kind: facts.kind, file: recall(facts) }));
  if (files.some(({ file }) => !file)) {
    display(mine, { hits: [], unknown: [] });
    return tell("The file of this search is no longer in this page; add it again.");
  }
  const longer = shown !== null && asked.top > TOP && shown.hits.length > 0;
  const idle = busy(files.length ? "Reading the file and searching …" : "Searching …", {
    stop: files.length ? () => asking.abort() : null,
    draw: () => longer || skeletons(),
  });
  try {
    const found = await api.search(asked, files, signal);
    keep(mine, found);
    display(mine, found);
    focus();
  } catch (error) {
    if (error.name === "AbortError" && mine !== key(state)) return;
    display(mine, null);
    const retry = error instanceof api.ServerError ? () => show(state, true) : null;
    if (error.name === "AbortError") say("Stopped.");
    else tell(error.message, { unknown: error.unknown ?? [], retry });
  } finally {
    idle();
  }
  refresh();
}

function keep(mine, found) {
  answers.delete(mine);
  answers.set(mine, found);
  if (answers.size > KEPT) answers.delete(answers.keys().next().value);
}

/** Put an answer on the page; null: there is none. */
function display(mine, found) {
  const hits = found?.hits ?? [];
  shown = { key: mine, hits };
  for (const { film } of hits) filmNames.set(film.id, film.name);
  showHits(hits, about, acts);
  find("more").hidden = hits.length < state.top || state.top >= MOST;
  say(found && asks(state) ? found : "");
  if (found && asks(state) && !hits.length && !about.clips) {
    tell("The index has no clips yet; add films by: fusion index FILMS --out INDEX");
  }
}

/** Open the clip of the state in the player. */
async function openClip() {
  const { clip } = state;
  if (clip === null) return;
  try {
    const hit = shown.hits.find((one) => one.id === clip) ?? (await clipOf(clip));
    if (state.clip === clip) player.open(hit, shown.hits, about);
  } catch (error) {
    tell(error.message);
    go({ clip: null }, true);
  }
}

async function clipOf(number) {
  if (!clips.has(number)) clips.set(number, await api.clip(number));
  return clips.get(number);
}

/** Fetch the names of what the address names by number alone. */
async function nameThings() {
  const [{ near, film }, mine] = [state, key(state)];
  try {
    const missing = near !== null && !clips.has(near);
    if (missing) await clipOf(near);
    if (film !== null && !filmNames.has(film)) {
      for (const { id, name } of await api.films("")) filmNames.set(id, name);
    }
    if (mine !== key(state)) return;
    if (missing) showChips(state, clips.get(near), change);
    showFilm(filmOf(state), () => change({ film: null }));
  } catch {
    // the search itself has told what is wrong
  }
}

/** Fetch what the index has now: it may grow while this page is open. */
async function refresh() {
  try {
    const now = await api.about();
    const changed = about && about.version !== now.version;
    if (!about || String(about.combinations) !== String(now.combinations)) {
      about = now;
      showWithin(about, (within) => change({ within }));
      markWithin(state.within);
    }
    about = now;
    find("about").textContent = `${count(about.films, "film")} · ${count(about.clips, "clip")}`;
    if (!changed) return;
    answers.clear();
    if (asks(state)) tell("The index has changed.", { again: () => show(state, true), mild: true });
  } catch (error) {
    if (!about) throw error;
  }
}

function addFiles(files) {
  const { files: present, problem } = withFiles(state.files, files, about?.limits.upload_bytes);
  const added = present.length !== state.files.length || present.some((f, i) => f !== state.files[i]);
  if (added) change({ files: present, near: null });
  if (problem) tell(problem);
}

function submit(event) {
  event.preventDefault();
  const q = find("words").value.trim();
  const near = q ? null : state.near;
  const times = state.files.length ? { start: find("start").value, end: find("end").value } : {};
  if (q || near !== null || state.files.length) go({ q, near, top: TOP, clip: null, ...times });
  else go({ ...NOTHING, within: state.within, film: state.film });
}

/** Ask for more hits, and go on with the first of them. */
async function more() {
  const before = shown.hits.length;
  await go({ top: Math.min(MOST, state.top + TOP) }, true);
  find("hits").querySelectorAll(".open")[before]?.focus();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || find("player").open) return;
  const typing = event.target.matches("input:not([type=radio]), textarea");
  const item = event.target.closest?.(".hit");
  if (event.key === "/" && !typing) find("words").select();
  else if (event.key === "m" && item) return like(item.hit);
  else if (event.key === "ArrowDown" && event.target === find("words") && shown?.hits.length) {
    find("hits").querySelector(".open").focus();
  } else if (!item || !moveInGrid(event.key, item)) return undefined;
  return event.preventDefault();
}

async function start() {
  find("ask").addEventListener("submit", submit);
  for (const id of ["start", "end"]) {
    find(id).addEventListener("change", () => find("ask").requestSubmit());
  }
  find("more").addEventListener("click", more);
  find("home").addEventListener("click", (event) => {
    event.preventDefault();
    go(NOTHING);
    find("words").focus();
  });
  addEventListener("keydown", press);
  addEventListener("popstate", () => {
    returning = false;
    show(read());
  });
  takeFiles(addFiles);
  chooseFilm((film) => only({ film }));
  try {
    await refresh();
  } catch (error) {
    return tell(error.message, { retry: () => location.reload() });
  }
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  write(read(), true);
  if (read().q) find("words").value = read().q; // else it has what the user has begun to write
  show(read());
  ready = true;
  for (const changes of waiting) go(changes);
  return undefined;
}

start();
