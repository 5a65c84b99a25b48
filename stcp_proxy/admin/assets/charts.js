// Two kinds of chart, drawn by uPlot: one with axes, and a small one in a row of a table. Colours come from the style sheet.

import { clock, count, rate } from "./format.js";
import { say } from "./dom.js";

const LEAST = 600; // seconds on the time axis of a proxy that has just started
const MOST = 3600; // seconds on the time axis later
const probe = document.createElement("span"); // an element whose computed colour is read

/** The colour of a variable of the style sheet, in the present theme. */
function color(variable) {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(${variable})`;
  return getComputedStyle(probe).color;
}

/** A kind of chart: its two lines, the lowest top of its axis, the format of its values, and the text beside it. */
export const THROUGHPUT = {
  lines: [
    { key: "to_wire", variable: "--to-wire" },
    { key: "to_plain", variable: "--to-plain" },
  ],
  least: 1000,
  write: rate,
  words: ([up, down]) => `to the wire ${rate(up ?? NaN)}, to plain legs ${rate(down ?? NaN)}`,
};
export const CONNECTIONS = {
  lines: [
    { key: "open", variable: "--open" },
    { key: "refused", variable: "--refused" },
  ],
  least: 5,
  write: (value) => (Number.isInteger(value) ? count(value) : ""),
  words: ([open, refused]) => `${count(open ?? NaN)} open, ${count(refused ?? NaN)} refused in 10 s`,
};

function series({ lines }, fill) {
  return lines.map(({ variable }) => ({
    stroke: () => color(variable),
    width: 1.5,
    points: { show: false },
    ...(fill ? { fill: () => color(`${variable}-area`) } : {}),
  }));
}

const data = ({ lines }, past) => [past.times, ...lines.map(({ key }) => past[key] ?? [])];
const range = ({ least }) => ({
  x: { range: (_, first, last) => [last - Math.min(MOST, Math.max(LEAST, last - first)), last] },
  y: { range: (_, __, highest) => [0, Math.max(highest * 1.1, least)] },
});

/** A chart inside a <figure> that has a .readout and a .plot. */
export class Chart {
  #kind;
  #plot;
  #past = { times: [] };
  #readout;

  /** @param {Element} figure @param {object} kind `THROUGHPUT` or `CONNECTIONS` @param {number} height of the picture */
  constructor(figure, kind, height) {
    this.#kind = kind;
    const place = figure.querySelector(".plot");
    this.#readout = figure.querySelector(".readout");
    const axis = {
      stroke: () => color("--muted"),
      grid: { stroke: () => color("--line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    this.#plot = new uPlot(
      {
        width: place.clientWidth || 300,
        height,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC"),
        scales: range(kind),
        axes: [
          {
            ...axis,
            space: 40,
            size: 32,
            incrs: [60, 120, 300, 600],
            values: (_, times) => times.map((time) => clock(time).slice(-12, -7)),
          },
          { ...axis, size: 70, values: (_, values) => values.map(kind.write) },
        ],
        series: [{}, ...series(kind, true)],
        hooks: { setCursor: [() => this.#read()] },
      },
      data(kind, this.#past),
      place,
    );
    new ResizeObserver(() => this.#plot.setSize({ width: place.clientWidth, height })).observe(place);
    document.addEventListener("theme", () => this.#plot.redraw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#plot.redraw());
  }

  /** Show a history, in the form of `Past.get`. */
  draw(past) {
    this.#past = past;
    this.#plot.setData(data(this.#kind, past));
    this.#read();
  }

  /** Show the values under the cursor, or the latest values, as text. */
  #read() {
    const { times } = this.#past;
    if (times.length === 0) return say(this.#readout, "the first point comes ten seconds after the first connection");
    const at = this.#plot?.cursor.idx ?? times.length - 1;
    const values = this.#kind.lines.map(({ key }) => this.#past[key][at]);
    say(this.#readout, `${clock(times[at], times.at(-1))}: ${this.#kind.words(values)}`);
  }
}

/** A small chart without axes; its figures are in the cells beside it. */
export function spark(place) {
  const plot = new uPlot(
    {
      width: 120,
      height: 28,
      legend: { show: false },
      cursor: { show: false },
      padding: [2, 0, 2, 0],
      scales: range(THROUGHPUT),
      axes: [{ show: false }, { show: false }],
      series: [{}, ...series(THROUGHPUT, false)],
    },
    data(THROUGHPUT, { times: [] }),
    place,
  );
  return (past) => plot.setData(data(THROUGHPUT, past));
}
