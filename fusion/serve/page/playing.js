/* Playing the seconds of a clip, in the player and in a thumbnail. */

import { make } from "./dom.js";

const FRAME = 0.04; // seconds: how far before its end a clip is held, so that the next is not seen

/**
 * Play a clip in a video element from its first second, and see to its end.
 *
 * Whoever seeks to a place outside the clip leaves it: nothing is stopped or repeated there.
 * @param {HTMLVideoElement} video
 * @param {{media: string, start: number, end: number}} clip
 * @param {() => string} atEnd what is to be done at the end: "stop", "repeat" or "on"
 * @returns {{again: () => void, changed: () => void, leave: () => void}}
 */
export function playClip(video, clip, atEnd) {
  const listening = new AbortController();
  let inside = true; // playing the clip, not what is before or after it
  let stopped = false; // at the end of the clip
  let own = false; // the seek under way is ours
  let gone = false;

  const seek = (second) => {
    own = true;
    video.currentTime = second;
  };
  const play = () => video.play().catch(() => {}); // refused without a click: then it waits for one
  const again = () => {
    [inside, stopped] = [true, false];
    seek(clip.start);
    play();
  };
  const finish = () => {
    if (atEnd() === "repeat") return again();
    inside = false;
    if (atEnd() !== "stop") return undefined;
    video.pause();
    stopped = true;
    return seek(Math.max(clip.start, clip.end - FRAME));
  };
  const check = () => {
    if (inside && !own && video.currentTime >= clip.end - FRAME / 2) finish();
  };
  const watch = () => {
    if (gone) return;
    check();
    requestAnimationFrame(watch); // timeupdate alone comes a quarter of a second late
  };
  const on = (name, handler) =>
    video.addEventListener(name, handler, { signal: listening.signal });

  on("loadedmetadata", () => {
    if (Math.abs(video.currentTime - clip.start) > FRAME) seek(clip.start);
  });
  on("seeking", () => {
    if (own) return;
    stopped = false;
    inside = video.currentTime >= clip.start - FRAME && video.currentTime < clip.end - FRAME;
  });
  on("seeked", () => (own = false));
  on("play", () => stopped && again());
  on("timeupdate", check); // when the page is not drawn, there are no animation frames
  on("ended", () => inside && finish());

  video.src = `${clip.media}#t=${clip.start}`;
  play();
  requestAnimationFrame(watch);
  return {
    again,
    /** The user has chosen another thing to do at the end. */
    changed: () => {
      if (!stopped || atEnd() === "stop") return;
      if (atEnd() === "repeat") return again();
      stopped = false;
      play();
    },
    leave: () => {
      gone = true;
      listening.abort();
      video.pause();
      video.removeAttribute("src");
      video.load(); // ends the download
    },
  };
}

/** Why a video element shows no picture although its clip has one; null: it does. */
export function lacksPicture(video, clip) {
  return clip.thumbnail !== null && video.readyState >= 1 && video.videoWidth === 0
    ? "This browser plays the sound of this film, but cannot show its picture."
    : null;
}

const DELAY = 120; // milliseconds: a pointer that only passes by loads no film

let present = null; // what ends the preview that plays: there is one at a time

/** Let a button with a thumbnail play a clip. */
export function preview(button, hit) {
  if (hit.thumbnail === null) return; // there is nothing to see
  let waiting = 0;
  const begin = () => {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    clearTimeout(waiting);
    waiting = setTimeout(() => play(button, hit), DELAY);
  };
  const end = () => {
    clearTimeout(waiting);
    if (present?.button === button) stopPreview();
  };
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && begin());
  button.addEventListener("pointerleave", end);
  button.addEventListener("focus", () => button.matches(":focus-visible") && begin());
  button.addEventListener("blur", end);
}

/** End the preview that plays. */
export function stopPreview() {
  present?.end();
  present = null;
}

function play(button, hit) {
  if (present?.button === button) return;
  stopPreview();
  const video = make("video", { playsinline: true, preload: "auto", tabindex: "-1" });
  video.setAttribute("aria-hidden", "true");
  video.muted = true;
  const failed = () => {
    if (present?.button !== button) return;
    stopPreview();
    if (!button.querySelector(".cannot")) {
      button.append(make("span", { class: "cannot" }, "this browser cannot play it"));
    }
  };
  video.addEventListener("error", failed);
  video.addEventListener("loadedmetadata", () => lacksPicture(video, hit) && failed());
  video.addEventListener("playing", () => video.classList.add("shown"));
  button.querySelector(".time").before(video);
  const playing = playClip(video, hit, () => "repeat");
  present = {
    button,
    end: () => {
      playing.leave();
      video.remove();
    },
  };
}
