// "Is it well? If not, what do I do?" One look at /status becomes a level, a sentence, and what to do about each thing.

import { clock, count, plural } from "./format.js";

const RECENT = 300; // seconds for which a refusal is news
const NEARLY = 0.9;
const MOST = 6;

/** Refusals that whoever finds a port causes: worth a note, never a reason to get up at night. */
const STRANGERS = new Set(["not_stcp", "handshake_timeout", "handshake_closed", "malformed"]);
/** Ends that somebody wanted. */
const ORDINARY = new Set(["plain_reset", "shutting_down"]);

/**
 * A sentence with values in it. They stay apart from the words, so that a stranger's text cannot turn the sentence around.
 * @returns {(string | {value: string})[]}
 */
const words = (texts, ...values) =>
  texts.flatMap((text, at) => (at < values.length ? [text, { value: String(values[at]) }] : [text]));

const RANK = { ok: 0, note: 0, warn: 1, bad: 2 };
const LINES = { ok: "All is well", warn: "It works, with something to look at", bad: "Something does not work" };

/**
 * @param {object} status of /status
 * @returns {{level: "ok"|"warn"|"bad", line: string, findings: {level: string, what: Array, remedy: string}[], more: number}}
 *   `what` as `words` gives it; `more` findings are left out
 */
export function judge(status) {
  const serves = status.process.state === "ready";
  const tunnels = status.tunnels.flatMap((each) => [...tunnel(each, serves)]);
  const findings = [...process(status), ...tunnels, ...refusals(status)];
  findings.sort((a, b) => RANK[b.level] - RANK[a.level]); // stable: the order above within a level
  const level = RANK[findings[0]?.level] ? findings[0].level : "ok";
  const line = status.process.state === "draining" ? "It is stopping" : LINES[level];
  return { level, line, findings: findings.slice(0, MOST), more: Math.max(0, findings.length - MOST) };
}

function* process({ process: { state, workers }, reloads, connections }) {
  if (state === "draining") {
    yield {
      level: "warn",
      what: words`Nothing new is accepted; ${plural(connections.total, "connection")} may finish`,
      remedy: "wait, or send a second SIGTERM to end it at once",
    };
  }
  if (state === "starting") {
    yield { level: "warn", what: "it is starting and does not serve yet", remedy: "wait; its log says what it waits for" };
  }
  for (const { number, state: answers, descriptors, descriptor_limit } of workers) {
    if (answers === "silent") {
      yield {
        level: "bad",
        what: words`Worker ${number} does not answer; its connections and counts are missing below`,
        remedy: "look at its processor time and its log; if it stays silent, restart the proxy",
      };
      continue;
    }
    if (descriptors < NEARLY * descriptor_limit) continue;
    yield {
      level: "warn",
      what: words`Worker ${number} uses ${count(descriptors)} of ${count(descriptor_limit)} file descriptors; a connection takes two`,
      remedy: "raise the limit of open files (LimitNOFILE, ulimit -n) or lower `max_connections`",
    };
  }
  const last = reloads?.last;
  if (last && !last.ok) {
    yield {
      level: "warn",
      what: words`The last reload was not applied, and the configuration before it goes on: ${last.what}`,
      remedy: "mend the file (`stcp-proxy check` names every mistake) and reload again",
    };
  }
}

function* tunnel({ name, listening, targets, open, proving, max_connections, max_handshakes, rules }, serves) {
  if (serves && listening.length === 0) {
    yield { level: "bad", what: words`Tunnel ${name} does not listen`, remedy: "its log says why" };
  }
  if (rules === "missing" || rules === "outdated") {
    yield {
      level: "bad",
      what: words`Tunnel ${name}: the rules of interception are ${rules === "missing" ? "missing" : "not those of the file"}; connections leave unencrypted`,
      remedy: "run `stcp-proxy intercept CONFIG --apply` as root on that host",
    };
  }
  const down = targets.filter(({ health }) => health === "down");
  if (down.length > 0) {
    const every = down.length === targets.length;
    const which = down
      .map(({ address, why, service }) => `${service ? `${service} at ` : ""}${address}${why ? ` (${why})` : ""}`)
      .join(", ");
    yield {
      level: every ? "bad" : "warn",
      what: words`Tunnel ${name}: ${every ? "no target answered when last tried" : `${down.length} of ${targets.length} targets did not answer when last tried`}: ${which}`,
      remedy: "see whether what is at that address runs, and no firewall is between",
    };
  }
  if (open >= max_connections) {
    yield {
      level: "bad",
      what: words`Tunnel ${name} is full: ${count(open)} connections are open, and newcomers wait`,
      remedy:
        "raise `max_connections` if this load is meant; the connections below, busiest or newest first, show whose they are",
    };
  } else if (open >= NEARLY * max_connections) {
    yield {
      level: "warn",
      what: words`Tunnel ${name} is nearly full: ${count(open)} of ${count(max_connections)} connections are open`,
      remedy: "raise `max_connections` if this load is meant",
    };
  }
  if (proving >= max_handshakes) {
    yield {
      level: "warn",
      what: words`Tunnel ${name}: ${count(proving)} callers have not proved themselves, as many as max_handshakes allows; newcomers wait`,
      remedy: "raise `max_handshakes` if they are honest; a firewall keeps strangers away",
    };
  }
}

function* refusals({ time, tunnels, refusals: all }) {
  const modes = new Map(tunnels.map(({ name, mode }) => [name, mode]));
  const kinds = new Map();
  for (const refusal of all) {
    if (ORDINARY.has(refusal.reason) || time - refusal.time > RECENT) continue;
    const kind = `${refusal.tunnel}\n${refusal.reason}`;
    if (!kinds.has(kind)) kinds.set(kind, { ...refusal, count: 0, hosts: 0 }); // the latest, which comes first
    kinds.get(kind).count += refusal.count;
    kinds.get(kind).hosts += 1;
  }
  for (const { tunnel: name, client, peer, reason, why, remedy, count: times, hosts, time: last } of kinds.values()) {
    const stranger = STRANGERS.has(reason) && modes.get(name) === "listen";
    const often = times === 1 ? "" : `${count(times)} times since the start, `;
    const where = hosts > 1 ? `from ${plural(hosts, "host")}, ` : "";
    const who = peer || (stranger ? `a stranger at ${client}` : client);
    const carried = modes.get(name) === "connect" || reason.startsWith("target_") ? "could not serve" : "turned away";
    yield {
      level: stranger ? "note" : reason === "internal_error" ? "bad" : "warn",
      what: words`Tunnel ${name} ${carried} ${who}: ${why} (${often}${where}last at ${clock(last)})`,
      remedy: remedy || (stranger ? "nothing, if it was none of yours" : "the log has the connection's line"),
    };
  }
}
