// Voices: who speaks in the corpus, each with a card.

import { api, byId, el, showProblem, svg } from "./dom.js";
import { counted, t } from "./i18n.js";
import { measured, readable, shortSpeaker } from "./measures.js";
import { chip, row } from "./row.js";
import { stop } from "./player.js";

let about = null;
let narrow = () => {};

/** @param onlyThis (column, value) => void, filters the search */
export function setUp(corpus, onlyThis) {
  about = corpus;
  narrow = onlyThis;
  addEventListener("voice", (event) => open(event.detail));
  byId("voice").addEventListener("close", stop);
}

/** The most frequent voices as small cards, for the start page. */
export async function list() {
  if (byId("voices-list").childElementCount) return;
  try {
    const { voices } = await api("api/voices");
    byId("voices").hidden = !voices.length;
    byId("voices-list").replaceChildren(...voices.map((voice) => el("li", {}, el("button", { type: "button", class: "voice-card", onclick: () => open(voice.speaker) },
      el("b", {}, shortSpeaker(voice.speaker)), el("span", { class: "hint" }, counted(voice.clips, "{n} clip", "{n} clips")),
      band(voice, "attributes.pitch_hz"),
      el("span", { class: "hint" }, said(voice))))));
  } catch (error) {
    showProblem(byId("search-problem"), error);
  }
}

const said = ({ emotions, words }) => [...emotions.map(({ value }) => value),
  ...words.map(({ attribute, word }) => `${word} (${readable(attribute).toLowerCase()})`)].slice(0, 3).join(", ");

/** Where the voice lies between the lowest and the highest of the corpus. */
function band(voice, column) {
  const whole = about.measures.find((measure) => measure.column === column);
  const found = voice.ranges[column];
  if (!whole || !found) return null;
  const place = (value) => 100 * Math.min(Math.max((value - whole.low) / (whole.high - whole.low), 0), 1);
  const [low, middle, high] = found.map(place);
  return el("span", { class: "band" },
    svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "all", x: 0, y: 3.2, width: 100, height: 1.6 }),
      svg("rect", { class: "own", x: low, y: 1.5, width: Math.max(high - low, 1.5), height: 5 }),
      svg("rect", { class: "middle", x: middle - 0.6, y: 0, width: 1.2, height: 8 })),
    el("span", { class: "band-text" }, `${measured(column, found[0])} – ${measured(column, found[2])}`));
}

export async function open(speaker) {
  stop();
  const dialog = byId("voice");
  byId("voice-title").textContent = shortSpeaker(speaker);
  byId("voice-body").replaceChildren(el("p", { class: "hint" }, t("Loading …")));
  if (!dialog.open) dialog.showModal();
  try {
    const voice = await api(`api/voice?${new URLSearchParams({ speaker })}`);
    const { clips } = await api(`api/clips?${new URLSearchParams(voice.ids.map((id) => ["id", id]))}`);
    byId("voice-body").replaceChildren(
      el("p", { class: "hint" }, [counted(voice.clips, "{n} clip", "{n} clips"), measured("duration", voice.seconds), ...voice.series].join("  ·  ")),
      el("dl", { class: "bands" }, ...Object.keys(voice.ranges).map((column) => el("div", {}, el("dt", {}, readable(column)), el("dd", {}, band(voice, column))))),
      el("ul", { class: "chips", "aria-label": t("How it sounds; a button filters") },
        ...voice.emotions.map(({ value, clips: n }) => el("li", {}, chip("emotion", value, `${value} (${n})`))),
        ...voice.words.map(({ attribute, word, clips: n }) => el("li", {}, chip(`style.${attribute}`, word, `${word} (${n})`)))),
      el("button", { type: "button", class: "button", onclick: () => { dialog.close(); narrow("speaker", speaker); } }, t("Search only this voice")),
      el("h3", {}, t("From low to high")),
      el("ol", { class: "results" }, ...clips.map((clip) => el("li", {}, row(clip, { level: 4 })))));
  } catch (error) {
    showProblem(byId("voice-body"), error, () => open(speaker));
  }
}
