// Elements, requests and number formats. Content of the corpus becomes text, never markup.

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
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export class ApiError extends Error {}

/** Fetch JSON from the server; an ApiError has a message for the user. */
export async function api(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Check that fsclap app is still running, then try again.");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(body?.error ?? `The server answered ${response.status} ${response.statusText}.`);
  return Object.assign(body, { status: response.status });
}

/** Show an error in an element with role="alert", with a button to try again. */
export function showProblem(place, error, again = null) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) console.error(error);
  const text = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  place.replaceChildren(
    el("div", { class: "notice problem" }, el("p", {}, text),
      again && el("button", { type: "button", class: "button", onclick: again }, "Try again")),
  );
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return hours ? `${hours}:${rest}` : rest.replace(/^0/, "");
}

export const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
