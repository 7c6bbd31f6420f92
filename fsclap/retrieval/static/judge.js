// Judging: one description, one clip at a time, and no hint of what the model or the corpus says about it.

import { api, byId, clipAddress, showProblem } from "./dom.js";
import { counted, number, t } from "./i18n.js";
import { Deck, stop } from "./player.js";
import { read, refused, write } from "./storage.js";

const KEYS = { 1: "fits", 2: "partly", 3: "no" };
const buttons = [...document.querySelectorAll("[data-verdict]")];
let allowed = false;
let judge = "";
let round = null; // the server's answer: query, all, verdicts, ...
let customQuery = null; // the query that the judge entered
let at = 0; // position in round.all
let deck = null;
let audible = false; // the current clip has begun to sound
let sending = false;
let shown = false;

export function setUp(about) {
  allowed = about.judging;
  byId("judge-start").addEventListener("submit", (event) => {
    event.preventDefault();
    judge = byId("judge-name").value.trim();
    customQuery = byId("judge-query").value.trim() || null;
    write("judge", judge);
    next(0);
  });
  byId("judge-link").addEventListener("click", copyLink);
  byId("judge-change").addEventListener("click", () => begin());
  byId("judge-skip").addEventListener("click", () => step(1));
  byId("judge-back").addEventListener("click", () => step(-1));
  for (const button of buttons) button.addEventListener("click", () => decide(button.dataset.verdict));
  document.addEventListener("keydown", key);
}

/** @param parameters of the address: a link to a judge has `judge` and `query` */
export function show(parameters) {
  shown = true;
  if (!allowed) {
    byId("judge-start").hidden = true;
    say(t("Judging is switched off: this page has nowhere to store judgements."));
  } else if (round?.all.length) pair();
  else {
    begin();
    if (parameters.get("judge")) byId("judge-name").value = parameters.get("judge");
    byId("judge-query").value = parameters.get("query") ?? "";
  }
}

export function leave() {
  shown = false;
}

function begin(message = "") {
  stop();
  round = null;
  byId("judge-name").value = judge || (read("judge") ?? "");
  byId("judge-start").hidden = false;
  byId("judge-pair").hidden = true;
  byId("judge-problem").replaceChildren();
  say(message || (refused ? t("This browser keeps no data of the page: you have to enter your name each time. Judging works.") : ""));
  byId(byId("judge-name").value ? "judge-query" : "judge-name").focus();
}

/** A link to this view with a name and a description, to hand to a judge. */
async function copyLink() {
  const parameters = new URLSearchParams();
  for (const name of ["judge", "query"]) {
    const value = byId(`judge-${name === "judge" ? "name" : name}`).value.trim();
    if (value) parameters.set(name, value);
  }
  const link = new URL(`judge?${parameters}`, location.href).href;
  byId("judge-link-text").value = link;
  byId("judge-link-text").hidden = false;
  byId("judge-link-text").select();
  try {
    await navigator.clipboard.writeText(link);
    say(t("The link was copied."));
  } catch {
    say(t("Copy the link below."));
  }
}

async function next(start) {
  say(t("Choosing clips …"));
  byId("judge-problem").replaceChildren();
  const parameters = new URLSearchParams({ judge, start });
  if (customQuery) parameters.set("query", customQuery);
  try {
    round = await api(`api/judging?${parameters}`);
  } catch (error) {
    say("");
    showProblem(byId("judge-problem"), error, () => next(start));
    return;
  }
  if (!round.clips.length) {
    const { left } = round;
    if (customQuery) begin(t("You have judged all clips for this description. Enter another one."));
    else if (left && start > 0) begin(counted(left, "You skipped {n} clip. Start again to judge it.", "You skipped {n} clips. Start again to judge them."));
    else begin(t("There is nothing left to judge. Thank you."));
    return;
  }
  at = round.all.indexOf(round.clips[0]);
  say(round.part === "all" ? t("The model has no test split (split.json), so the clips are from the whole corpus.") : "");
  byId("judge-start").hidden = true;
  byId("judge-pair").hidden = false;
  pair();
}

function pair() {
  audible = false;
  const clip = round.all[at];
  const audio = { audio: clipAddress(clip, "/audio"), peaks: clipAddress(clip, "/peaks") };
  deck = new Deck(t("the clip"), audio, null, () => {
    audible = true;
    ready();
  });
  byId("judge-deck").replaceChildren(deck.element);
  byId("judge-description").textContent = round.query;
  const values = { n: at + 1, all: round.all.length, which: (round.number ?? 0) + 1, queries: number(round.queries) };
  byId("judge-progress").textContent = round.number === null ? t("Clip {n} of {all}, your description", values)
    : t("Clip {n} of {all}, description {which} of {queries}", values);
  progress();
  byId("judge-back").disabled = at === 0;
  ready();
  deck.button.focus(); // so that Space plays, instead of pressing the last button for the next clip
  deck.play();
}

function progress() {
  const done = round.all.filter((id) => round.verdicts[id]).length;
  const whole = round.number === null ? { done, all: round.all.length } : { done: round.total - round.left, all: round.total };
  byId("judge-bar").max = whole.all;
  byId("judge-bar").value = whole.done;
  byId("judge-done").textContent = t("{done} of {all} judged", { done: number(whole.done), all: number(whole.all) });
}

function ready() {
  const given = round?.verdicts[round.all[at]];
  for (const button of buttons) {
    button.disabled = !audible || sending;
    button.setAttribute("aria-pressed", String(button.dataset.verdict === given));
  }
}

function step(by) {
  byId("judge-problem").replaceChildren();
  say("");
  at += by;
  if (at < round.all.length) pair();
  else if (customQuery) finish();
  else next(round.number + 1);
}

function finish() {
  const skipped = round.all.filter((id) => !round.verdicts[id]).length;
  begin(skipped ? counted(skipped, "That was the last clip for this description; you skipped {n}. Start again to judge it.",
    "That was the last clip for this description; you skipped {n}. Start again to judge them.")
    : t("You have judged all clips for this description. Enter another one."));
}

async function decide(verdict) {
  if (!audible || sending) return;
  sending = true;
  ready();
  const clip = round.all[at];
  const judgement = { query: round.query, utterance_id: clip, verdict, judge };
  const headers = { "Content-Type": "application/json" };
  try {
    await api("api/judgements", { method: "POST", headers, body: JSON.stringify(judgement) });
    sending = false;
    if (!round.verdicts[clip]) round.left -= 1;
    round.verdicts[clip] = verdict;
    step(1);
  } catch (error) {
    sending = false;
    ready();
    showProblem(byId("judge-problem"), error);
  }
}

function key(event) {
  if (!shown || byId("judge-pair").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  if (event.key in KEYS) {
    event.preventDefault();
    if (audible) decide(KEYS[event.key]);
    else say(t("Listen to the clip first."));
  } else if (event.key === " " && !event.target.closest("button, a, summary")) {
    event.preventDefault();
    deck.toggle();
  }
}

function say(text) {
  byId("judge-status").textContent = text;
}
