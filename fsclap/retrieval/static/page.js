// The three views of the page, one per address. All addresses are relative: a proxy may serve the page anywhere.

import { api, byId, showProblem } from "./dom.js";
import { chooseLanguage, counted, language, setLanguage, t } from "./i18n.js";
import { stop } from "./player.js";
import * as basket from "./basket.js";
import * as judge from "./judge.js";
import * as map from "./map.js";
import * as search from "./search.js";

const TITLES = { search: "Search", map: "Map", judge: "Judge" };
const views = { search, map, judge };
let shown = null;

function show() {
  const last = location.pathname.split("/").pop();
  const name = last in views ? last : "search";
  if (shown !== name) {
    stop();
    views[shown]?.leave?.();
  }
  const changed = shown !== null && shown !== name;
  shown = name;
  for (const view of Object.keys(views)) byId(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const query = new URLSearchParams(location.search).get("query");
  document.title = `${name === "search" && query ? query : t(TITLES[name])} – FS-CLAP`;
  views[name].show(new URLSearchParams(location.search));
  if (changed) byId("main").focus({ preventScroll: true });
}

function go(address, state = null) {
  const to = new URL(address, location.href);
  if (to.href !== location.href || state?.recording !== history.state?.recording) history.pushState(state, "", to);
  show();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-view]");
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  document.querySelector("dialog[open]")?.close();
  go(link.href);
  scrollTo(0, 0);
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // an address with # would be another step back
  byId(event.currentTarget.getAttribute("href").slice(1)).focus();
});
addEventListener("popstate", show);
addEventListener("go", ({ detail }) => go(detail.address, detail.state));

async function start() {
  await chooseLanguage();
  byId("language").value = language;
  byId("language").addEventListener("change", (event) => setLanguage(event.target.value));
  let about;
  try {
    about = await api("api/corpus");
  } catch (error) {
    byId("page-problem").hidden = false;
    showProblem(byId("page-problem"), error, () => location.reload());
    return;
  }
  byId("corpus").textContent = t("{corpus}, version {version}: {clips}", { corpus: about.corpus, version: about.version, clips: counted(about.clips, "{n} clip", "{n} clips") });
  byId("corpus").title = `${about.model}. ${about.status}`.trim();
  search.setUp(about);
  map.setUp();
  judge.setUp(about);
  show();
  await basket.setUp(about, search.query);
}

start();
