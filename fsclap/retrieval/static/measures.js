// What was measured of a clip: names, units, formats.

import { t } from "./i18n.js";

const percent = (value) => `${Math.round(100 * value)} %`;
const MEASURES = {
  pitch_hz: ["Pitch", (v) => `${v.toFixed(0)} Hz`],
  pitch_range_st: ["Pitch range", (v) => `${v.toFixed(1)} ${t("semitones")}`],
  pitch_slope_st: ["Pitch slope", (v) => `${v > 0 ? "+" : ""}${v.toFixed(1)} ${t("semitones/s")}`],
  speaking_rate: ["Pace", (v) => `${v.toFixed(1)} ${t("syllables/s")}`],
  pause_ratio: ["Pauses", percent],
  energy_db: ["Level", (v) => `${v.toFixed(0)} dB`],
  energy_range_db: ["Level range", (v) => `${v.toFixed(0)} dB`],
  voiced_ratio: ["Voiced", percent],
  spectral_tilt_db: ["Spectral tilt", (v) => `${v.toFixed(1)} dB`],
  aperiodicity: ["Breath and noise", percent],
  duration: ["Length", (v) => `${v.toFixed(1)} s`],
  quality: ["Sound quality", (v) => `${v.toFixed(1)} / 5`],
  overlap: ["Overlapping speech", percent],
};

/** "attributes.pitch_hz" -> "pitch_hz" */
const plain = (name) => name.replace(/^(attributes|style)\./, "");

export function readable(name) {
  const words = MEASURES[plain(name)]?.[0] ?? plain(name).replaceAll("_", " ");
  return t(words.charAt(0).toUpperCase() + words.slice(1));
}

export const measured = (name, value) => MEASURES[plain(name)]?.[1](value) ?? String(value);

/** [name, value] of all that was measured of a clip. */
export function known(clip) {
  const values = { ...clip.attributes, quality: clip.quality, overlap: clip.overlap || null };
  return Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
}

/** A speaker without the id of the recording, which only makes the name unique. */
export const shortSpeaker = (name) => (name ?? "").replace(/#[0-9a-f]{6,}/, "");
