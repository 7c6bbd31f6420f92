// Judging: one description, one clip at a time, and no hint of what the model or the corpus says about it.

import { api, byId, showProblem } from "./dom.js";
import { clipDeck, stop } from "./player.js";

const KEYS = { 1: "fits", 2: "partly", 3: "no" };
const buttons = [...document.querySelectorAll("[data-verdict]")];
let allowed = false;
let judge = "";
let round = null; // the server's answer: query, clips, ...
let customQuery = null; // the query that the judge entered
let at = 0; // position in round.clips
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
    localStorage.setItem("judge", judge);
    next(0);
  });
  byId("judge-change").addEventListener("click", () => begin());
  byId("judge-skip").addEventListener("click", () => step(1));
  byId("judge-back").addEventListener("click", () => step(-1));
  for (const button of buttons) button.addEventListener("click", () => decide(button.dataset.verdict));
  document.addEventListener("keydown", key);
}

export function show() {
  shown = true;
  if (!allowed) {
    byId("judge-start").hidden = true;
    say("Judging is switched off: this page has nowhere to store judgements.");
  } else if (round?.clips.length) pair();
  else begin();
}

export function leave() {
  shown = false;
}

function begin(message = "") {
  stop();
  round = null;
  byId("judge-name").value = localStorage.getItem("judge") ?? "";
  byId("judge-about").textContent = "You hear one clip at a time and say how well it fits a description. The clips are in random order, and some were chosen at random.";
  byId("judge-start").hidden = false;
  byId("judge-pair").hidden = true;
  byId("judge-problem").replaceChildren();
  say(message);
  byId(byId("judge-name").value ? "judge-query" : "judge-name").focus();
}

async function next(start) {
  say("Choosing clips …");
  byId("judge-problem").replaceChildren();
  const parameters = new URLSearchParams({ judge, start });
  if (customQuery) parameters.set("query", customQuery);
  try {
    round = await api(`/api/judging?${parameters}`);
  } catch (error) {
    say("");
    showProblem(byId("judge-problem"), error, () => next(start));
    return;
  }
  if (!round.clips.length) {
    begin(customQuery ? "You have judged all clips for this description. Enter another one." : "There is nothing left to judge. Thank you.");
    return;
  }
  at = 0;
  say(round.part === "all" ? "The model has no test split (split.json), so the clips are from the whole corpus." : "");
  byId("judge-start").hidden = true;
  byId("judge-pair").hidden = false;
  pair();
}

function pair() {
  audible = false;
  const clip = round.clips[at];
  deck = clipDeck(clip, "the clip", null, () => {
    audible = true;
    ready();
  });
  byId("judge-deck").replaceChildren(deck.element);
  byId("judge-description").textContent = round.query;
  const done = round.pool - round.clips.length + at;
  const which = round.number === null ? "your description" : `description ${round.number + 1} of ${round.queries}`;
  byId("judge-progress").textContent = `Clip ${done + 1} of ${round.pool}, ${which}`;
  byId("judge-back").disabled = at === 0;
  ready();
  deck.button.focus(); // so that Space plays, instead of pressing the last button for the next clip
  deck.play();
}

function ready() {
  for (const button of buttons) button.disabled = !audible || sending;
}

function step(by) {
  byId("judge-problem").replaceChildren();
  at += by;
  if (at < round.clips.length) pair();
  else if (customQuery) begin("That was the last clip for this description. Enter another one, or start again to judge the clips you skipped.");
  else next(round.number + 1);
}

async function decide(verdict) {
  if (!audible || sending) return;
  sending = true;
  ready();
  const judgement = { query: round.query, utterance_id: round.clips[at], verdict, judge };
  const headers = { "Content-Type": "application/json" };
  try {
    await api("/api/judgements", { method: "POST", headers, body: JSON.stringify(judgement) });
    sending = false;
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
    else say("Listen to the clip first.");
  } else if (event.key === " " && !event.target.closest("button, a, summary")) {
    event.preventDefault();
    deck.toggle();
  }
}

function say(text) {
  byId("judge-status").textContent = text;
}
