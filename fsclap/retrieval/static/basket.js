// Clips that are kept: side by side, one after another, exported as prompts. They survive a reload.

import { api, byId, el, icon, showProblem } from "./dom.js";
import { counted, t } from "./i18n.js";
import { known, measured, readable, shortSpeaker } from "./measures.js";
import { clipDeck, playInTurn, stop } from "./player.js";
import { read, refused, write } from "./storage.js";

const MOST = 50;
const REMOVE = "M5 5l10 10M15 5L5 15";
const COMPARED = ["attributes.pitch_hz", "attributes.pitch_range_st", "attributes.speaking_rate", "attributes.pause_ratio",
  "attributes.energy_db", "attributes.aperiodicity"];
const buttons = new Map(); // utterance id -> Set of its buttons on the page
let name = "basket";
let clips = []; // kept, in the order of keeping
let query = () => "";
let decks = [];

/** @param currentQuery () => the text of the search, for the record of an export */
export async function setUp(about, currentQuery) {
  name = `basket-${about.corpus}`;
  query = currentQuery;
  byId("compare-open").addEventListener("click", compare);
  byId("basket-empty").addEventListener("click", () => change([]));
  byId("compare-turn").addEventListener("click", () => playInTurn(decks));
  byId("compare").addEventListener("close", stop);
  byId("compare").addEventListener("keydown", key);
  for (const close of document.querySelectorAll("dialog .close")) close.addEventListener("click", () => close.closest("dialog").close());
  let ids = [];
  try {
    ids = JSON.parse(read(name) ?? "[]").slice(0, MOST);
  } catch { /* another program's value */ }
  if (!ids.length) return;
  try {
    const found = await api(`api/clips?${new URLSearchParams(ids.map((id) => ["id", id]))}`);
    clips = found.clips;
    if (found.gone.length) tell(counted(found.gone.length, "{n} kept clip is no longer in the index.", "{n} kept clips are no longer in the index."));
  } catch (error) {
    showProblem(byId("basket-problem"), error);
  }
  show();
}

const has = (id) => clips.some((clip) => clip.utterance_id === id);

/** A button that keeps a clip, and shows whether it is kept. */
export function toggle(clip, picture) {
  const id = clip.utterance_id;
  const button = el("button", {
    type: "button", class: "quiet keep", "aria-label": t("Keep: {name}", { name: clip.caption }), "aria-pressed": String(has(id)), title: t("Keep to compare and export"),
    onclick: () => (has(id) ? change(clips.filter((one) => one.utterance_id !== id)) : add(clip)),
  }, picture);
  buttons.set(id, (buttons.get(id) ?? new Set()).add(button));
  return button;
}

function add(clip) {
  if (clips.length >= MOST) tell(t("At most {n} clips can be kept.", { n: MOST }));
  else change([...clips, clip]);
}

/** Keep several clips, as many as there is room for. */
export function addAll(some) {
  const fresh = some.filter((clip) => !has(clip.utterance_id));
  change([...clips, ...fresh].slice(0, MOST));
  if (clips.length === MOST) tell(t("At most {n} clips can be kept.", { n: MOST }));
}

function change(next) {
  clips = next;
  tell(refused ? t("This browser keeps no data of the page: kept clips are lost when it is closed.") : "");
  write(name, JSON.stringify(clips.map((clip) => clip.utterance_id)));
  show();
}

const tell = (text) => byId("basket-note").replaceChildren(text);

function show() {
  byId("basket").hidden = !clips.length;
  document.body.classList.toggle("keeping", clips.length > 0);
  byId("basket-count").textContent = counted(clips.length, "{n} clip kept", "{n} clips kept");
  for (const link of document.querySelectorAll(".export")) {
    const parameters = new URLSearchParams(clips.map((clip) => ["id", clip.utterance_id]));
    parameters.set("query", query());
    link.href = `api/export?${parameters}`;
  }
  for (const [id, some] of buttons) {
    for (const button of some) {
      if (button.isConnected) button.setAttribute("aria-pressed", String(has(id)));
      else some.delete(button); // of results that are no longer shown
    }
    if (!some.size) buttons.delete(id);
  }
  if (byId("compare").open) clips.length ? table() : byId("compare").close();
}

function compare() {
  stop();
  show();
  table();
  byId("compare").showModal();
}

const letter = (at) => (at < 26 ? String.fromCharCode(65 + at) : String(at + 1));

function table() {
  decks = clips.map((clip, at) => Object.assign(clipDeck(clip.utterance_id, `${letter(at)}, ${clip.caption}`, clip.duration)));
  const row = (label, cells) => el("tr", {}, el("th", { scope: "row" }, label), ...cells.map((cell) => el("td", {}, cell)));
  const head = clips.map((clip, at) => el("th", { scope: "col" },
    el("div", { class: "column-head" }, el("b", { class: "letter" }, letter(at)),
      el("button", { type: "button", class: "quiet", "aria-label": t("Remove: {name}", { name: `${letter(at)}, ${clip.caption}` }),
        onclick: () => change(clips.filter((one) => one !== clip)) }, icon(REMOVE))),
    decks[at].element));
  const value = (clip, column) => new Map(known(clip)).get(column.replace("attributes.", ""));
  const numbers = COMPARED.filter((column) => clips.some((clip) => value(clip, column) !== undefined));
  byId("compare-table").style.minWidth = `${110 + 190 * clips.length}px`;
  byId("compare-table").replaceChildren(
    el("thead", {}, el("tr", {}, el("td", {}), ...head)),
    el("tbody", {},
      row(t("Caption"), clips.map((clip) => clip.caption)),
      row(t("Words"), clips.map((clip) => (clip.text ? `“${clip.text}”` : "–"))),
      row(t("Speaker"), clips.map((clip) => shortSpeaker(clip.speaker))),
      clips.some((clip) => clip.emotion) ? row(t("Emotion"), clips.map((clip) => clip.emotion ?? "–")) : "",
      ...numbers.map((column) => row(readable(column), clips.map((clip) => {
        const found = value(clip, column);
        return found === undefined ? "–" : measured(column, found);
      }))),
      row(t("Length"), clips.map((clip) => measured("duration", clip.duration)))));
}

function key(event) {
  const at = Number(event.key) - 1;
  if (event.ctrlKey || event.metaKey || event.altKey || !(at in decks)) return;
  event.preventDefault();
  decks[at].restart();
}
