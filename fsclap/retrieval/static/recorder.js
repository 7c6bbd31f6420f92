// Recording from the microphone, to search with.

import { byId } from "./dom.js";
import { t } from "./i18n.js";

const LONGEST = 60; // seconds: the server takes no more
let recorder = null;
let count = 0;

/**
 * @param done (File) => void
 * @param failed (message) => void
 */
export function setUp(done, failed) {
  const button = byId("record");
  // Browsers lend the microphone only to pages of this machine or behind TLS.
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
    button.hidden = true;
    return;
  }
  button.addEventListener("click", () => (recorder ? recorder.stop() : start(done, failed)));
}

async function start(done, failed) {
  const button = byId("record");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  } catch (error) {
    failed(error.name === "NotAllowedError" ? t("The browser did not allow the microphone. Allow it for this page, or search with a file.")
      : t("No microphone was found. Connect one, or search with a file."));
    return;
  }
  const parts = [];
  const begun = Date.now();
  recorder = new MediaRecorder(stream);
  const timer = setInterval(() => {
    const seconds = Math.floor((Date.now() - begun) / 1000);
    byId("record-text").textContent = t("Stop ({n} s)", { n: seconds });
    if (seconds >= LONGEST - 1) recorder?.stop();
  }, 250);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    clearInterval(timer);
    for (const track of stream.getTracks()) track.stop();
    const type = recorder.mimeType.split(";")[0];
    recorder = null;
    label(false);
    count += 1;
    done(new File(parts, `${t("Recording")} ${count}.${type.split("/")[1] || "webm"}`, { type }));
  });
  recorder.start();
  label(true);
  button.focus();
}

function label(recording) {
  byId("record").setAttribute("aria-pressed", String(recording));
  byId("record-text").textContent = recording ? t("Stop ({n} s)", { n: 0 }) : t("Record");
}
