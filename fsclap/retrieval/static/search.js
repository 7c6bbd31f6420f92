// Search: the address holds the query, so that it can be shared and the back button works.

import { ApiError, api, byId, counted, el, showProblem } from "./dom.js";
import { card } from "./card.js";
import { Deck, stop } from "./player.js";

const STEP = 10;
const MOST = 100;
const form = byId("search-form");
const controls = {}; // name in the address -> input or select of a filter
const WAYS = { both: "Model and words", model: "Model", words: "Words of the style" };
let by = null; // select of what ranks the clips; "" is the default
let about = null;
let running = null; // AbortController of the current search
let recording = null; // the uploaded file that is searched with
let go = null;

/** @param navigate (address) => void */
export function setUp(corpus, navigate) {
  about = corpus;
  go = navigate;
  byId("examples").replaceChildren(...about.examples.map((example) =>
    el("li", {}, el("button", { type: "button", class: "example", onclick: () => ask({ query: example }) }, example))));
  byId("fields").replaceChildren(...fields());
  byId("filters").open = matchMedia("(min-width: 900px)").matches;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    recording && !byId("query").value.trim() ? listen(recording) : ask({ query: byId("query").value.trim() });
  });
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // so that choosing the same file again triggers a change
    if (file) listen(file);
  });
  byId("more").addEventListener("click", more);
  byId("model-warning").textContent = about.warning;
  setUpDrop();
}

/** Show the results for the address. */
export function show(parameters) {
  byId("query").value = parameters.get("query") ?? "";
  for (const [name, control] of Object.entries(controls)) control.value = parameters.get(name) ?? "";
  by.value = parameters.get("by") ?? "";
  if (by.selectedIndex < 0) by.value = "";
  countFilters();
  const top = Math.min(MOST, Number(parameters.get("top")) || STEP);
  const like = parameters.get("like");
  const query = parameters.get("query");
  if (like) find(`/api/clips/${encodeURIComponent(like)}/like?${filterParameters(top)}`, top);
  else if (query) find(`/api/search?${filterParameters(top)}&by=${by.value || about.by.default}&query=${encodeURIComponent(query)}`, top);
  else if (recording) listen(recording, top);
  else welcome();
}

function welcome() {
  running?.abort();
  clear();
  byId("examples").hidden = false;
  say(`${counted(about.clips, "clip", "clips")} to search. Describe a voice, choose an example, or drop a recording here.`);
}

/** Go to the address of a query with the current filters. */
function ask(query) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) parameters.set(name, value);
  for (const [name, control] of Object.entries(controls)) if (control.value.trim()) parameters.set(name, control.value.trim());
  if (by.value) parameters.set("by", by.value);
  if (query.query) recording = null;
  go(`/?${parameters}`);
}

/** Search again after a filter was changed. */
function refine() {
  const now = new URLSearchParams(location.search);
  const like = now.get("like");
  if (like || byId("query").value.trim()) ask(like ? { like } : { query: byId("query").value.trim() });
  else if (recording) listen(recording);
  countFilters();
}

function more() {
  const parameters = new URLSearchParams(location.search);
  const top = Math.min(MOST, byId("results").childElementCount + STEP);
  if (recording) {
    listen(recording, top);
    return;
  }
  parameters.set("top", top);
  go(`/?${parameters}`);
}

function filterParameters(top) {
  const parameters = new URLSearchParams({ top });
  for (const condition of conditions()) parameters.append("where", condition);
  return parameters;
}

function conditions() {
  const texts = [];
  for (const facet of about.facets) {
    const value = controls[facet.column].value.trim();
    // A value of the corpus must match exactly; any other text must be contained.
    const exact = facet.values.some((known) => known.value === value);
    if (value) texts.push(`${facet.column} ${exact ? "=" : "~"} ${value}`);
  }
  if (controls.min?.value) texts.push(`duration >= ${controls.min.value}`);
  if (controls.max?.value) texts.push(`duration <= ${controls.max.value}`);
  return texts.concat(controls.where.value.split(";").map((text) => text.trim()).filter(Boolean));
}

async function find(address, top) {
  await answer(async (signal) => {
    say("Searching …");
    const found = await api(address, { signal });
    const { clip, clips, notes = [] } = found;
    if (clip) byId("searched-with").replaceChildren(el("h2", { class: "over" }, "Clips like this one"), card(clip, 3));
    list(clips.map((hit) => ({ ...hit, by: found.by })), top, clip, notes);
  });
}

async function listen(file, top = STEP) {
  recording = file;
  byId("query").value = "";
  if (location.pathname !== "/" || new URLSearchParams(location.search).has("query") || new URLSearchParams(location.search).has("like")) {
    const kept = new URLSearchParams(location.search);
    for (const name of ["query", "like", "top"]) kept.delete(name);
    history.pushState(null, "", `/?${kept}`);
  }
  await answer(async (signal) => {
    if (file.size > about.largest) {
      throw new ApiError(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${about.largest / 1e6} MB. Cut it, or use only its sound.`);
    }
    say(`Analysing ${file.name} …`);
    const headers = { "Content-Type": "application/octet-stream" };
    const response = await api(`/api/sound?${filterParameters(top)}`, { method: "POST", body: file, headers, signal });
    byId("searched-with").replaceChildren(uploaded(file, response));
    list(response.clips, top, true);
  });
}

function uploaded(file, { captions, duration }) {
  const address = URL.createObjectURL(file);
  const deck = new Deck(file.name, { audio: address }, duration);
  deck.element.classList.add("plain");
  return el("section", { class: "card upload", "aria-label": "Your recording" },
    el("h2", { class: "caption" }, file.name), deck.element,
    el("p", { class: "over" }, "Captions that fit best"),
    el("ol", { class: "captions" }, ...captions.map(({ caption, score }) =>
      el("li", {}, el("span", {}, caption), el("span", { class: "score" }, score.toFixed(3))))));
}

/** Run a search and show its results, unless a later search has started. */
async function answer(search) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  clear();
  byId("search").setAttribute("aria-busy", "true");
  byId("results").replaceChildren(...Array.from({ length: 3 }, () => el("li", { class: "waiting", "aria-hidden": "true" })));
  try {
    await search(signal);
  } catch (error) {
    if (signal.aborted) return;
    clear();
    showProblem(byId("search-problem"), error, () => answer(search));
  }
  if (!signal.aborted) byId("search").removeAttribute("aria-busy");
}

function list(clips, top, similar, notes = []) {
  byId("results").replaceChildren(...clips.map((clip) => el("li", {}, card(clip))));
  byId("more").hidden = clips.length < top || top >= MOST;
  const [one, many] = similar ? ["similar clip", "similar clips"] : ["clip", "clips"];
  if (clips.length) say(`${counted(clips.length, one, many)}, best first`, notes);
  else {
    say("No clip meets these conditions.", notes);
    byId("searched-with").append(el("div", { class: "notice" },
      el("p", {}, "Remove a condition, or loosen it."),
      el("button", { type: "button", class: "button", onclick: withoutFilters }, "Remove all filters")));
  }
}

function withoutFilters() {
  for (const control of Object.values(controls)) control.value = "";
  refine();
}

function clear() {
  stop();
  for (const id of ["results", "searched-with", "search-problem"]) byId(id).replaceChildren();
  byId("more").hidden = true;
  byId("examples").hidden = true;
  say("");
}

/** Show what happened, and what of a query could not be used. */
function say(text, notes = []) {
  byId("search-status").replaceChildren(text, ...notes.map((note) => el("span", { class: "note" }, note)));
}

function countFilters() {
  const active = Object.values(controls).filter((control) => control.value.trim()).length;
  byId("active-filters").textContent = active ? ` (${active})` : "";
}

function fields() {
  const parts = [byField(), ...about.facets.map(facetField)];
  const { min, max } = about.duration;
  if (min !== null) {
    const limit = (name, label, value) => {
      controls[name] = el("input", {
        type: "number", min: "0", step: "any", inputmode: "decimal", "aria-label": label, placeholder: value.toFixed(1), onchange: refine,
      });
      return controls[name];
    };
    parts.push(el("div", { class: "field", role: "group", "aria-label": "Duration in seconds" }, el("span", { class: "label" }, "Duration (s)"),
      el("div", { class: "span" }, limit("min", "Shortest duration in seconds", min), " to ", limit("max", "Longest duration in seconds", max))));
  }
  controls.where = el("input", {
    id: "where", placeholder: "attributes.pitch_hz < 150", autocomplete: "off", spellcheck: "false", onchange: refine, "aria-describedby": "where-hint",
  });
  parts.push(el("div", { class: "field" }, el("label", { for: "where" }, "Condition"), controls.where,
    el("p", { id: "where-hint", class: "hint" }, "COLUMN OPERATOR VALUE; separate several with a semicolon. Operators: = != < <= > >= and ~ (contains)."),
    el("details", { class: "columns" }, el("summary", {}, "Columns"),
      el("p", {}, about.columns.join(", ")))));
  parts.push(el("button", { type: "button", class: "link", onclick: withoutFilters }, "Remove all filters"));
  return parts;
}

function byField() {
  by = el("select", { id: "by", onchange: refine }, ...about.by.ways.map((way) =>
    el("option", { value: way === about.by.default ? "" : way }, WAYS[way])));
  return el("div", { class: "field" }, el("label", { for: "by" }, "Rank descriptions by"), by);
}

function facetField({ column, values, distinct }) {
  const id = `filter-${column}`;
  const label = el("label", { for: id }, column.charAt(0).toUpperCase() + column.slice(1));
  if (distinct <= 60) {
    controls[column] = el("select", { id, onchange: refine }, el("option", { value: "" }, "Any"),
      ...values.map(({ value, clips }) => el("option", { value }, `${value} (${clips})`)));
    return el("div", { class: "field" }, label, controls[column]);
  }
  controls[column] = el("input", { id, list: `${id}-values`, placeholder: "Any", autocomplete: "off", onchange: refine });
  return el("div", { class: "field" }, label, controls[column],
    el("datalist", { id: `${id}-values` }, ...values.map(({ value }) => el("option", { value }))));
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
