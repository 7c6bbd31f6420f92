// What the browser keeps for this page. A browser may refuse to: then it is kept until the page is closed.

const memory = new Map();
export let refused = false;

export function read(name) {
  try {
    return localStorage.getItem(`fsclap-${name}`);
  } catch {
    refused = true;
    return memory.get(name) ?? null;
  }
}

export function write(name, value) {
  memory.set(name, value);
  try {
    localStorage.setItem(`fsclap-${name}`, value);
  } catch {
    refused = true;
  }
}
