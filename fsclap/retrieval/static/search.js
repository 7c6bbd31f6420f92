// Search: the address holds the query, so that it can be shared and the back button works.

import { ApiError, api, byId, clipAddress, el, go, sentence, showProblem } from "./dom.js";
import { counted, number, t } from "./i18n.js";
import { row } from "./row.js";
import { Deck, stop } from "./player.js";
import * as filters from "./filters.js";
import * as recorder from "./recorder.js";
import * as voices from "./voices.js";

const STEP = 10;
const MOST = 100;
const CHANGES = ["higher", "lower", "faster", "slower", "louder", "softer", "livelier", "breathier"];
const recordings = new Map(); // number in the state of the history -> File
let about = null;
let running = null; // AbortController of the current search

export function setUp(corpus) {
  about = corpus;
  byId("examples").replaceChildren(...about.examples.map((example) =>
    el("li", {}, el("button", { type: "button", class: "example", onclick: () => ask({ query: example }) }, example))));
  filters.setUp(about, refine);
  addEventListener("narrow", (event) => {
    document.querySelector("dialog[open]")?.close();
    filters.narrow(event.detail.column, event.detail.value);
  });
  voices.setUp(about, filters.narrow);
  recorder.setUp(listen, (message) => showProblem(byId("search-problem"), new ApiError(message)));
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = byId("query").value.trim();
    if (query) ask({ query });
    else refine();
  });
  byId("query").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" || !rows().length) return;
    event.preventDefault();
    rows()[0].deck.button.focus();
  });
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // so that choosing the same file again triggers a change
    if (file) listen(file);
  });
  byId("drop").addEventListener("keydown", toolbar);
  byId(byId("record").hidden ? "file" : "record").tabIndex = 0;
  byId("more").addEventListener("click", more);
  byId("results").addEventListener("keydown", key);
  byId("model-warning").hidden = !about.warning;
  byId("model-warning").replaceChildren(el("p", {}, about.warning));
  setUpDrop();
}

export const query = () => new URLSearchParams(location.search).get("query") ?? "";

/** Show the results for the address, or for the recording in the state of the history. */
export function show(parameters) {
  byId("query").value = parameters.get("query") ?? "";
  filters.show(parameters);
  const top = Math.min(MOST, Number(parameters.get("top")) || STEP);
  const like = parameters.get("like");
  const recording = recordings.get(history.state?.recording);
  const asked = Boolean(recording || like || parameters.get("query"));
  byId("search").classList.toggle("asked", asked);
  byId("skip").textContent = t(asked ? "Skip to the results" : "Skip to content");
  byId("skip").href = asked ? "#results" : "#main";
  if (recording) hear(recording, top, parameters.get("but") ?? "");
  else if (like) find(clipAddress(like, `/like?${asking(top, { query: parameters.get("but") ?? "" })}`), top);
  else if (asked) find(`api/search?${asking(top, { query: parameters.get("query"), by: filters.way() })}`, top);
  else welcome();
}

export function leave() {
  running?.abort();
}

function welcome() {
  running?.abort();
  clear();
  byId("welcome").hidden = false;
  voices.list();
  say(counted(about.clips, "{n} clip to search.", "{n} clips to search."));
}

/** Go to the address of a query with the current filters. */
function ask(query) {
  go({ address: address(query) });
}

function address(query) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) parameters.set(name, value);
  const text = String(filters.store(parameters));
  return text ? `.?${text}` : ".";
}

/** Search again after a filter was changed. */
function refine() {
  const now = new URLSearchParams(location.search);
  const text = byId("query").value.trim();
  if (history.state?.recording) go({ address: address({ but: now.get("but") }), state: history.state });
  else if (now.get("like")) ask({ like: now.get("like"), but: now.get("but") });
  else ask({ query: text });
}

/** Say in what the clips should differ from the one that is searched with. */
function change(but) {
  const now = new URLSearchParams(location.search);
  if (history.state?.recording) go({ address: address({ but }), state: history.state });
  else ask({ like: now.get("like"), but });
}

/** Search with a recording. */
function listen(file) {
  const recording = recordings.size + 1;
  recordings.set(recording, file);
  byId("query").value = "";
  go({ address: address({}), state: { recording } });
}

function more() {
  const parameters = new URLSearchParams(location.search);
  parameters.set("top", Math.min(MOST, rows().length + STEP));
  go({ address: `.?${parameters}`, state: history.state });
}

function asking(top, more_) {
  const parameters = new URLSearchParams({ top });
  for (const [name, value] of Object.entries(more_)) if (value) parameters.set(name, value);
  for (const condition of filters.conditions()) parameters.append("where", condition);
  return parameters;
}

async function find(path, top) {
  await answer(async (signal) => {
    say(t("Searching …"));
    const found = await api(path, { signal });
    if (found.clip) searchedWith(t("Clips like this one"), row(found.clip, { level: 3 }));
    list(found, top);
  });
}

async function hear(file, top, but) {
  await answer(async (signal) => {
    if (file.size > about.largest) {
      throw new ApiError(t("{name} has {size} MB; the limit is {limit} MB. Cut it, or use only its sound.",
        { name: file.name, size: (file.size / 1e6).toFixed(1), limit: about.largest / 1e6 }));
    }
    say(t("Analysing {name} …", { name: file.name }));
    const headers = { "Content-Type": "application/octet-stream" };
    const found = await api(`api/sound?${asking(top, { query: but })}`, { method: "POST", body: file, headers, signal });
    searchedWith(file.name, recorded(file, found));
    list(found, top);
  });
}

/** What is searched with, and in what the clips should differ from it. */
function searchedWith(title, element) {
  const but = (new URLSearchParams(location.search).get("but") ?? "").split(", ").filter(Boolean);
  const free = el("input", { id: "but", "aria-label": t("Like this, but …"), placeholder: t("higher and faster"), maxlength: "200", autocomplete: "off",
    value: but.filter((word) => !CHANGES.includes(word)).join(", ") });
  const pressed = new Set(but.filter((word) => CHANGES.includes(word)));
  const send = () => change([...pressed, free.value.trim()].filter(Boolean).join(", "));
  byId("searched-with").replaceChildren(el("section", { class: "with", "aria-label": t("Searched with") },
    el("div", { class: "title-row" }, el("h2", {}, title),
      el("button", { type: "button", class: "button small", onclick: () => go({ address: "." }) }, t("Remove"))),
    element,
    el("form", { class: "but", onsubmit: (event) => { event.preventDefault(); send(); } },
      el("span", { class: "label", id: "but-label" }, t("Like this, but")),
      el("div", { class: "chips", role: "group", "aria-labelledby": "but-label" }, ...CHANGES.map((word) =>
        el("button", { type: "button", class: "chip", "aria-pressed": String(pressed.has(word)),
          onclick: () => { pressed.delete(word) || pressed.add(word); send(); } }, t(word)))),
      free, el("button", { class: "button small" }, t("Apply")))));
}

function recorded(file, { captions, duration }) {
  const deck = new Deck(file.name, { audio: URL.createObjectURL(file) }, duration);
  deck.element.classList.add("plain");
  return el("div", { class: "recorded" }, deck.element,
    el("details", {}, el("summary", {}, t("Captions that fit best")),
      el("ol", { class: "captions" }, ...captions.map(({ caption }) => el("li", {}, caption)))));
}

/** Run a search and show its results, unless a later search has started. */
async function answer(search) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  clear();
  byId("search").setAttribute("aria-busy", "true");
  byId("results").replaceChildren(el("ol", { class: "results" }, ...Array.from({ length: STEP }, () => el("li", { class: "waiting", "aria-hidden": "true" }))));
  try {
    await search(signal);
  } catch (error) {
    if (signal.aborted) return;
    clear();
    if (error.field === "where") {
      filters.showProblem(sentence(error.message));
      showProblem(byId("search-problem"), error, filters.mend, t("Mend the condition"));
    } else showProblem(byId("search-problem"), error, () => answer(search));
  }
  if (!signal.aborted) byId("search").removeAttribute("aria-busy");
}

function list({ clips, of, chance, notes = [], guess = false }, top) {
  const title = chance === null ? t("How well the scores fit is not known") : t(
    "Of what is asked for, the share that clips of this score were measured to have; a clip at random has {chance} %", { chance: Math.round(100 * chance) });
  const made = (some, level, start) => el("ol", { class: "results", start, "aria-label": t(level === 2 ? "Search results" : "Weak matches") },
    ...some.map((clip) => el("li", {}, row(clip, { level, title }))));
  const changes = new URLSearchParams(location.search).has("but");
  for (const clip of clips) Object.assign(clip, { changes, guess }, guess ? { marked: [], why: [], lacks: [] } : {});
  const strong = clips.filter((clip) => !clip.weak && !guess);
  const weak = clips.filter((clip) => clip.weak || guess);
  byId("results").replaceChildren(
    strong.length ? made(strong, 2, 1) : "",
    weak.length ? el("section", { class: "weak", "aria-label": t("Weak matches") },
      el("h2", {}, t(guess ? "A guess" : strong.length ? "Weak matches" : "Only weak matches"),
        el("span", { class: "hint" }, guess ? "" : t(chance !== null && chance < 0.3 ? "little in common" : "less than half of what is asked for"))),
      made(weak, 3, strong.length + 1)) : "");
  byId("more").hidden = clips.length < top || top >= MOST;
  byId("keys").hidden = !clips.length;
  if (clips.length) say(t("{n} of {of}, best first", { n: number(clips.length), of: counted(of, "{n} clip", "{n} clips") }), notes);
  else {
    say(t("No clip meets these conditions."), notes);
    byId("results").replaceChildren(el("div", { class: "notice" },
      el("p", {}, t("Remove a condition, or loosen it.")),
      el("button", { type: "button", class: "button", onclick: filters.clear }, t("Remove all filters"))));
  }
}

function clear() {
  stop();
  for (const id of ["results", "searched-with", "search-problem"]) byId(id).replaceChildren();
  for (const id of ["more", "welcome", "keys"]) byId(id).hidden = true;
  say("");
}

/** Show what happened, and what of a query could not be used. */
function say(text, notes = []) {
  byId("search-status").replaceChildren(text, ...notes.map((note) => el("span", { class: "note" }, t(note.text, note.values))));
}

// Keys within the results: from clip to clip, with sound.

const rows = () => [...byId("results").querySelectorAll("article")];

function key(event) {
  const at = rows().indexOf(event.target.closest("article"));
  if (at < 0 || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  const here = rows()[at];
  if (event.key === "ArrowDown" || event.key === "j") step(at + 1);
  else if (event.key === "ArrowUp" || event.key === "k") step(at - 1);
  else if (event.key === "d") here.open();
  else if (event.key === "b") here.keep();
  else return;
  event.preventDefault();
}

function step(to) {
  const next = rows()[to];
  if (!next) {
    if (to < 0) byId("query").focus();
    return;
  }
  next.deck.button.focus();
  next.scrollIntoView({ block: "nearest" });
  next.deck.restart();
}

/** One stop for the Tab key: the arrows go from the one way to search with a sound to the other. */
function toolbar(event) {
  const to = { ArrowRight: "file", ArrowLeft: "record" }[event.key];
  if (!to || byId("record").hidden) return;
  event.preventDefault();
  byId("record").tabIndex = to === "record" ? 0 : -1;
  byId("file").tabIndex = to === "file" ? 0 : -1;
  byId(to).focus();
}

function setUpDrop() {
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    byId("drop").classList.toggle("over", event.type === "dragover");
  };
  byId("search").addEventListener("dragover", over);
  byId("search").addEventListener("dragleave", over);
  byId("search").addEventListener("drop", (event) => {
    over(event);
    const [file] = event.dataTransfer?.files ?? [];
    if (file) listen(file);
  });
}
