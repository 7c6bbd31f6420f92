// A clip as a card: its caption, words, measurements and source.

import { clock, el } from "./dom.js";
import { clipDeck } from "./player.js";

const percent = (value) => `${Math.round(100 * value)} %`;
const MEASURES = {
  pitch_hz: ["Pitch", (v) => `${v.toFixed(0)} Hz`],
  pitch_range_st: ["Pitch range", (v) => `${v.toFixed(1)} semitones`],
  pitch_slope_st: ["Pitch slope", (v) => `${v > 0 ? "+" : ""}${v.toFixed(1)} semitones/s`],
  speaking_rate: ["Pace", (v) => `${v.toFixed(1)} syllables/s`],
  pause_ratio: ["Pauses", percent],
  energy_db: ["Level", (v) => `${v.toFixed(0)} dBFS`],
  energy_range_db: ["Level range", (v) => `${v.toFixed(0)} dB`],
  voiced_ratio: ["Voiced", percent],
  spectral_tilt_db: ["Spectral tilt", (v) => `${v.toFixed(1)} dB`],
  aperiodicity: ["Breath and noise", percent],
  quality: ["Sound quality", (v) => `${v.toFixed(1)} of 5`],
  overlap: ["Overlapping speech", percent],
};

const SCORES = {
  model: ["similarity", "Cosine similarity of query and clip, -1 to 1"],
  words: ["fit", "How well the words of the clip's style meet the query: about 1 if it has all that is asked for"],
  both: ["fit", "Similarity and fit of the words, each in standard deviations over the corpus, added"],
};

export const readable = (name) => {
  const plain = name.replace(/^attributes\./, "");
  const words = MEASURES[plain]?.[0] ?? plain.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

/** A card with a heading of this level; its property `deck` is the player. */
export function card(clip, level = 2) {
  const deck = clipDeck(clip.utterance_id, clip.caption, clip.duration);
  const element = el("article", { class: "card", "aria-label": clip.caption },
    el("div", { class: "head" }, el(`h${level}`, { class: "caption" }, clip.caption), score(clip)),
    deck.element,
    clip.text ? el("p", { class: "text" }, `“${clip.text}”`) : null,
    words(clip),
    clip.why?.length ? el("p", { class: "why" }, el("span", { class: "of" }, "Asked for: "), clip.why.join(", ")) : null,
    el("p", { class: "source" }, origin(clip)),
    el("div", { class: "actions" }, ...actions(clip), measures(clip)),
  );
  element.deck = deck;
  return element;
}

function score({ score: value, by = "model" }) {
  if (value === undefined) return null;
  const [name, title] = SCORES[by];
  return el("p", { class: "score", title }, el("span", { class: "of" }, `${name} `), value.toFixed(3));
}

function words(clip) {
  const list = (clip.style ?? []).map(({ attribute, word }) => [readable(attribute), word]);
  if (clip.emotion) {
    const sure = clip.emotion_confidence === null ? "" : ` (${percent(clip.emotion_confidence)})`;
    list.unshift(["Emotion", clip.emotion + sure]);
  }
  for (const event of clip.events ?? []) list.push(["Event", event]);
  if (!list.length) return null;
  return el("ul", { class: "words", "aria-label": "How it sounds" },
    ...list.map(([name, word]) => el("li", {}, el("span", { class: "of" }, name), " ", word)));
}

function origin(clip) {
  const places = [clip.speaker, clip.title];
  if (clip.series && !clip.speaker?.startsWith(clip.series)) places.push(`${clip.series} ${clip.episode ?? ""}`.trim());
  if (clip.start !== null) places.push(`${clock(clip.start)} to ${clock(clip.end)}`);
  if (clip.language) places.push(clip.language);
  return places.filter(Boolean).join("  ·  ");
}

function actions(clip) {
  const id = encodeURIComponent(clip.utterance_id);
  return [
    el("a", { href: `/?like=${id}`, "data-view": "search", "aria-label": `More like: ${clip.caption}` }, "More like this"),
    el("a", { href: `/api/clips/${id}/audio`, download: `${clip.utterance_id}.flac`, "aria-label": `Download: ${clip.caption}` },
      "Download"),
    clip.source && el("a", { href: clip.source, target: "_blank", rel: "noopener noreferrer", "aria-label": `Source of: ${clip.caption}` },
      "Source"),
  ];
}

function measures(clip) {
  const values = { ...clip.attributes, quality: clip.quality, overlap: clip.overlap || null };
  const known = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  if (!known.length) return null;
  return el("details", { class: "measures" },
    el("summary", { "aria-label": `Details of: ${clip.caption}` }, "Details"),
    el("dl", {}, ...known.map(([name, value]) =>
      el("div", {}, el("dt", {}, readable(name)), el("dd", {}, MEASURES[name]?.[1](value) ?? String(value))))));
}
