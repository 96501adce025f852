/* Calls to the server that this page came from, and to no other. */

/** A mistake that the user is told in one line. */
export class ServerError extends Error {
  /**
   * @param {string} line
   * @param {string[]} unknown words that the model does not know
   */
  constructor(line, unknown = []) {
    super(line);
    this.unknown = unknown;
  }
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is fusion serve still running?");
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error; // anything else: not JSON, told below
  }
  if (response.ok && answer !== null) return answer;
  const line = typeof answer?.error === "string" ? answer.error : null;
  throw new ServerError(
    line ?? `The server answered ${response.status} ${response.statusText}.`,
    Array.isArray(answer?.unknown) ? answer.unknown : [],
  );
}

/** Write what is set as a query: `?q=a+dog&top=20`. */
function query(values) {
  const set = Object.entries(values).filter(([, value]) => value !== null && value !== "");
  return set.length ? `?${new URLSearchParams(set)}` : "";
}

export const about = () => call("/api/about");

export const films = (part, signal) => call(`/api/films${query({ query: part })}`, { signal });

export const clip = (id) => call(`/api/clips/${encodeURIComponent(id)}`);

/**
 * Ask a question.
 * @param {object} asked see state.js
 * @param {{kind: string, file: File}[]} files sounds, pictures and films of the question
 * @param {AbortSignal} signal
 * @returns {Promise<{hits: object[], unknown: string[], seconds: number}>}
 */
export function search(asked, files, signal) {
  const { film, top, near } = asked;
  const where = { in: asked.within, film, top };
  if (near !== null) return call(`/api/near/${near}${query(where)}`, { signal });
  if (!files.length) return call(`/api/search${query({ q: asked.q, ...where })}`, { signal });
  const form = new FormData();
  const fields = { words: asked.q, start: asked.start, end: asked.end, ...where };
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null && value !== "") form.append(name, value);
  }
  for (const { kind, file } of files) form.append(kind, file, file.name);
  return call("/api/search", { method: "POST", body: form, signal });
}

/**
 * Ask about a picture, or about a film at a second.
 * @param {string} words
 * @param {{picture: File}|{film: number, start: number}} about
 * @param {AbortSignal} signal
 * @returns {Promise<{answers: object[], picture: string, attention: string|null}>}
 */
export function askAbout(words, about, signal) {
  const form = new FormData();
  form.append("words", words);
  for (const [name, value] of Object.entries(about)) {
    if (value instanceof File) form.append(name, value, value.name);
    else form.append(name, value);
  }
  return call("/api/ask", { method: "POST", body: form, signal });
}

/** Look for steps in a film, see timeline.js. */
export function steps(film, lines, ordered, signal) {
  const asked = new URLSearchParams([...lines.map((line) => ["step", line]), ["ordered", ordered]]);
  return call(`/api/steps/${film}?${asked}`, { signal });
}

/** Why a film's file does not come, in one line; null: it does come. */
export async function whyNot(media) {
  try {
    const response = await fetch(media, { headers: { Range: "bytes=0-0" } });
    if (response.ok) return null;
    return (await response.json()).error ?? `The server answered ${response.status}.`;
  } catch {
    return "The server does not answer. Is fusion serve still running?";
  }
}
