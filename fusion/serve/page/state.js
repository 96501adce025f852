/* What is asked, as the address and the history of the page hold it.
 *
 * Words, film, near and in are in the address, so a search can be sent to someone by its address.
 * Files are not: they stay in this page's memory, and the history holds their numbers.
 */

export const TOP = 20; // hits of a new search, and how many more "Show more" brings

export const NOTHING = Object.freeze({
  q: "", // words
  within: "", // combinations to compare, "v,va"; empty: the largest of each clip
  film: null, // number of the only film to search in
  near: null, // number of the clip whose like is searched for
  top: TOP,
  clip: null, // number of the clip that the player shows
  files: Object.freeze([]), // of the question: {id, kind, name}
  start: "", // seconds of the files that are used
  end: "",
});

const memory = new Map(); // files by number
let numbers = Date.now(); // so that a number of before a reload is not given again

/** Keep a file in memory; its facts go into the state. */
export function remember(kind, file) {
  numbers += 1;
  memory.set(numbers, file);
  return { id: numbers, kind, name: file.name };
}

/** The file of some facts; undefined: it is gone, the page has been loaded again. */
export const recall = (facts) => memory.get(facts.id);

const number = (text) => (/^\d{1,15}$/.test(text ?? "") ? Number(text) : null);

/** Read the state from the address and the history. */
export function read() {
  const given = new URLSearchParams(location.search);
  const kept = history.state ?? {};
  return {
    ...NOTHING,
    q: given.get("q") ?? "",
    within: given.get("in") ?? "",
    film: number(given.get("film")),
    near: number(given.get("near")),
    top: number(given.get("top")) || TOP,
    clip: number(given.get("clip")),
    files: kept.files ?? [],
    start: kept.start ?? "",
    end: kept.end ?? "",
  };
}

/** The address of a state. */
export function address(state) {
  const values = {
    q: state.q,
    in: state.within,
    film: state.film,
    near: state.near,
    top: state.top === TOP ? null : state.top,
    clip: state.clip,
  };
  const set = Object.entries(values).filter(([, value]) => value !== null && value !== "");
  return set.length ? `/?${new URLSearchParams(set)}` : "/";
}

/** Write a state into the history: as a new page, or in place of the present one. */
export function write(state, replace = false) {
  const { files, start, end } = state;
  const kept = { files, start, end, ours: !replace || Boolean(history.state?.ours) };
  history[replace ? "replaceState" : "pushState"](kept, "", address(state));
}

/** Whether anything is asked. */
export const asks = (state) => Boolean(state.q || state.near !== null || state.files.length);

/** What the hits follow from: all but the clip that is open. */
export const key = ({ clip, ...rest }) => JSON.stringify(rest);
