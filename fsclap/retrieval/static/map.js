// The map: a canvas of points; a click or the keyboard chooses one and plays its clip.

import { api, byId, clipAddress, el, showProblem, svg } from "./dom.js";
import { counted, number, t } from "./i18n.js";
import { measured, readable } from "./measures.js";
import { row } from "./row.js";
import * as basket from "./basket.js";

// Distinguishable with any kind of colour vision (Okabe and Ito); each colour has a shape as well.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "wedge"];
const NONE = "#8b9199";
const SCALE = ["#00224e", "#2b446e", "#575c6d", "#7d7c78", "#a59c74", "#d2c060", "#fee838"]; // cividis
const LEVELS = 24;
const PADDING = 26;
const STRETCH = 1.6; // limit of one axis against the other; the axes have no meaning
const POLL = 1000; // ms
const MANY = 20_000; // points that are drawn one by one
const CELL = 4; // CSS pixels, of the density of more
const CLOSE = 6; // zoom from which points are drawn one by one anyway
const LISTED = 20; // clips of a chosen area that are shown

const plane = byId("plane");
const context = plane.getContext("2d");
let data = null; // {ids, x, y, columns, of}
let paints = []; // for each point, a position in `looks` and `sprites`
let looks = []; // [colour, shape]
let sprites = [];
let view = { zoom: 1, x: 0, y: 0 };
let chosen = -1;
let shown = false;
let poll = null;
let drawing = false;
let lasso = null; // corners of the area that is being drawn; null: pointers move the map
let inside = []; // points in the chosen area
let wanted = null; // id of the clip that an address names
const pointers = new Map();
let moved = false;

export function setUp() {
  byId("colour").addEventListener("change", colour);
  byId("zoom-in").addEventListener("click", () => zoom(1.5));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  byId("zoom-reset").addEventListener("click", () => {
    view = { zoom: 1, x: 0, y: 0 };
    draw();
  });
  byId("lasso").addEventListener("click", () => switchLasso(byId("lasso").getAttribute("aria-pressed") !== "true"));
  plane.addEventListener("keydown", key);
  plane.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015), place(event));
  }, { passive: false });
  plane.addEventListener("pointerdown", down);
  plane.addEventListener("pointermove", move);
  plane.addEventListener("pointerup", up);
  plane.addEventListener("pointercancel", up);
  new ResizeObserver(() => data && draw()).observe(plane);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data && (makeSprites(), draw()));
}

/** @param parameters of the address: `clip` names the one to show */
export function show(parameters) {
  shown = true;
  wanted = parameters.get("clip");
  if (data) ready();
  else load();
}

export function leave() {
  shown = false;
  clearTimeout(poll);
}

async function load() {
  byId("map-problem").replaceChildren();
  if (!byId("map-status").textContent) say(t("Loading the map …"));
  try {
    const answer = await api("api/map");
    if (answer.status === 202) {
      say(t("Making the map. This takes up to a minute, longer for many clips, and happens only once."));
      byId("map").setAttribute("aria-busy", "true");
      if (shown) poll = setTimeout(load, POLL);
      return;
    }
    data = answer;
    byId("colour").replaceChildren(...data.columns.map((name) => el("option", { value: name }, readable(name))));
    ready();
    await colour();
  } catch (error) {
    say("");
    showProblem(byId("map-problem"), error, load);
  }
  byId("map").removeAttribute("aria-busy");
}

function ready() {
  const shownClips = counted(data.ids.length, "{n} clip", "{n} clips");
  const near = t("Clips that sound alike to the model are close together.");
  byId("map-note").textContent = data.ids.length < data.of
    ? `${t("A random sample of {clips} from {of}.", { clips: shownClips, of: number(data.of) })} ${near}` : `${shownClips}. ${near}`;
  plane.setAttribute("aria-label", t("Map of {clips}", { clips: shownClips }));
  say("");
  byId("map-body").hidden = false;
  const at = wanted ? data.ids.indexOf(wanted) : -1;
  if (wanted && at < 0) say(t("That clip is not on the map, which shows a sample."));
  if (at >= 0) choose(at, false);
  else if (chosen >= 0) choose(chosen, false); // its player was stopped
  else byId("chosen").replaceChildren(el("p", { class: "hint empty" }, t("Choose a point to see its clip here.")));
  draw();
}

async function colour() {
  const column = byId("colour").value;
  if (!column) {
    paints = data.ids.map(() => 0);
    looks = [[NONE, "circle"]];
  } else {
    try {
      const values = await api(`api/map/values?column=${encodeURIComponent(column)}`);
      if (byId("colour").value !== column) return;
      if (values.names) byName(values);
      else byNumber(values, column);
    } catch (error) {
      showProblem(byId("map-problem"), error, colour);
      return;
    }
  }
  makeSprites();
  draw();
}

function byName({ names, codes, others }) {
  looks = names.map((_, at) => (others && at === names.length - 1 ? [NONE, "circle"] : [COLOURS[at], SHAPES[at]]));
  looks.push([NONE, "ring"]);
  paints = codes.map((code) => (code < 0 ? looks.length - 1 : code));
  const named = others ? [...names.slice(0, -1), counted(others, "{n} other", "{n} others")] : names;
  const labels = codes.includes(-1) ? [...named, t("unknown")] : named;
  const keys = codes.includes(-1) ? looks : looks.slice(0, -1);
  byId("legend").replaceChildren(el("ul", { "aria-label": t("Colours") }, ...labels.map((label, at) => el("li", {}, symbol(keys[at]), label))));
}

function byNumber({ values, low, high }, column) {
  looks = Array.from({ length: LEVELS }, (_, at) => [mixed(at / (LEVELS - 1)), "circle"]);
  looks.push([NONE, "ring"]);
  const level = (value) => Math.round(Math.min(Math.max((value - low) / (high - low || 1), 0), 1) * (LEVELS - 1));
  paints = values.map((value) => (value === null ? LEVELS : level(value)));
  byId("legend").replaceChildren(el("p", { class: "scale" }, el("span", { class: "visually-hidden" }, t("{name} from ", { name: readable(column) })),
    measured(column, low), el("span", { class: "cividis", "aria-hidden": "true" }), el("span", { class: "visually-hidden" }, t(" to ")), measured(column, high)));
}

function mixed(share) {
  const at = share * (SCALE.length - 1);
  const first = Math.min(Math.floor(at), SCALE.length - 2);
  const part = (colour, from) => parseInt(colour.slice(from, from + 2), 16);
  const mix = [1, 3, 5].map((from) => Math.round(part(SCALE[first], from) * (first + 1 - at) + part(SCALE[first + 1], from) * (at - first)));
  return `rgb(${mix.join(",")})`;
}

// Drawing. Each look is drawn once and copied for every point: 20,000 points take a few milliseconds.

const radius = () => (data.ids.length > 5000 ? 2.5 : data.ids.length > 800 ? 4 : 6.5);
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function makeSprites() {
  const ratio = devicePixelRatio || 1;
  sprites = looks.map(([colour, shape]) => {
    const size = 2 * radius() + 4;
    const sprite = Object.assign(document.createElement("canvas"), { width: size * ratio, height: size * ratio });
    const pen = sprite.getContext("2d");
    pen.scale(ratio, ratio);
    pen.translate(size / 2, size / 2);
    outline(pen, shape, radius());
    pen.lineWidth = 1;
    if (shape === "ring") {
      pen.strokeStyle = colour;
    } else {
      pen.fillStyle = colour;
      pen.fill();
      pen.strokeStyle = ink("--rim");
    }
    pen.stroke();
    return sprite;
  });
}

const CORNERS = {
  square: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
  triangle: [[0, -1.1], [1, 0.75], [-1, 0.75]],
  wedge: [[0, 1.1], [1, -0.75], [-1, -0.75]],
  diamond: [[0, -1.15], [1, 0], [0, 1.15], [-1, 0]],
  cross: [[-0.35, -1], [0.35, -1], [0.35, -0.35], [1, -0.35], [1, 0.35], [0.35, 0.35], [0.35, 1], [-0.35, 1], [-0.35, 0.35], [-1, 0.35], [-1, -0.35], [-0.35, -0.35]],
};

function outline(pen, shape, r) {
  pen.beginPath();
  if (CORNERS[shape]) for (const [x, y] of CORNERS[shape]) pen.lineTo(x * r, y * r);
  else pen.arc(0, 0, r * 0.92, 0, 2 * Math.PI);
  pen.closePath();
}

function symbol([colour, shape]) {
  const round = shape === "ring" ? { fill: "none", stroke: colour } : { fill: colour };
  const mark = CORNERS[shape]
    ? svg("polygon", { points: CORNERS[shape].map(([x, y]) => `${5 * x},${5 * y}`).join(" "), fill: colour })
    : svg("circle", { r: 4.6, ...round });
  return svg("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, mark);
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawNow();
  });
}

function drawNow() {
  if (!sprites.length || !plane.clientWidth) return;
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = plane;
  if (plane.width !== Math.round(width * ratio) || plane.height !== Math.round(height * ratio)) {
    plane.width = Math.round(width * ratio);
    plane.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const project = projection();
  if (data.ids.length > MANY && view.zoom < CLOSE) drawDensity(project, width, height);
  else drawPoints(project, width, height);
  if (lasso?.length) {
    context.beginPath();
    for (const [x, y] of lasso) context.lineTo(x, y);
    context.closePath();
    context.setLineDash([5, 4]);
    context.lineWidth = 2;
    context.strokeStyle = ink("--ink");
    context.stroke();
    context.setLineDash([]);
  }
  if (chosen >= 0) {
    const [x, y] = project(chosen);
    context.beginPath();
    context.arc(x, y, radius() + 5, 0, 2 * Math.PI);
    context.lineWidth = 2.5;
    context.strokeStyle = ink("--ink");
    context.stroke();
  }
}

function drawPoints(project, width, height) {
  const size = 2 * radius() + 4;
  const marked = new Set(inside);
  for (let at = 0; at < data.ids.length; at += 1) {
    const [x, y] = project(at);
    if (x > -size && y > -size && x < width + size && y < height + size) {
      context.globalAlpha = inside.length && !marked.has(at) ? 0.25 : 1;
      context.drawImage(sprites[paints[at]], x - size / 2, y - size / 2, size, size);
    }
  }
  context.globalAlpha = 1;
}

/** Cells, the darker the more points they have, in the colour of most of them. */
function drawDensity(project, width, height) {
  const cells = new Map();
  let most = 1;
  for (let at = 0; at < data.ids.length; at += 1) {
    const [x, y] = project(at);
    if (x < 0 || y < 0 || x >= width || y >= height) continue;
    const key = Math.floor(y / CELL) * 10_000 + Math.floor(x / CELL);
    const cell = cells.get(key) ?? [0, new Uint16Array(looks.length)];
    cells.set(key, cell);
    cell[0] += 1;
    cell[1][paints[at]] += 1;
    most = Math.max(most, cell[0]);
  }
  for (const [key, [count, by]] of cells) {
    context.globalAlpha = 0.25 + (0.75 * Math.log1p(count)) / Math.log1p(most);
    context.fillStyle = looks[by.indexOf(Math.max(...by))][0];
    context.fillRect((key % 10_000) * CELL, Math.floor(key / 10_000) * CELL, CELL, CELL);
  }
  context.globalAlpha = 1;
}

/** Return point => [x, y] in CSS pixels. At zoom 1 the map fits; one axis may be stretched to fill the canvas. */
function projection() {
  const { clientWidth: width, clientHeight: height } = plane;
  data.spanX ??= Math.max(...chunked(data.x, Math.max)) || 1;
  data.spanY ??= Math.max(...chunked(data.y, Math.max)) || 1;
  const [wide, high] = [(width - 2 * PADDING) / data.spanX, (height - 2 * PADDING) / data.spanY];
  const [unitX, unitY] = [Math.min(wide, STRETCH * high), Math.min(high, STRETCH * wide)];
  const left = (width - unitX * data.spanX) / 2;
  const top = (height - unitY * data.spanY) / 2;
  return (at) => [(left + unitX * data.x[at]) * view.zoom + view.x, (top + unitY * data.y[at]) * view.zoom + view.y];
}

function chunked(numbers, reduce) {
  const found = [];
  for (let at = 0; at < numbers.length; at += 1000) found.push(reduce(...numbers.slice(at, at + 1000)));
  return found;
}

function zoom(factor, centre = [plane.clientWidth / 2, plane.clientHeight / 2]) {
  const by = Math.min(Math.max(view.zoom * factor, 1), 60) / view.zoom;
  view = { zoom: view.zoom * by, x: centre[0] - (centre[0] - view.x) * by, y: centre[1] - (centre[1] - view.y) * by };
  if (view.zoom === 1) view = { zoom: 1, x: 0, y: 0 };
  draw();
}

function pan(x, y) {
  view.x += x;
  view.y += y;
  draw();
}

// Pointers: one drags, two pinch, one that does not move chooses.

const place = (event) => {
  const box = plane.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

function down(event) {
  plane.setPointerCapture(event.pointerId);
  if (!pointers.size) moved = false;
  pointers.set(event.pointerId, place(event));
}

function move(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = place(event);
  if (lasso && pointers.size === 1) {
    lasso.push(now);
    draw();
    return;
  }
  const far = Math.hypot(now[0] - before[0], now[1] - before[1]);
  if (pointers.size === 1) {
    if (!moved && far < 5) return;
    pan(now[0] - before[0], now[1] - before[1]);
  } else {
    const [fixed] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const spread = (at) => Math.hypot(at[0] - fixed[0], at[1] - fixed[1]) || 1;
    zoom(spread(now) / spread(before), [(now[0] + fixed[0]) / 2, (now[1] + fixed[1]) / 2]);
  }
  moved = true;
  pointers.set(event.pointerId, now);
}

function up(event) {
  if (lasso?.length > 2) {
    pointers.delete(event.pointerId);
    chooseArea();
    return;
  }
  if (!pointers.delete(event.pointerId) || moved || event.type === "pointercancel") return;
  const [x, y] = place(event);
  const project = projection();
  const [nearest, distance] = closest((at) => {
    const [px, py] = project(at);
    return Math.hypot(px - x, py - y);
  });
  if (distance < (event.pointerType === "touch" ? 40 : 24)) choose(nearest, true);
}

function switchLasso(on) {
  byId("lasso").setAttribute("aria-pressed", String(on));
  plane.classList.toggle("lasso", on);
  lasso = on ? [] : null;
  inside = [];
  draw();
}

/** Choose the points within the line that was drawn. */
function chooseArea() {
  const project = projection();
  const corners = lasso;
  lasso = [];
  inside = data.ids.map((_, at) => at).filter((at) => within(project(at), corners));
  chosen = -1;
  draw();
  listArea();
}

/** Whether a line from a point to the right crosses the corners' outline an odd number of times. */
function within([x, y], corners) {
  let odd = false;
  corners.forEach(([ax, ay], at) => {
    const [bx, by] = corners[(at + 1) % corners.length];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  });
  return odd;
}

async function listArea() {
  const ids = inside.slice(0, LISTED).map((at) => data.ids[at]);
  const heading = el("h2", {}, counted(inside.length, "{n} clip in the area", "{n} clips in the area"));
  byId("map-said").textContent = heading.textContent;
  if (!ids.length) {
    byId("chosen").replaceChildren(heading);
    return;
  }
  try {
    const { clips } = await api(`api/clips?${new URLSearchParams(ids.map((id) => ["id", id]))}`);
    byId("chosen").replaceChildren(heading,
      inside.length > LISTED ? el("p", { class: "hint" }, t("The first {n} are listed.", { n: LISTED })) : "",
      el("button", { type: "button", class: "button small", onclick: () => basket.addAll(clips) }, t("Keep all that are listed")),
      el("ol", { class: "results" }, ...clips.map((clip) => el("li", {}, row(clip, { level: 3 })))));
    bringIntoView();
  } catch (error) {
    showProblem(byId("chosen"), error, listArea);
  }
}

const narrow = matchMedia("(max-width: 899px)");

/** On a phone the map fills the screen, and what was chosen lies below it. */
function bringIntoView() {
  if (narrow.matches) byId("chosen").firstElementChild.scrollIntoView({ block: "nearest" });
}

/** Return the point with the least `distance`, and that distance. */
function closest(distance) {
  let best = -1;
  let least = Infinity;
  for (let at = 0; at < data.ids.length; at += 1) {
    const far = distance(at);
    if (far < least) [best, least] = [at, far];
  }
  return [best, least];
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (WAYS[event.key]) walk(WAYS[event.key]);
  else if (event.key === "Enter" || event.key === " ") byId("chosen").querySelector("article")?.deck.toggle();
  else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") byId("zoom-reset").click();
  else return;
  event.preventDefault();
}

/** Go to the nearest point in a direction; the first time, to the one nearest to the middle. */
function walk([dx, dy]) {
  const project = projection();
  const middle = [plane.clientWidth / 2, plane.clientHeight / 2];
  const [x, y] = chosen < 0 ? middle : project(chosen);
  const [next] = closest((at) => {
    if (at === chosen) return Infinity;
    const [px, py] = project(at);
    if (chosen < 0) return Math.hypot(px - x, py - y);
    const along = (px - x) * dx + (py - y) * dy;
    const aside = Math.abs((px - x) * dy - (py - y) * dx);
    return along > 0 && aside <= 1.5 * along ? along + 2 * aside : Infinity;
  });
  if (next >= 0) choose(next, false);
}

async function choose(at, play) {
  chosen = at;
  inside = [];
  keepInside(at);
  draw();
  let clip;
  try {
    clip = await api(clipAddress(data.ids[at]));
  } catch (error) {
    showProblem(byId("chosen"), error, () => choose(at, play));
    return;
  }
  if (chosen !== at) return; // another point was chosen meanwhile
  const element = row(clip);
  if (!narrow.matches) element.open();
  byId("chosen").replaceChildren(element);
  byId("map-said").textContent = clip.caption;
  if (play) {
    element.deck.play();
    bringIntoView();
  }
}

function keepInside(at) {
  const [x, y] = projection()(at);
  const { clientWidth: width, clientHeight: height } = plane;
  const inside = (value, size) => Math.min(Math.max(value, PADDING), size - PADDING) - value;
  view.x += inside(x, width);
  view.y += inside(y, height);
}

function say(text) {
  byId("map-status").textContent = text;
}
