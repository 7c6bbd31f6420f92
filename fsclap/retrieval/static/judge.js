// Judging: one description, one clip at a time, and nothing that says what the model or the corpus thinks of it.

import { api, byId, showProblem } from "./dom.js";
import { clipDeck, stop } from "./player.js";

const KEYS = { 1: "fits", 2: "partly", 3: "no" };
const buttons = [...document.querySelectorAll("[data-verdict]")];
let allowed = false;
let judge = "";
let round = null; // what the server gave: query, clips, ...
let own = null; // the judge's own query
let at = 0; // in round.clips
let deck = null;
let heard = false;
let sending = false;
let shown = false;

export function setUp(about) {
  allowed = about.judging;
  byId("judge-start").addEventListener("submit", (event) => {
    event.preventDefault();
    judge = byId("judge-name").value.trim();
    own = byId("judge-query").value.trim() || null;
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
    say("Judging is switched off: this page was started without a place to keep judgements.");
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
  byId("judge-about").textContent = "You hear clips one at a time and say how well each fits a description. Clips are in no order, and some are there by chance.";
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
  if (own) parameters.set("query", own);
  try {
    round = await api(`/api/judging?${parameters}`);
  } catch (error) {
    say("");
    showProblem(byId("judge-problem"), error, () => next(start));
    return;
  }
  if (!round.clips.length) {
    begin(own ? "You have judged all clips of this description. Give another one." : "Nothing is left to judge. Thank you.");
    return;
  }
  at = 0;
  say(round.part === "all" ? "The model has no test part (split.json), so clips of the whole corpus are judged." : "");
  byId("judge-start").hidden = true;
  byId("judge-pair").hidden = false;
  pair();
}

function pair() {
  heard = false;
  const clip = round.clips[at];
  deck = clipDeck(clip, "the clip", null, () => {
    heard = true;
    ready();
  });
  byId("judge-deck").replaceChildren(deck.element);
  byId("judge-asked").textContent = round.query;
  const done = round.pool - round.clips.length + at;
  const which = round.number === null ? "your description" : `description ${round.number + 1} of ${round.queries}`;
  byId("judge-progress").textContent = `Clip ${done + 1} of ${round.pool}, ${which}`;
  byId("judge-back").disabled = at === 0;
  ready();
  deck.button.focus(); // so that Space plays, and does not judge the next clip with the last button
  deck.play();
}

function ready() {
  for (const button of buttons) button.disabled = !heard || sending;
}

function step(by) {
  byId("judge-problem").replaceChildren();
  at += by;
  if (at < round.clips.length) pair();
  else if (own) begin("You have been through the clips of this description. Give another one, or start again for what you skipped.");
  else next(round.number + 1);
}

async function decide(verdict) {
  if (!heard || sending) return;
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
    if (heard) decide(KEYS[event.key]);
    else say("Listen to the clip first.");
  } else if (event.key === " " && !event.target.closest("button, a, summary")) {
    event.preventDefault();
    deck.toggle();
  }
}

function say(text) {
  byId("judge-status").textContent = text;
}
