// The two kinds of picture, drawn by uPlot: a chart with axes, and a line in a table's row. Colours come from the style sheet.

import { clock, rate } from "./format.js";
import { say } from "./dom.js";

const SPAN = 300; // seconds on the time axis
const probe = document.createElement("span");

/** The colour that the style sheet gives a name, in the theme that is on now. */
function color(variable) {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(${variable})`;
  return getComputedStyle(probe).color;
}

const LINES = [
  { key: "up", variable: "--to-wire" },
  { key: "down", variable: "--to-plain" },
];

function series(fill) {
  return LINES.map(({ variable }) => ({
    stroke: () => color(variable),
    width: 1.5,
    points: { show: false },
    ...(fill ? { fill: () => color(`${variable}-area`) } : {}),
  }));
}

const data = (history) => [history.times, history.up, history.down];
const top = (_, __, highest) => [0, Math.max(highest * 1.1, 1000)];

/** A chart inside a <figure> that has a .readout and a .plot. */
export class Chart {
  #plot;
  #history = { times: [], up: [], down: [] };
  #readout;

  constructor(figure) {
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
        height: 200,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { range: (_, __, last) => [last - SPAN, last] }, y: { range: top } },
        axes: [
          { ...axis, space: 40, size: 32, incrs: [60], values: (_, times) => times.map((time) => clock(time).slice(-8, -3)) },
          { ...axis, size: 70, values: (_, rates) => rates.map(rate) },
        ],
        series: [{}, ...series(true)],
        hooks: { setCursor: [() => this.#read()] },
      },
      data(this.#history),
      place,
    );
    new ResizeObserver(() => this.#plot.setSize({ width: place.clientWidth, height: 200 })).observe(place);
    document.addEventListener("theme", () => this.#plot.redraw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#plot.redraw());
  }

  draw(history) {
    this.#history = history;
    this.#plot.setData(data(history));
    this.#read();
  }

  /** What stands under the cursor, or the latest, in words: the text that goes with the picture. */
  #read() {
    const { times, up, down } = this.#history;
    const at = this.#plot?.cursor.idx ?? times.length - 1;
    const last = at === times.length - 1;
    if (last && (up[at] ?? null) === null) return say(this.#readout, "a rate takes two readings: wait for the next");
    const when = last ? "now" : clock(times[at]);
    say(this.#readout, `${when}: to the wire ${rate(up[at] ?? NaN)}, to plain legs ${rate(down[at] ?? NaN)}`);
  }
}

/** A small line without axes; its figures stand beside it. */
export function spark(place) {
  const plot = new uPlot(
    {
      width: 120,
      height: 28,
      legend: { show: false },
      cursor: { show: false },
      padding: [2, 0, 2, 0],
      scales: { x: { range: (_, __, last) => [last - SPAN, last] }, y: { range: top } },
      axes: [{ show: false }, { show: false }],
      series: [{}, ...series(false)],
    },
    data({ times: [], up: [], down: [] }),
    place,
  );
  return (history) => plot.setData(data(history));
}
