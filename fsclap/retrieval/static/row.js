// A clip as a row: play, waveform, caption, length, speaker, score; the rest on demand.

import { clipAddress, clock, el, go, icon } from "./dom.js";
import { t } from "./i18n.js";
import { known, measured, readable, shortSpeaker } from "./measures.js";
import { clipDeck } from "./player.js";
import * as basket from "./basket.js";

const KEEP = "M5 3h10v14l-5-4-5 4z";
const OPEN = "M5 8l5 5 5-5";
const share = (value) => `${Math.round(100 * value)} %`;

/** A row with a heading of this level; its property `deck` is the player. */
export function row(clip, { level = 2, title = "" } = {}) {
  const deck = clipDeck(clip.utterance_id, clip.caption, clip.duration);
  const details = el("div", { class: "details", hidden: true });
  const keep = basket.toggle(clip, icon(KEEP));
  const more = el("button", { type: "button", class: "quiet more", "aria-expanded": "false", "aria-label": t("Details: {name}", { name: clip.caption }),
    onclick: () => open() }, icon(OPEN));
  const element = el("article", { class: "row", "aria-label": clip.caption, "data-id": clip.utterance_id },
    deck.element,
    el(`h${level}`, { class: "caption" }, ...marked(clip.caption, clip.marked ?? [])),
    el("button", { type: "button", class: "quiet speaker", title: clip.speaker, "aria-label": t("Voice: {name}", { name: shortSpeaker(clip.speaker) }),
      onclick: () => dispatchEvent(new CustomEvent("voice", { detail: clip.speaker })) }, shortSpeaker(clip.speaker)),
    score(clip, title), keep, more, details);
  function open() {
    const opening = details.hidden;
    if (!details.childElementCount) details.append(...detailed(clip));
    details.hidden = !opening;
    more.setAttribute("aria-expanded", String(opening));
  }
  return Object.assign(element, { deck, open, keep: () => keep.click(), clip });
}

/** A caption with the words that the query asked for marked. */
function marked(caption, words) {
  const spans = words.map((word) => [placeOf(caption, word), word]).filter(([at]) => at >= 0).sort(([a], [b]) => a - b);
  const parts = [];
  let from = 0;
  for (const [at, word] of spans) {
    if (at < from) continue;
    parts.push(caption.slice(from, at), el("mark", {}, word));
    from = at + word.length;
  }
  return [...parts, caption.slice(from)];
}

/** Where a caption has some words: "low" is not in "slow". */
const placeOf = (caption, words) => caption.search(new RegExp(`(?<![\\p{L}\\p{N}])${words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}(?![\\p{L}\\p{N}])`, "u"));

function score(clip, title) {
  if (clip.share === null && clip.changes) {
    return el("p", { class: "score", title: t("Of the changes that are asked for") }, t("{n} of {all}", { n: clip.why.length, all: clip.why.length + clip.lacks.length }));
  }
  if (clip.share === undefined || clip.guess) return el("span", { class: "score" });
  if (clip.share === null) return el("p", { class: "score none", title }, "–");
  const bar = el("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", clip.share);
  return el("p", { class: "score", title }, bar, el("span", { class: "visually-hidden" }, t("Match: ")), share(clip.share));
}

function detailed(clip) {
  return [
    clip.text ? el("p", { class: "text" }, `“${clip.text}”`, sure(clip.text_confidence)) : null,
    clip.kind === "event" ? el("p", { class: "text" }, t("A sound without words")) : null,
    told(t("Has what was asked for:"), clip.why), told(t("Lacks:"), clip.lacks),
    chips(clip),
    el("div", { class: "actions" }, ...actions(clip)),
    measures(clip),
    el("p", { class: "source" }, origin(clip)),
  ].filter(Boolean);
}

const sure = (confidence) => (confidence === null ? "" : ` (${share(confidence)})`);

const told = (label, phrases) => (phrases?.length ? el("p", { class: "why" }, el("span", { class: "of" }, label), " ", phrases.join(", ")) : null);

/** The words of a clip as buttons that filter. */
export function chips(clip) {
  const list = (clip.style ?? []).map(({ attribute, word }) => [`style.${attribute}`, word, word]);
  if (clip.emotion) {
    list.unshift(["emotion", clip.emotion, clip.emotion + sure(clip.emotion_confidence)]);
  }
  for (const event of clip.events ?? []) list.push(["events", event, event]);
  if (!list.length) return null;
  return el("ul", { class: "chips", "aria-label": t("How it sounds; a button filters") }, ...list.map(([column, value, shown]) =>
    el("li", {}, chip(column, value, shown))));
}

export const chip = (column, value, shown = value) => el("button", {
  type: "button", class: "chip", title: t("Only clips with this"),
  onclick: () => dispatchEvent(new CustomEvent("narrow", { detail: { column, value } })),
}, el("span", { class: "of" }, readable(column)), " ", shown);

function origin(clip) {
  const places = [shortSpeaker(clip.speaker), clip.title];
  if (clip.series && !clip.speaker?.startsWith(clip.series)) places.push(`${clip.series} ${clip.episode ?? ""}`.trim());
  if (clip.start !== null) places.push(t("{from} to {to}", { from: clock(clip.start), to: clock(clip.end) }));
  if (clip.language) places.push(clip.language);
  return places.filter(Boolean).join("  ·  ");
}

/** Links whose names begin with what they show. */
function actions(clip) {
  const id = encodeURIComponent(clip.utterance_id);
  const link = (label, attributes) => el("a", { ...attributes, "aria-label": `${label}: ${clip.caption}` }, label);
  return [
    link(t("More like this"), { href: `.?like=${id}`, "data-view": "search" }),
    link(t("Show on the map"), { href: `map?clip=${id}`, "data-view": "map" }),
    link(t("Download"), { href: clipAddress(clip.utterance_id, "/audio"), download: `${clip.utterance_id}.flac` }),
    clip.source && link(t("Source"), { href: clip.source, target: "_blank", rel: "noopener noreferrer" }),
  ];
}

function measures(clip) {
  const values = known(clip);
  return values.length ? el("dl", { class: "measures" }, ...values.map(([name, value]) =>
    el("div", {}, el("dt", {}, readable(name)), el("dd", {}, measured(name, value))))) : null;
}
