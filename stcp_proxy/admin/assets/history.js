// The last hour, from /history, and the present rates, from two answers of /status.

const LONGEST_GAP = 15; // seconds; after a longer gap between two answers the rate is unknown
const KEPT = 3600; // seconds

const SERIES = ["to_wire", "to_plain", "open", "refused"];
const none = () => ({ times: [], to_wire: [], to_plain: [], open: [], refused: [] });

/** The last hour of each tunnel, put together from answers of /history. */
export class Past {
  #started = null;
  #times = [];
  #series = new Map(); // tunnel -> {to_wire, to_plain, open, refused}; "" is the sum of all
  step = 10;

  /** The number of points to request: those since the last answer. */
  wanted(now) {
    const last = this.#times.at(-1);
    return last === undefined ? 360 : Math.max(1, Math.min(360, Math.ceil((now - last) / this.step) + 1));
  }

  /**
   * @param {{started: number, step: number, times: number[], series: object[]}} answer of /history
   * @param {boolean} [whole] whether the answer has all tunnels: a tunnel that it does not have is forgotten
   */
  add({ started, step, times, series }, whole = true) {
    this.step = step;
    if (times.length && times.at(-1) < this.#times.at(-1)) this.#forget(); // the clock was set back
    const restarted = this.#started !== null && this.#started !== started;
    this.#started = started;
    const fresh = times.findIndex((time) => !(time <= this.#times.at(-1)));
    const first = fresh === -1 ? times.length : fresh;
    const before = this.#times.length;
    if (restarted && first < times.length) this.#push(started); // a gap: the values between the two runs are unknown
    const gap = this.#times.length - before;
    for (const each of series) {
      if (!this.#series.has(each.tunnel)) this.#series.set(each.tunnel, this.#silent(before, times, each));
      const known = this.#series.get(each.tunnel);
      for (const key of SERIES) known[key].push(...Array(gap).fill(null), ...each[key].slice(first));
    }
    this.#times.push(...times.slice(first));
    const named = new Set(series.map(({ tunnel }) => tunnel));
    for (const [tunnel, known] of this.#series) {
      if (whole && !named.has(tunnel)) this.#series.delete(tunnel);
      else for (const key of SERIES) while (known[key].length < this.#times.length) known[key].push(null);
    }
    const old = this.#times.findIndex((time) => time > this.#times.at(-1) - KEPT);
    if (old > 0) for (const all of [this.#times, ...[...this.#series.values()].flatMap(Object.values)]) all.splice(0, old);
  }

  has(tunnel) {
    return this.#series.has(tunnel);
  }

  /** @returns {{times: number[], to_wire: number[], to_plain: number[], open: number[], refused: number[]}} */
  get(tunnel) {
    return this.#series.has(tunnel) ? { times: this.#times, ...this.#series.get(tunnel) } : none();
  }

  /** The history of a new tunnel: the values of the answer where the times are known, otherwise 0. */
  #silent(before, times, each) {
    const known = {};
    for (const key of SERIES) {
      const told = new Map(times.map((time, at) => [time, each[key][at]]));
      known[key] = this.#times.slice(0, before).map((time) => told.get(time) ?? 0);
    }
    return known;
  }

  #push(time) {
    this.#times.push(time);
  }

  #forget() {
    this.#times = [];
    this.#series.clear();
  }
}

/** Present rates: the growth of counters between the last two answers. */
export class Rates {
  #run = null; // start of the proxy, of the last answer
  #time = null;
  #counters = new Map();
  #rates = new Map();

  /**
   * @param {*} run a different value means a restart of the proxy: its counters began again
   * @param {number} time seconds since 1970, by the clock of the proxy
   * @param {Map<string, [number, number]>} counters bytes to the wire and to plain legs
   */
  add(run, time, counters) {
    const seconds = time - this.#time;
    if (this.#run === run && seconds === 0) return;
    const known = this.#run === run && seconds > 0 && seconds <= LONGEST_GAP;
    this.#rates = new Map();
    for (const [key, [up, down]] of counters) {
      const before = known ? this.#counters.get(key) : undefined;
      if (before && up >= before[0] && down >= before[1]) {
        this.#rates.set(key, { up: (up - before[0]) / seconds, down: (down - before[1]) / seconds });
      }
    }
    [this.#run, this.#time, this.#counters] = [run, time, counters];
  }

  get(key) {
    return this.#rates.get(key) ?? { up: NaN, down: NaN };
  }
}
