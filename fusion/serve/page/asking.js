/* A question about a picture: the best answers, and where in the picture the question looked. */

import { askAbout } from "./api.js";
import { make } from "./dom.js";

/**
 * Fill an element with a form to ask, and what is answered.
 * @param {HTMLElement} place
 * @param {string} title what is asked about
 * @param {() => {picture: File}|{film: number, start: number}|null} source read at each question
 * @returns {{clear: () => void}} `clear` forgets the answer, as the picture is another one
 */
export function makeAsking(place, title, source) {
  const words = make("input", { type: "text", maxlength: 1000, placeholder: "What colour is it?",
    "aria-label": title, autocomplete: "off" });
  const button = make("button", { type: "submit", class: "quiet" }, "Ask");
  const form = make("form", { class: "line-form" }, words, button);
  const told = make("p", { class: "small", role: "status" });
  const result = make("div", { class: "replies" });
  const urls = new Set(); // of pictures; each is in memory until it is revoked
  let asking = new AbortController();

  const clear = () => {
    asking.abort();
    for (const url of urls) URL.revokeObjectURL(url);
    urls.clear();
    told.replaceChildren();
    result.replaceChildren();
    button.disabled = false;
  };
  const image = (base64, alt) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
    urls.add(url);
    return make("figure", {}, make("img", { src: url, alt }), make("figcaption", { class: "small" }, alt));
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const about = source();
    clear();
    if (!words.value.trim() || about === null) return;
    asking = new AbortController();
    const { signal } = asking;
    button.disabled = true;
    told.replaceChildren("Looking …");
    try {
      const found = await askAbout(words.value, about, signal);
      told.replaceChildren();
      result.replaceChildren(
        image(found.picture, "the picture"),
        ...(found.attention ? [image(found.attention, "dark where the question did not look")] : []),
        make("ol", { class: "answers", "aria-label": "Answers" }, ...found.answers.map(reply)),
      );
    } catch (error) {
      if (error.name !== "AbortError") told.replaceChildren(error.message);
    } finally {
      if (!signal.aborted) button.disabled = false;
    }
  });
  place.replaceChildren(make("h3", {}, title), form, told, result);
  return { clear };
}

function reply({ answer, probability }) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i", { class: "by-all" }));
  bar.firstChild.style.setProperty("width", `${(100 * probability).toFixed(1)}%`);
  const percent = `${(100 * probability).toFixed(probability < 0.0995 ? 1 : 0)} %`;
  return make("li", {}, make("span", { class: "answer", dir: "auto" }, answer), bar,
    make("span", { class: "number" }, percent));
}
