// Text of peers, clients and the configuration is foreign text. Only this file puts it on the page: as text nodes, with escapes
// for invisible characters. No script parses text as HTML; the Content-Security-Policy forbids that too.

import { count } from "./format.js";

const LONGEST = 300; // characters of a text on the page
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]/gu;

export const $ = (id) => document.getElementById(id);

/** Text that is safe to show: control and direction characters become escapes, and long text is cut. */
export function shown(value) {
  const text = String(value ?? "");
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  return cut.replace(INVISIBLE, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/**
 * Make an element.
 * @param {string} tag
 * @param {object} attributes set as attributes; never on… or style, which the policy forbids
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

/** Foreign text inside a sentence: it cannot change the direction of the text beside it. */
export const name = (text, attributes = {}) => el("bdi", attributes, text);

/** A second line in a cell. */
export const sub = (...children) => el("span", { class: "sub" }, ...children);

/** An address, a key or a number, to be copied. */
export const mono = (text) => el("bdi", { class: "mono" }, text);

/** The first few of many names. */
export function few(names) {
  const most = 3;
  const parts = names.slice(0, most).flatMap((text, at) => (at ? [", ", name(text)] : [name(text)]));
  return names.length > most ? [...parts, sub(`and ${count(names.length - most)} more`)] : parts;
}

/** A text of this product as nodes; `backquotes` mark commands and code. */
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : shown(part)));

/** Set the text of `node`. An equal text changes nothing. */
export function say(node, text) {
  const wanted = shown(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Show or hide a node. */
export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}
