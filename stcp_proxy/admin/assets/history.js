// Rates out of counters that only grow, with the times of the proxy's own clock.

export const KEPT = 150; // samples: five minutes of one every two seconds
const LONGEST_GAP = 15; // seconds without a sample after which the line is broken instead of drawn straight

/** The recent past of one pair of counters: {times, up, down}, in seconds since 1970 and bytes for each second. */
export class Series {
  #last = null;
  times = [];
  up = [];
  down = [];

  /**
   * @param {number} time seconds since 1970
   * @param {number} up, down what has been counted so far
   * @returns {void} a counter that went back, or a long silence, breaks the line: nothing is known of the time between
   */
  add(time, up, down) {
    const last = this.#last;
    this.#last = { time, up, down };
    if (last === null) return this.#push(time, null, null); // a rate takes two
    const seconds = time - last.time;
    if (seconds === 0) return;
    const known = seconds > 0 && seconds <= LONGEST_GAP && up >= last.up && down >= last.down;
    this.#push(time, known ? (up - last.up) / seconds : null, known ? (down - last.down) / seconds : null);
  }

  /** Nothing that was counted before goes on: the proxy has been started anew. */
  restart() {
    this.#last = null;
  }

  get now() {
    return { up: this.up.at(-1) ?? null, down: this.down.at(-1) ?? null };
  }

  #push(time, up, down) {
    if (time <= this.times.at(-1)) [this.times, this.up, this.down] = [[], [], []]; // the clock was put back
    this.times.push(time);
    this.up.push(up);
    this.down.push(down);
    if (this.times.length > KEPT) {
      this.times.shift();
      this.up.shift();
      this.down.shift();
    }
  }
}

/** Series by name; those no longer named are dropped. */
export class History {
  #run = null;
  #series = new Map();

  /**
   * @param {*} run another value means another run of the proxy
   * @param {number} time seconds since 1970
   * @param {Map<string, [number, number]>} counters
   */
  add(run, time, counters) {
    if (this.#run !== null && this.#run !== run) for (const series of this.#series.values()) series.restart();
    this.#run = run;
    for (const key of this.#series.keys()) if (!counters.has(key)) this.#series.delete(key);
    for (const [key, [up, down]] of counters) {
      if (!this.#series.has(key)) this.#series.set(key, new Series());
      this.#series.get(key).add(time, up, down);
    }
  }

  get(key) {
    return this.#series.get(key) ?? new Series();
  }
}
