// Elements, requests and number formats. Content of the corpus becomes text, never markup.

import { t } from "./i18n.js";

export const byId = (id) => document.getElementById(id);

/** An element: el("a", {href: "/", class: "brand", onclick: f}, "text", child). Null children are left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An icon of 20 x 20, drawn with strokes. */
export const icon = (path) => svg("svg", { viewBox: "0 0 20 20", class: "icon", "aria-hidden": "true" }, svg("path", { d: path }));

export class ApiError extends Error {
  constructor(message, field = null) {
    super(message);
    this.field = field; // the field of the page that has to be mended
  }
}

/** Fetch JSON from the server; an ApiError has a message for the user. Paths are relative to the page. */
export async function api(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(t("The server does not answer. Check that fsclap app is still running, then try again."));
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) {
    throw new ApiError(body?.error ?? t("The server answered {status}.", { status: `${response.status} ${response.statusText}` }), body?.field);
  }
  return Object.assign(body, { status: response.status });
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Show an error in an element with role="alert", with a button that may help. */
export function showProblem(place, error, again = null, label = t("Try again")) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) console.error(error);
  place.replaceChildren(
    el("div", { class: "notice problem" }, el("p", {}, sentence(error.message)),
      again && el("button", { type: "button", class: "button", onclick: again }, label)),
  );
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest.replace(/^0/, "");
}

/** Ask the view to go to an address: page.js listens. */
export const go = (address) => dispatchEvent(new CustomEvent("go", { detail: address }));

export const clipAddress = (id, part = "") => `api/clips/${encodeURIComponent(id)}${part}`;
