// The dashboard. While its tab is visible, it asks the proxy every two seconds, and updates its elements in place.

import { drawCertificates, mayGo } from "./certificates.js";
import { Chart, CONNECTIONS, spark, THROUGHPUT } from "./charts.js";
import { $, el, few, mono, name, prose, say, show, sub } from "./dom.js";
import { bytes, clock, count, duration, plural, rate } from "./format.js";
import { Past, Rates } from "./history.js";
import { ask, forgetToken, hasToken, keepToken } from "./source.js";
import { Table } from "./table.js";
import { headline, lines as verdictLines } from "./verdict.js";

const EVERY = 2000; // milliseconds
const LISTED = 100; // connections that are requested and shown
const FEW = 25; // connections shown before a click on "Show more"
const SEARCHED = 1000; // connections requested for a search
const SPARKS = 50; // tunnels that have a small chart in their row, as many as /history names

const rates = new Rates();
const past = new Past();
let pastAt = -Infinity; // time of the last request for the history, by the clock of the proxy
let charts = null;
let selected = ""; // the tunnel whose throughput and connections are shown; "" means all tunnels
let status = null; // the last answer of /status
let answeredAt = null; // time of that answer, milliseconds since 1970
let paused = false;
let timer = null;
let asking = false; // whether a request is under way
let session = 0; // number of the session: "Forget token" begins a new one, and answers for an older one are dropped

// -- requests ---------------------------------------------------------------------------------------------------------------

async function tick() {
  clearTimeout(timer);
  if (asking || paused || document.hidden) return;
  asking = true;
  const mine = session;
  const answer = await ask("status", wanted());
  if (answer.found && answer.found.time - pastAt >= past.step) await askPast(answer.found.time, answer.found.tunnels);
  asking = false;
  if (mine !== session) return;
  if (answer.refused) return askForToken();
  timer = setTimeout(tick, EVERY);
  if (answer.lost) return showLoss(answer.lost);
  try {
    showStatus(answer.found);
  } catch (error) {
    showLoss("The answer cannot be shown; reload this page, it may be older than the proxy");
    throw error; // a bug of this page: the browser's console shows it
  }
}

/** Request the new points of the history. The tunnel in the charts needs its own request if it is not among the first 50. */
async function askPast(now, tunnels) {
  const points = past.wanted(now);
  const { found } = await ask("history", { points });
  if (!found) return;
  past.add(found);
  pastAt = now;
  if (selected === "" || past.has(selected) || !tunnels.some(({ name: text }) => text === selected)) return;
  const own = await ask("history", { tunnel: selected });
  if (own.found) past.add(own.found, false);
}

/** The query for /status: number, order and tunnel of the connections. */
function wanted() {
  return { connections: $("filter").value ? SEARCHED : LISTED, order: $("order").value, tunnel: selected };
}

/** Show an answer of /status. */
function showStatus(answer) {
  status = answer;
  answeredAt = Date.now();
  show($("login"), false);
  show($("content"), true);
  show($("forget"), hasToken());
  $("content").classList.remove("stale", "blank");
  const counters = new Map(status.tunnels.map((tunnel) => [`=${tunnel.name}`, [tunnel.bytes_to_wire, tunnel.bytes_to_plain]]));
  const sum = (field) => status.tunnels.reduce((total, tunnel) => total + tunnel[field], 0);
  counters.set("", [sum("bytes_to_wire"), sum("bytes_to_plain")]);
  rates.add(status.process.started, status.time, counters);
  draw();
}

/** Show that the proxy does not answer. The figures on the page stay, and are marked as old. */
function showLoss(why) {
  show($("login"), false);
  show($("content"), true);
  $("content").classList.add(status ? "stale" : "blank");
  const then = status ? ` The last answer came at ${clock(answeredAt / 1000)}; everything below is of that time.` : "";
  const remedy = "check that the proxy runs (`systemctl status`, its log), and that a port forwarding to it still works";
  const fault = { level: "bad", what: [`${why}.${then}`], remedy };
  const found = { level: "bad", headline: "Connection lost", faults: [fault], more: 0 };
  drawVerdict(found, Date.now() / 1000, ["This page asks again every two seconds."]);
  say($("heartbeat"), "not connected");
}

/** Show the form for the token instead of the figures. */
function askForToken() {
  show($("content"), false);
  show($("forget"), false);
  show($("login"), true);
  say($("login-why"), hasToken() ? "This token is wrong." : "");
  forgetToken();
  say($("heartbeat"), "");
  document.title = "stcp-proxy: token";
  $("token").value = "";
  $("token").focus();
}

// -- drawing ----------------------------------------------------------------------------------------------------------------

function draw() {
  const { process } = status;
  say($("about"), `${process.version} · ${process.state} · up ${duration(process.uptime)}`);
  say($("heartbeat"), paused ? "paused" : `updated ${clock(answeredAt / 1000)}`);
  const open = status.tunnels.reduce((sum, tunnel) => sum + tunnel.open, 0);
  const all = `${plural(status.tunnels.length, "tunnel")}, ${plural(open, "open connection")}.`;
  drawVerdict(status.verdict, status.time, [all]);
  drawTunnels();
  drawPast();
  drawRefusals();
  drawConnections();
  drawKeys();
  drawCertificates(status);
  drawProcess();
}

function drawVerdict(verdict, now, notes) {
  headline(verdict);
  replace($("verdict-list"), verdictLines(verdict, now, notes));
}

/** Replace the children of an element, unless they are equal. So a selection of text stays. */
function replace(parent, children) {
  const same =
    parent.children.length === children.length && children.every((child, at) => child.isEqualNode(parent.children[at]));
  if (!same) parent.replaceChildren(...children);
}

const list = (texts) => texts.flatMap((text, at) => (at ? [el("br"), mono(text)] : [mono(text)]));
const total = (counts) => Object.values(counts).reduce((all, each) => all + each, 0);
const rateOf = (tunnel) => rates.get(`=${tunnel}`);

const tunnels = new Table($("tunnels"), [
  { label: "Tunnel", heading: true, cell: (tunnel) => [name(tunnel.name), sub(tunnel.mode)] },
  { label: "State", cell: (tunnel) => [stateOf(tunnel)] },
  {
    label: "From → to",
    wide: true,
    cell: ({ listening, bind, targets }) => [
      ...list(listening.length ? listening : [bind]),
      ...targets.map((target) =>
        sub(wayTo(target), "→\u00a0", mono(target.address), target.health === "unknown" ? null : ` ${target.health}`),
      ),
    ],
  },
  { label: "Peers", cell: ({ auth, peers }) => (auth === "psk" ? ["shared secret"] : few(peers)) },
  { label: "Engine", cell: ({ engine }) => [engine] },
  {
    label: "Open",
    number: true,
    cell: ({ open, proving, idle_legs: idle, max_connections: most }) => [
      `${count(open)}`,
      sub(`of ${count(most)}`),
      proving ? sub(`${count(proving)} in handshake`) : "",
      idle ? sub(plural(idle, "idle leg")) : "",
    ],
  },
  {
    label: "So far",
    number: true,
    cell: ({ ended, refused }) => [count(total(ended)), total(refused) ? sub(`${count(total(refused))} refused`) : ""],
  },
  {
    label: "To wire",
    number: true,
    cell: ({ name: tunnel, bytes_to_wire: all }) => [rate(rateOf(tunnel).up), sub(bytes(all))],
  },
  {
    label: "To plain",
    number: true,
    cell: ({ name: tunnel, bytes_to_plain: all }) => [rate(rateOf(tunnel).down), sub(bytes(all))],
  },
  { label: "Last hour", once: (cell) => cell.append(el("div", { class: "spark", "aria-hidden": "true" })) },
]);
const lines = new WeakMap(); // element of a small chart -> the function that draws it

const stateOf = ({ state, level }) => el("span", { class: `state ${level}` }, state);

/** The service or the route that a target belongs to, unless it is in the tunnel's own `to`. */
const wayTo = ({ service, route }) => (service || route ? `${service || route} ` : null);

function drawTunnels() {
  tunnels.show(status.tunnels, (tunnel) => tunnel.name);
  say($("tunnels-empty"), "No tunnel is configured.");
  show($("tunnels-empty"), status.tunnels.length === 0);
  for (const { name: tunnel } of status.tunnels.slice(0, SPARKS)) {
    const place = tunnels.cells(tunnel)[tunnels.columns.length - 1].firstElementChild;
    if (!lines.has(place)) lines.set(place, spark(place));
    lines.get(place)(past.get(tunnel));
  }
  const names = status.tunnels.map((tunnel) => tunnel.name);
  if (selected !== "" && !names.includes(selected)) selected = ""; // a reload removed it
  for (const select of document.querySelectorAll(".which")) {
    replace(select, [el("option", { value: "" }, "all tunnels"), ...names.map((text) => el("option", { value: text }, text))]);
    select.value = selected;
  }
}

function drawPast() {
  charts ??= [new Chart($("throughput"), THROUGHPUT, 200), new Chart($("opened"), CONNECTIONS, 120)];
  for (const chart of charts) chart.draw(past.get(selected));
}

const refusals = new Table($("refusals"), [
  {
    label: "Last",
    heading: true,
    cell: ({ time, count: times }) => [
      `${duration(status.time - time)} ago`,
      sub(clock(time)),
      times > 1 ? sub(`${count(times)} times`) : "",
    ],
  },
  { label: "Tunnel", cell: ({ tunnel }) => [name(tunnel)] },
  { label: "Who", cell: ({ client, peer }) => [peer ? name(peer) : mono(client), peer ? sub(mono(client)) : ""] },
  { label: "Why", wide: true, cell: ({ why, key, reason }) => [name(why), key ? sub(mono(key)) : "", sub(reason)] },
  { label: "What to do", wide: true, cell: ({ remedy }) => (remedy ? [el("span", {}, ...prose(remedy))] : ["–"]) },
]);

function drawRefusals() {
  refusals.show(status.refusals, ({ tunnel, client, reason, why, key }) => [tunnel, client, reason, why, key].join("\n"));
  show($("refusals-empty"), status.refusals.length === 0);
}

const connections = new Table($("connections"), [
  { label: "Channel", heading: true, cell: ({ channel }) => [channel ? mono(channel) : "(handshake)"] },
  { label: "Tunnel", cell: ({ tunnel }) => [name(tunnel)] },
  { label: "Peer", cell: ({ peer }) => [peer ? name(peer) : "–"] },
  { label: "From", cell: ({ client }) => [mono(client)] },
  { label: "To", cell: ({ target }) => [target ? mono(target) : "–"] },
  { label: "Engine", cell: ({ engine, why_engine: why }) => [engine || "–", why ? sub(why) : ""] },
  { label: "Age", number: true, cell: ({ age }) => [duration(age)] },
  { label: "To wire", number: true, cell: (connection) => [bytes(connection.bytes_to_wire)] },
  { label: "To plain", number: true, cell: (connection) => [bytes(connection.bytes_to_plain)] },
]);

function drawConnections() {
  const { total: all, shown: found } = status.connections;
  const text = $("filter").value.trim().toLowerCase();
  const fits = ({ channel, tunnel, peer, client, target }) =>
    [channel, tunnel, peer, client, target].some((field) => field.toLowerCase().includes(text));
  const matching = text ? found.filter(fits) : found;
  const shown = matching.slice(0, $("more").getAttribute("aria-expanded") === "true" ? LISTED : FEW);
  show($("more"), matching.length > FEW);
  connections.show(shown, ({ worker, channel, client, tunnel }) => [worker, channel, client, tunnel].join("\n"));
  const among = found.length < all ? `the ${count(found.length)} ${$("order").value} of ${count(all)}` : `${count(all)}`;
  say(
    $("connections-note"),
    text
      ? `${count(matching.length)} among ${among} contain this text${shown.length < matching.length ? `; ${count(shown.length)} are shown` : ""}.`
      : shown.length < all
        ? `The ${count(shown.length)} ${$("order").value} of ${count(all)}.`
        : "",
  );
  say($("connections-empty"), text ? "No connection contains this text." : "No connection is open.");
  show($("connections-empty"), shown.length === 0);
}

const keys = new Table($("keys"), [
  {
    label: "Key of",
    heading: true,
    cell: ({ name: owner, own }) => [own ? "this proxy" : name(owner), sub(own ? "its own" : "peer")],
  },
  { label: "Public key", wide: true, cell: ({ key }) => [mono(key)] },
  { label: "Tunnels", wide: true, cell: ({ tunnels: names }) => few(names) },
  { label: "Open", number: true, cell: ({ connections: open }) => [count(open)] },
  { label: "So far", number: true, cell: ({ total: all }) => [count(all)] },
  {
    label: "Last use",
    cell: ({ last_use: last }) =>
      last === null ? ["not since the start"] : [`${duration(status.time - last)} ago`, sub(clock(last))],
  },
  { label: "Can be removed", wide: true, cell: mayGo },
]);

function drawKeys() {
  keys.show(status.keys, ({ own, key }) => `${own} ${key}`);
  say($("keys-empty"), "No keys: the tunnels use a shared secret or certificates.");
  show($("keys-empty"), status.keys.length === 0);
}

function drawProcess() {
  const { process, reloads } = status;
  const entries = [
    ["Started", `${clock(process.started)}, ${duration(process.uptime)} ago`],
    ...process.engines.map(({ choice, engine, why }) => [`Engine for “${choice}”`, `${engine}: ${why}`]),
    ...process.workers.map((worker) => [
      process.workers.length > 1 ? `Worker ${worker.number}` : "Process",
      worker.state === "silent"
        ? "does not answer"
        : `pid ${worker.pid}, ${worker.state}, ${plural(worker.open, "connection")}, ${bytes(worker.memory)} resident, ` +
          `${count(worker.descriptors)} of ${count(worker.descriptor_limit)} descriptors`,
    ]),
    ["Reloads", `${count(reloads.applied)} applied, ${count(reloads.failed)} refused`],
    ...(reloads.last
      ? [["Last reload", `${clock(reloads.last.time)}, ${reloads.last.ok ? "applied" : "not applied"}:\n${reloads.last.what}`]]
      : []),
  ];
  replace(
    $("process"),
    entries.flatMap(([term, value]) => [
      el("dt", {}, term),
      el("dd", {}, ...value.split("\n").map((line) => el("div", {}, name(line)))),
    ]),
  );
}

// -- events of the user ----------------------------------------------------------------------------------------------------

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken($("token").value.trim());
  $("token").value = "";
  tick();
});
$("forget").addEventListener("click", () => {
  forgetToken();
  session += 1;
  status = null;
  askForToken();
});
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  if (status) say($("heartbeat"), paused ? "paused" : "");
  tick();
});
for (const select of document.querySelectorAll(".which")) {
  select.addEventListener("change", () => {
    selected = select.value;
    for (const other of document.querySelectorAll(".which")) other.value = selected;
    pastAt = -Infinity;
    drawPast();
    tick();
  });
}
$("order").addEventListener("change", tick);
$("more").addEventListener("click", () => {
  const expanded = $("more").getAttribute("aria-expanded") !== "true";
  $("more").setAttribute("aria-expanded", String(expanded));
  say($("more"), expanded ? "Show fewer" : "Show more");
  drawConnections();
});
$("filter").addEventListener("input", () => {
  drawConnections();
  tick();
});
document.addEventListener("visibilitychange", tick);
tick();
