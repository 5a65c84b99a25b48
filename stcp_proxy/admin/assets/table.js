// Tables that are updated in place. A row has a key and is kept, so that focus and selection stay.

import { el } from "./dom.js";

/**
 * @typedef {object} Column
 * @property {string} label its heading
 * @property {(item: object) => Array} cell its content: texts and nodes; [] for nothing
 * @property {boolean} [number] aligned to the right
 * @property {boolean} [wide] has a line of its own in the narrow layout
 * @property {boolean} [heading] the heading of the row
 * @property {(td: Element) => void} [once] fills the cell when the row is made; `cell` is then not called
 */

export class Table {
  #body;
  #rows = new Map(); // key -> {row, said}

  /** @param {Element} table empty @param {Column[]} columns */
  constructor(table, columns) {
    this.columns = columns;
    // The roles are those of the elements. They are set because the narrow layout displays rows as blocks, which would lose them.
    table.setAttribute("role", "table");
    const heading = ({ label, number }) =>
      el("th", { scope: "col", role: "columnheader", class: number ? "number" : null }, label);
    const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...columns.map(heading)));
    this.#body = el("tbody", { role: "rowgroup" });
    table.append(head, this.#body);
    this.table = table;
  }

  /**
   * Show items in this order.
   * @param {object[]} items
   * @param {(item: object) => string} a key that is unique among the items
   */
  show(items, key) {
    const seen = new Set();
    let place = this.#body.firstElementChild;
    for (const item of items) {
      const id = key(item);
      if (seen.has(id)) continue;
      seen.add(id);
      if (!this.#rows.has(id)) this.#rows.set(id, this.#make());
      const known = this.#rows.get(id);
      this.#fill(known, item);
      if (known.row === place) place = place.nextElementSibling;
      else this.#body.insertBefore(known.row, place);
    }
    for (const [id, { row }] of this.#rows) {
      if (seen.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    this.table.hidden = items.length === 0;
  }

  /** The cells of the row with this key; undefined when it is not shown. */
  cells(id) {
    return this.#rows.get(id)?.row.children;
  }

  #make() {
    const row = el("tr", { role: "row" });
    for (const { label, number, wide, heading, once } of this.columns) {
      const cell = heading
        ? el("th", { scope: "row", role: "rowheader" })
        : el("td", { role: "cell", class: number ? "number" : wide ? "wide" : null, "data-label": label });
      once?.(cell);
      row.append(cell);
    }
    return { row, said: [] };
  }

  #fill({ row, said }, item) {
    this.columns.forEach(({ cell, once }, at) => {
      if (once) return;
      const parts = cell(item).map((part) => (part instanceof Node ? part : el("bdi", {}, part)));
      const wanted = parts.map((part) => part.outerHTML).join("");
      if (said[at] === wanted) return;
      said[at] = wanted;
      row.children[at].replaceChildren(...(parts.length ? [el("div", {}, ...parts)] : []));
    });
  }
}
