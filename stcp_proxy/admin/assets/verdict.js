// Shows the verdict of the proxy: the headline, and each fault with its remedy. The page itself does not judge.

import { $, el, name, prose, say, shown } from "./dom.js";
import { clock, count, duration } from "./format.js";

const SIGNS = { ok: "✓", warn: "▲", bad: "■" };

/** The time of a fault: its beginning, or its end and duration. */
export function when({ since, until, last, times }, now) {
  const again = times > 1 ? `, ${count(times)} times since the start` : "";
  if (until !== null) return `over since ${clock(until, now)}, lasted ${duration(until - since)}${again}`;
  const repeated = last !== null && last > since ? `, last ${duration(now - last)} ago` : "";
  return `since ${clock(since, now)}, ${duration(now - since)}${repeated}${again}`;
}

/** The sentence of a fault. Its parts at even places are text of the proxy, those at odd places are foreign text. */
const sentence = (what) => what.flatMap((text, at) => (at % 2 ? [name(text)] : prose(text)));

function item(fault, now) {
  const { level, what, remedy, public_key: key, since, until } = fault;
  const over = (until ?? null) !== null;
  return el(
    "li",
    { class: over ? "over" : level },
    ...sentence(what),
    (since ?? null) === null ? null : el("span", { class: "when" }, ` ${when(fault, now)}`),
    key && !over ? el("bdi", { class: "mono key-text" }, key) : null,
    remedy && !over ? el("span", { class: "remedy" }, ...prose(remedy)) : null,
  );
}

/**
 * Show a verdict.
 * @param {{level: string, headline: string, faults: object[], more: number}} verdict as in /status
 * @param {number} now its time, seconds since 1970
 * @param {string[]} notes further lines
 * @returns {Element[]} the lines of the list, for the caller to put in place
 */
export function lines({ faults, more }, now, notes) {
  return [
    ...faults.map((fault) => item(fault, now)),
    ...(more ? [el("li", { class: "note" }, `${count(more)} more; the tables below show the state of each tunnel.`)] : []),
    ...notes.map((text) => el("li", { class: "note" }, text)),
  ];
}

/** Show the headline. */
export function headline({ level, headline: text }) {
  $("verdict").dataset.level = level;
  say($("verdict-line"), text);
  document.title = `${SIGNS[level]} ${shown(text)} · stcp-proxy`;
}
