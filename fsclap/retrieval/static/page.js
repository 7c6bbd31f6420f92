// The three views of the page, one per address.

import { api, byId, counted, showProblem } from "./dom.js";
import { stop } from "./player.js";
import * as judge from "./judge.js";
import * as map from "./map.js";
import * as search from "./search.js";

const VIEWS = { "/": "search", "/map": "map", "/judge": "judge" };
const TITLES = { search: "Search", map: "Map", judge: "Judge" };
const views = { search, map, judge };
let shown = null;

function show() {
  const name = VIEWS[location.pathname] ?? "search";
  if (shown !== name) {
    stop();
    views[shown]?.leave?.();
  }
  const changed = shown !== null && shown !== name;
  shown = name;
  for (const view of Object.values(VIEWS)) byId(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const query = new URLSearchParams(location.search).get("query");
  document.title = `${name === "search" && query ? query : TITLES[name]} – FS-CLAP`;
  views[name].show(new URLSearchParams(location.search));
  if (changed) byId("main").focus({ preventScroll: true });
}

function go(address) {
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
  show();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-view]");
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
  scrollTo(0, 0);
});
addEventListener("popstate", show);

async function start() {
  try {
    const about = await api("/api/corpus");
    byId("corpus").textContent = `${about.corpus}, version ${about.version}: ${counted(about.clips, "clip", "clips")}`;
    byId("corpus").title = `Model ${about.model}. ${about.status}`.trim();
    search.setUp(about, go);
    map.setUp();
    judge.setUp(about);
    show();
  } catch (error) {
    byId("search").hidden = false;
    showProblem(byId("search-problem"), error, () => location.reload());
  }
}

start();
