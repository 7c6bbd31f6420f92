// Filters: which clips a search may find. The address holds them, under the names of the columns.

import { byId, el, svg } from "./dom.js";
import { number, t } from "./i18n.js";
import { measured, readable, shortSpeaker } from "./measures.js";

const WAYS = { both: "Model and words", model: "Model", words: "Words of the style" };
const POSITIONS = 60; // of a slider
const controls = {}; // name in the address -> {value, text, set}
let by = null;
let about = null;
let changed = () => {};

/** @param onchange called when the reader has changed a filter */
export function setUp(corpus, onchange) {
  about = corpus;
  changed = onchange;
  byId("fields").replaceChildren(
    ...about.measures.map(slider), ...about.facets.map(facet), words(), byField(), conditionField());
  byId("filters").open = matchMedia("(min-width: 900px)").matches;
  byId("clear-filters").addEventListener("click", clear);
}

/** Show the filters of an address. */
export function show(parameters) {
  for (const [name, control] of Object.entries(controls)) control.set(parameters.get(name) ?? "");
  by.value = parameters.get("by") ?? "";
  if (by.selectedIndex < 0) by.value = "";
  showProblem("");
  chips();
}

/** Add the filters to the parameters of an address. */
export function store(parameters) {
  for (const [name, control] of Object.entries(controls)) if (control.value()) parameters.set(name, control.value());
  if (by.value) parameters.set("by", by.value);
  return parameters;
}

export const way = () => by.value || about.by.default;

/** The conditions for the server. */
export const conditions = () => Object.entries(controls).flatMap(([name, control]) => (control.value() ? control.conditions(name, control.value()) : []));

/** Narrow to one value of a column. */
export function narrow(column, value) {
  if (controls[column]) controls[column].set(value);
  else controls.where.set([controls.where.value(), `${column} = "${value}"`].filter(Boolean).join("; "));
  changed();
}

export function clear() {
  for (const control of Object.values(controls)) control.set("");
  changed();
}

/** Show an error beside the field for conditions, and open the filters; "" removes it. */
export function showProblem(message) {
  const field = byId("where");
  byId("where-problem").textContent = message;
  field.toggleAttribute("aria-invalid", Boolean(message));
  if (message) field.setAttribute("aria-invalid", "true");
}

export function mend() {
  byId("filters").open = true;
  byId("where").focus();
  byId("where").scrollIntoView({ block: "center" });
}

/** What is filtered by, each with a button to remove it. */
function chips() {
  const active = Object.entries(controls).filter(([, control]) => control.value());
  byId("active-filters").textContent = active.length ? ` (${active.length})` : "";
  byId("clear-filters").hidden = !active.length;
  byId("chosen-filters").replaceChildren(...active.map(([name, control]) => {
    const text = control.text(name, control.value());
    return el("li", {}, el("button", { type: "button", class: "chip on", "aria-label": t("{text}: remove this filter", { text }),
      onclick: () => { control.set(""); changed(); byId("results").querySelector("button")?.focus(); } }, text, el("span", { "aria-hidden": "true" }, " ×")));
  }));
}

function plain(input, conditionsOf, textOf) {
  return { value: () => input.value.trim(), set: (value) => { input.value = value; }, conditions: conditionsOf, text: textOf };
}

/** Two thumbs over a histogram; a thumb at its end sets no limit. */
function slider({ column, unit, low, high, counts }) {
  const step = nice((high - low) / POSITIONS);
  const first = Math.floor(low / step);
  const last = Math.ceil(high / step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const label = readable(column);
  const shown = el("output", { class: "range-text" });
  // Whole steps, because a browser can't reach the end of a range in fractions.
  const make = (name, value) => el("input", { type: "range", min: first, max: last, step: 1, value, "aria-label": `${label}: ${name}`,
    oninput: (event) => { order(event.target); display(); }, onchange: () => changed() });
  const from = make(t("at least"), first);
  const to = make(t("at most"), last);
  const top = Math.max(...counts);
  const bars = counts.map((count, at) => svg("rect", { x: at * 4, width: 3, y: 24 - (22 * count) / top, height: Math.max(count ? 1 : 0, (22 * count) / top) }));
  const written = (input) => (Number(input.value) * step).toFixed(digits);
  const value = () => {
    const [isFrom, isTo] = [Number(from.value) > first, Number(to.value) < last];
    return isFrom || isTo ? `${isFrom ? written(from) : ""}..${isTo ? written(to) : ""}` : "";
  };
  const say = (text) => {
    const [a, b] = text.split("..").map((part) => (part ? measured(column, Number(part)) : null));
    if (a && b) return `${a} – ${b}`;
    return a ? `≥ ${a}` : b ? `≤ ${b}` : t("any");
  };
  function order(moved) { // the thumbs do not cross
    if (Number(from.value) <= Number(to.value)) return;
    if (moved === from) from.value = to.value;
    else to.value = from.value;
  }
  function display() {
    shown.textContent = say(value());
    const place = (input) => (Number(input.value) - first) / (last - first);
    bars.forEach((bar, at) => bar.classList.toggle("out", (at + 0.5) / bars.length < place(from) || (at + 0.5) / bars.length > place(to)));
    for (const input of [from, to]) input.setAttribute("aria-valuetext", measured(column, Number(input.value) * step));
  }
  controls[column] = {
    value,
    set: (text) => {
      const [a, b] = text.split("..");
      from.value = a ? Math.round(a / step) : first;
      to.value = b ? Math.round(b / step) : last;
      display();
    },
    conditions: (name, text) => {
      const [a, b] = text.split("..");
      return [a && `${name} >= ${a}`, b && `${name} <= ${b}`].filter(Boolean);
    },
    text: (name, text) => `${label} ${say(text)}`,
  };
  display();
  return el("div", { class: "field slider", role: "group", "aria-label": `${label} (${t(unit)})` },
    el("div", { class: "slider-head" }, el("span", { class: "label", "aria-hidden": "true" }, label), shown),
    el("div", { class: "track" }, svg("svg", { viewBox: `0 0 ${counts.length * 4 - 1} 24`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...bars), from, to));
}

function nice(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map((by) => by * power).find((one) => one >= step * 0.999);
}

function facet({ column, values, distinct }) {
  const id = `filter-${column}`;
  const label = el("label", { for: id }, readable(column));
  const known = new Set(values.map(({ value }) => value));
  const text = (name, value) => `${readable(name)}: ${name === "speaker" ? shortSpeaker(value) : value}`;
  // A value of the corpus must match exactly; any other text must be contained.
  const asked = (name, value) => [`${name} ${known.has(value) ? "=" : "~"} "${value}"`];
  const few = distinct <= 60;
  const input = few
    ? el("select", { id, onchange: () => changed() }, el("option", { value: "" }, t("Any")),
      ...values.map(({ value, clips }) => el("option", { value }, `${column === "speaker" ? shortSpeaker(value) : value} (${number(clips)})`)))
    : el("input", { id, list: `${id}-values`, placeholder: t("Any"), autocomplete: "off", onchange: () => changed() });
  controls[column] = plain(input, asked, text);
  return el("div", { class: "field" }, label, input,
    few ? null : el("datalist", { id: `${id}-values` }, ...values.map(({ value }) => el("option", { value }))));
}

/** A choice for each attribute of the styles. */
function words() {
  if (!about.style.length) return null;
  return el("details", { class: "more-filters" }, el("summary", {}, t("Words of the style")), el("div", { class: "fields" },
    ...about.style.map(({ attribute, words: some }) => {
      const column = `style.${attribute}`;
      const id = `filter-${column}`;
      const select = el("select", { id, onchange: () => changed() }, el("option", { value: "" }, t("Any")),
        ...some.map(({ word, clips }) => el("option", { value: word }, `${word} (${number(clips)})`)));
      controls[column] = plain(select, (name, value) => [`${name} = "${value}"`], (name, value) => `${readable(name)}: ${value}`);
      return el("div", { class: "field" }, el("label", { for: id }, readable(attribute)), select);
    })));
}

function byField() {
  by = el("select", { id: "by", onchange: () => changed() }, ...about.by.ways.map((name) =>
    el("option", { value: name === about.by.default ? "" : name }, t(WAYS[name]))));
  return el("div", { class: "field" }, el("label", { for: "by" }, t("Rank descriptions by")), by);
}

function conditionField() {
  const input = el("input", {
    id: "where", placeholder: 'text ~ "never"', autocomplete: "off", spellcheck: "false", onchange: () => changed(), "aria-describedby": "where-problem where-hint",
  });
  controls.where = plain(input, (name, value) => parts(value), (name, value) => value);
  return el("div", { class: "field" }, el("label", { for: "where" }, t("Condition")), input,
    el("p", { id: "where-problem", class: "field-problem" }),
    el("p", { id: "where-hint", class: "hint" }, t("Column, operator, value; several with a semicolon. Operators: = != < <= > >= and ~ (contains).")),
    el("details", { class: "columns" }, el("summary", {}, t("Columns")), el("p", {}, about.columns.join(", "))));
}

/** The conditions in a text: a semicolon within quotes separates nothing. */
function parts(text) {
  return (text.match(/(?:"[^"]*"|'[^']*'|[^;])+/g) ?? []).map((part) => part.trim()).filter(Boolean);
}
