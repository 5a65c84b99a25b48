// What peers, clients and configuration say is text of strangers. It reaches the page through this file alone, as text nodes, with
// invisible characters spelled out; nothing on the page is ever parsed as HTML (the Content-Security-Policy sees to that too).

import { count } from "./format.js";

const LONGEST = 300;
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu;

export const $ = (id) => document.getElementById(id);

/** Text fit to be shown: control and direction characters spelled out, cut when it is endless. */
export function shown(value) {
  const text = String(value ?? "");
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  return cut.replace(INVISIBLE, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/**
 * An element.
 * @param {string} tag
 * @param {object} attributes set as attributes; never of the on… or style kinds, which the policy forbids
 * @param {...(string|number|Node|null)} children strings become text nodes
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) {
    if (child !== null && child !== undefined) node.append(child instanceof Node ? child : shown(child));
  }
  return node;
}

/** A stranger's text inside a sentence: cannot turn the direction of what stands beside it. */
export const name = (text, attributes = {}) => el("bdi", attributes, text);

/** A line of its own below the rest of a cell. */
export const sub = (...children) => el("span", { class: "sub" }, ...children);

/** Addresses, keys and numbers that somebody copies. */
export const mono = (text) => el("bdi", { class: "mono" }, text);

/** The first few of many names. */
export function few(names) {
  const most = 3;
  const parts = names.slice(0, most).flatMap((text, at) => (at ? [", ", name(text)] : [name(text)]));
  return names.length > most ? [...parts, sub(`and ${count(names.length - most)} more`)] : parts;
}

/** Words of this product, in which `backquotes` mark what is typed: nodes. */
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : shown(part)));

/** Give `node` this text, touching the page only if it is another. */
export function say(node, text) {
  const wanted = shown(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Show or hide. */
export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}
