/* The filter by film: a list that can be searched. */

import * as api from "./api.js";
import { clock, count, find, icon, make } from "./dom.js";

const SHOWN = 100; // films of the list; more are found by their name

/** Let the user choose a film; `choose` gets {id, name}. */
export function chooseFilm(choose) {
  const [button, panel, name] = [find("films"), find("panel"), find("name")];
  let asking = new AbortController();
  let waiting = 0;

  const close = (focus = false) => {
    if (panel.hidden) return;
    panel.hidden = true;
    button.setAttribute("aria-expanded", "false");
    if (focus) button.focus();
  };
  const list = async () => {
    asking.abort();
    asking = new AbortController();
    try {
      const found = await api.films(name.value.trim(), asking.signal);
      find("names").replaceChildren(...found.slice(0, SHOWN).map(row));
      find("rest").textContent = rest(found.length);
    } catch (error) {
      if (error.name !== "AbortError") find("rest").textContent = error.message;
    }
  };
  const row = (film) => {
    const pick = () => {
      close();
      choose({ id: film.id, name: film.name });
    };
    const facts = `${clock(film.seconds)} · ${count(film.clips, "clip")}`;
    const title = make("span", { dir: "auto" }, film.name);
    const small = make("span", { class: "small" }, facts);
    return make("li", {}, make("button", { type: "button", click: pick }, title, small));
  };

  button.addEventListener("click", () => {
    if (!panel.hidden) return close();
    panel.hidden = false;
    button.setAttribute("aria-expanded", "true");
    name.value = "";
    name.focus();
    list();
  });
  name.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(list, 120);
  });
  panel.addEventListener("keydown", (event) => move(event, close));
  panel.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !panel.contains(event.relatedTarget)) close();
  });
  addEventListener("pointerdown", (event) => {
    if (!panel.contains(event.target) && !button.contains(event.target)) close();
  });
}

/** Arrows go through the list, Enter in the box takes the first film, Escape closes. */
function move(event, close) {
  const rows = [...find("names").querySelectorAll("button")];
  const place = rows.indexOf(document.activeElement);
  if (event.key === "Escape") close(true);
  else if (event.key === "ArrowDown") rows[Math.min(place + 1, rows.length - 1)]?.focus();
  else if (event.key === "ArrowUp") (place > 0 ? rows[place - 1] : find("name")).focus();
  else if (event.key === "Enter" && place < 0) rows[0]?.click();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

const rest = (number) =>
  number === 0
    ? "No film has this in its name."
    : number > SHOWN
      ? `${count(number - SHOWN, "more film")}: write a part of the name.`
      : "";

/** Show which film is searched in; null: all. */
export function showFilm(film, remove) {
  const chip = find("film");
  chip.hidden = film === null;
  find("films").querySelector("span").textContent = film === null ? "All films" : "Change film";
  if (film === null) return chip.replaceChildren();
  const label = `Search in all films, not only in ${film.name}`;
  const options = { type: "button", class: "quiet icon", "aria-label": label, click: remove };
  const name = make("span", { class: "label", dir: "auto", title: film.name }, `only ${film.name}`);
  chip.replaceChildren(name, make("button", options, icon("close")));
}
