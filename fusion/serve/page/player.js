/* The player: a hit at its second, with sound. */

import { whyNot } from "./api.js";
import { find, icon, make, span } from "./dom.js";
import { placed, reasons, scaleOf } from "./hits.js";
import { makeAsking } from "./asking.js";
import { lacksPicture, playClip, stopPreview } from "./playing.js";
import { makeTimeline } from "./timeline.js";

const CHOICES = ["stop", "repeat", "on"];
const TYPING = "textarea, input[type=text]"; // where a letter is a letter, not a command

/**
 * The player of the page.
 * @param {object} acts `closed()`, `step(by)` to another hit, `like(hit)`, `only(hit)`
 */
export function makePlayer(acts) {
  const [dialog, video, notice] = [find("player"), find("video"), find("player-notice")];
  let hit = null;
  let playing = null;
  const timeline = makeTimeline(video);
  const moment = () => (hit ? { film: hit.film.id, start: video.currentTime } : null);
  const asking = makeAsking(find("moment"), "Ask about this picture", moment);
  let atEnd = localStorage.getItem("at-end");
  if (!CHOICES.includes(atEnd)) atEnd = "stop";

  for (const radio of dialog.querySelectorAll("input[name=at-end]")) {
    radio.checked = radio.value === atEnd;
    radio.addEventListener("change", () => {
      atEnd = radio.value;
      localStorage.setItem("at-end", atEnd);
      playing?.changed();
    });
  }
  const tell = (line) => {
    notice.hidden = line === null;
    notice.replaceChildren(line ?? "");
    if (line === null || !hit) return;
    const file = { href: hit.media, download: hit.film.name.split("/").pop() };
    notice.append(" ", make("a", file, "Save the film"));
  };
  video.addEventListener("loadedmetadata", () => hit && tell(lacksPicture(video, hit)));
  video.addEventListener("error", async () => {
    const failed = hit;
    if (!failed || !video.hasAttribute("src")) return;
    const line = await whyNot(failed.media);
    if (hit !== failed) return;
    tell(line ?? `This browser cannot play the format of this film. The clip is at ${span(hit)}.`);
  });

  const leave = () => {
    playing?.leave();
    timeline.leave();
    asking.clear();
    [playing, hit] = [null, null];
  };
  dialog.addEventListener("close", () => {
    leave();
    acts.closed();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the player
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches(TYPING)) return;
    if (event.key === "m" && hit) acts.like(hit);
    else if (event.key === "n") acts.step(1);
    else if (event.key === "p") acts.step(-1);
    else return;
    event.preventDefault();
  });
  find("player-close").addEventListener("click", () => dialog.close());
  find("player-again").addEventListener("click", () => playing?.again());
  find("player-next").addEventListener("click", () => acts.step(1));
  find("player-back").addEventListener("click", () => acts.step(-1));

  return {
    /** Show a hit; `hits` are those it is one of, `about` the facts of the index. */
    open(next, hits, about) {
      if (hit?.id === next.id) return;
      stopPreview();
      leave();
      hit = next;
      tell(null);
      find("player-film").textContent = hit.film.name;
      find("player-time").textContent = span(hit);
      find("player-facts").replaceChildren(...facts(hit, hits, about, acts));
      const place = hits.findIndex((other) => other.id === hit.id);
      find("player-back").disabled = place <= 0;
      find("player-next").disabled = place < 0 || place === hits.length - 1;
      if (hit.thumbnail === null) video.removeAttribute("poster");
      else video.poster = hit.thumbnail;
      find("moment").hidden = !about.answers || hit.thumbnail === null;
      find("steps").hidden = !about.steps;
      timeline.show(hit);
      if (!dialog.open) dialog.showModal();
      video.focus();
      playing = playClip(video, hit, () => atEnd);
    },
    close() {
      if (dialog.open) dialog.close();
    },
  };
}

function facts(hit, hits, about, acts) {
  const text = hit.text ? make("p", { class: "text", dir: "auto" }, hit.text) : null;
  const scored = typeof hit.score === "number"; // not if the address alone names the clip
  const rank = scored ? make("p", { class: "small" }, placed(hit)) : null;
  const why = scored ? reasons(hit, scaleOf([...hits, hit]), about) : null;
  const buttons = make(
    "div",
    { class: "buttons" },
    make("button", { type: "button", class: "quiet", click: () => acts.like(hit) },
      icon("like"), "More like this"),
    make("button", { type: "button", class: "quiet", click: () => acts.only(hit) },
      icon("film"), "Only this film"),
  );
  return [why, make("div", {}, text, rank, buttons)].filter(Boolean);
}
