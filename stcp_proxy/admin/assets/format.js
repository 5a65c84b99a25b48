// Figures as text. Each function takes a number. `stcp-proxy status` (terminal_text.py) has the same formats.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** 1234567 -> "1.2 MB" */
export function bytes(count) {
  if (!Number.isFinite(count)) return "–";
  let value = Math.abs(count);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${count < 0 ? "-" : ""}${value.toFixed(unit === 0 || value >= 99.5 ? 0 : 1)} ${UNITS[unit]}`;
}

/** Bytes for each second. */
export const rate = (count) => (Number.isFinite(count) ? `${bytes(count)}/s` : "–");

/** 12345 -> "12,345" */
export const count = (number) => (Number.isFinite(number) ? number.toLocaleString("en") : "–");

/** "1 tunnel", "2 tunnels" */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** 3725 -> "1 h 2 min" */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  if (first === -1) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(" ");
}

const DAY = 86_400;

/** Seconds since 1970 -> the time of day in UTC, as in the log; with the date, if that is not the day of `now`. */
export function clock(epoch, now = Date.now() / 1000) {
  if (!Number.isFinite(epoch)) return "–";
  const text = new Date(epoch * 1000).toISOString();
  const time = `${text.slice(11, 19)} UTC`;
  return Math.floor(epoch / DAY) === Math.floor(now / DAY) ? time : `${text.slice(0, 10)} ${time}`;
}
