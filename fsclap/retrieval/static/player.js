// One audio element for the whole page, and decks: play button, waveform to seek in, time.

import { api, byId, clipAddress, el, svg } from "./dom.js";
import { t } from "./i18n.js";

const audio = byId("audio");
const PLAY = "M6 4l12 7-12 7z";
const PAUSE = "M6 4h4v14H6zM13 4h4v14h-4z";
const STEP = 0.05; // of the clip, for an arrow key
let current = null;
let waiting = []; // decks that play when the current one has ended

for (const event of ["play", "pause", "ended", "timeupdate", "seeked", "durationchange"]) {
  audio.addEventListener(event, () => current?.show());
}
audio.addEventListener("playing", () => current?.audible());
audio.addEventListener("error", () => {
  if (current && audio.getAttribute("src")) current.fail(t("This clip can't be played."));
});
audio.addEventListener("play", follow);
audio.addEventListener("ended", () => waiting.shift()?.restart(true));

function follow() {
  // timeupdate fires only four times a second, so the mark would jump on a short clip.
  current?.show();
  if (!audio.paused) requestAnimationFrame(follow);
}

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    observer.unobserve(entry.target);
    entry.target.deck.outline();
  }
}, { rootMargin: "200px" });

/** Stop playing, because the clip is no longer shown. */
export function stop() {
  waiting = [];
  audio.pause();
  audio.removeAttribute("src");
  current = null;
}

/** Play some clips, one after another. */
export function playInTurn(decks) {
  waiting = decks.slice(1);
  decks[0]?.restart(true);
}

export class Deck {
  /**
   * @param name name of the clip, for assistive technology
   * @param sources {audio, peaks}: addresses; without peaks there is no waveform
   * @param duration in seconds, until the audio has loaded
   * @param onaudible called when the sound begins
   */
  constructor(name, sources, duration, onaudible = () => {}) {
    Object.assign(this, { name, sources, duration: duration ?? 0, onaudible });
    this.icon = svg("path", { d: PLAY });
    this.button = el("button", { type: "button", class: "play", "aria-label": t("Play: {name}", { name }), onclick: () => this.toggle() },
      svg("svg", { viewBox: "0 0 22 22", "aria-hidden": "true" }, this.icon));
    this.wave = el("div", {
      class: "wave", role: "slider", tabindex: "0", "aria-label": t("Position in: {name}", { name }),
      "aria-valuemin": "0", "aria-valuemax": "100",
      onclick: (event) => this.click(event), onkeydown: (event) => this.key(event),
    });
    this.time = el("span", { class: "time" });
    this.problem = el("p", { class: "deck-problem", role: "alert" });
    this.element = el("div", { class: "deck" }, this.button, this.wave, this.time, this.problem);
    this.wave.deck = this;
    this.show();
    if (sources.peaks) observer.observe(this.wave);
  }

  get active() {
    return current === this;
  }

  toggle() {
    waiting = [];
    if (this.active && !audio.paused) audio.pause();
    else this.play();
  }

  /** Play from the beginning. */
  restart(inTurn = false) {
    if (!inTurn) waiting = [];
    this.seek(0);
    this.play();
  }

  /** Resolves once it plays, or once the browser has refused to play without a click. */
  async play() {
    this.load();
    try {
      await audio.play();
    } catch (error) {
      if (error.name !== "AbortError" && error.name !== "NotAllowedError") this.fail(t("This clip can't be played."));
    }
  }

  load() {
    if (this.active) return;
    const before = current;
    current = this;
    audio.src = this.sources.audio;
    before?.show();
  }

  seek(share) {
    this.load();
    audio.currentTime = Math.min(Math.max(share, 0), 1) * this.duration;
    this.show();
  }

  click(event) {
    const box = this.wave.getBoundingClientRect();
    this.seek((event.clientX - box.left) / box.width);
    this.play();
  }

  key(event) {
    const at = this.active ? audio.currentTime / (this.duration || 1) : 0;
    const places = {
      ArrowRight: at + STEP, ArrowLeft: at - STEP, Home: 0, End: 1, // up and down go from clip to clip
    };
    if (event.key in places) this.seek(places[event.key]);
    else if (event.key === " " || event.key === "Enter") this.toggle();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  show() {
    if (this.active && Number.isFinite(audio.duration)) this.duration = audio.duration;
    const playing = this.active && !audio.paused && !audio.ended;
    const at = this.active ? audio.currentTime : 0;
    const percent = this.duration ? Math.min(100, (100 * at) / this.duration) : 0;
    this.element.classList.toggle("playing", playing);
    this.icon.setAttribute("d", playing ? PAUSE : PLAY);
    this.button.setAttribute("aria-label", t(playing ? "Pause: {name}" : "Play: {name}", { name: this.name }));
    this.wave.style.setProperty("--played", `${percent}%`);
    this.wave.setAttribute("aria-valuenow", percent.toFixed(0));
    this.wave.setAttribute("aria-valuetext", t("{at} of {all} seconds", { at: at.toFixed(1), all: this.duration.toFixed(1) }));
    this.time.textContent = this.active && at > 0 ? `${at.toFixed(1)} / ${this.duration.toFixed(1)} s` : `${this.duration.toFixed(1)} s`;
  }

  audible() {
    this.problem.textContent = "";
    this.onaudible();
  }

  fail(message) {
    this.problem.textContent = message;
  }

  async outline() {
    try {
      const { peaks, duration } = await api(this.sources.peaks);
      this.duration = duration;
      this.wave.replaceChildren(bars(peaks, "rest"), bars(peaks, "played"));
      this.show();
    } catch (error) {
      this.fail(error.message);
    }
  }
}

/** Make the deck of a clip of the corpus. */
export function clipDeck(id, name, duration, onaudible) {
  return new Deck(name, { audio: clipAddress(id, "/audio"), peaks: clipAddress(id, "/peaks") }, duration, onaudible);
}

function bars(peaks, kind) {
  const d = peaks.map((peak, at) => {
    const half = Math.max(0.6, 14 * peak);
    return `M${at * 4 + 2} ${(16 - half).toFixed(1)}V${(16 + half).toFixed(1)}`;
  }).join("");
  return svg("svg", { class: kind, viewBox: `0 0 ${peaks.length * 4} 32`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { d }));
}
