// The language of the page. English is in the code; another language is a JSON file, English text -> its text.

import { read, write } from "./storage.js";

const LANGUAGES = ["en", "zh"];
const ATTRIBUTES = ["aria-label", "placeholder", "title"];
let texts = {};
export let language = "en";

/** Load the language that the reader chose, or the browser asks for. */
export async function chooseLanguage() {
  const wanted = [read("language"), ...navigator.languages].map((name) => name?.slice(0, 2));
  language = wanted.find((name) => LANGUAGES.includes(name)) ?? "en";
  if (language === "en") return;
  const response = await fetch(`static/${language}.json`);
  if (!response.ok) {
    language = "en";
    return;
  }
  texts = await response.json();
  document.documentElement.lang = language;
  translate(document.body);
}

export function setLanguage(name) {
  write("language", name);
  location.reload();
}

/** The text in the page's language, with {name} replaced by values.name. */
export function t(text, values = {}) {
  return (texts[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export const number = (value) => value.toLocaleString(language);

/** "1 clip", "2,758 clips": the two texts have {n} in the place of the number. */
export const counted = (count, one, many) => t(count === 1 ? one : many, { n: number(count) });

function translate(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.data.trim().replace(/\s+/g, " ");
    if (texts[text]) node.data = node.data.replace(node.data.trim(), texts[text]);
  }
  for (const name of ATTRIBUTES) {
    for (const element of root.querySelectorAll(`[${name}]`)) element.setAttribute(name, t(element.getAttribute(name)));
  }
}
