// Tables of certificates: those of this side, of authorities and of connected peers, and revocation lists.

import { $, el, few, mono, name, say, show, sub } from "./dom.js";
import { count, duration, plural } from "./format.js";
import { Table } from "./table.js";

const MOST = 25; // rows of a table
const MAY_GO = { yes: "Yes", no: "No", unknown: "Not known" };

/** Whether a key or a certificate can be removed from the file, and why. */
export const mayGo = ({ may_go: answer, why }) => [MAY_GO[answer] ?? answer, why ? sub(why) : ""];

let now = 0; // the time of the shown status

/** The cell for the end of a validity: its date in UTC, and the time until then. */
function ends({ not_after: end, overdue }) {
  if (end === null) return ["no end"];
  const left = end - now;
  const day = new Date(end * 1000).toISOString().slice(0, 10);
  const when = left > 0 ? `in ${duration(left)}` : `${duration(-left)} ago`;
  return [left <= 0 || overdue ? el("span", { class: `state ${left <= 0 ? "bad" : "warn"}` }, day) : day, sub(when)];
}

const own = new Table($("certificates"), [
  {
    label: "Certificate of",
    heading: true,
    cell: ({ kind, name: owner }) => [kind === "certificate" ? "this proxy" : name(owner), sub(kind)],
  },
  { label: "Names", wide: true, cell: ({ subject }) => [mono(subject)] },
  { label: "Authority", wide: true, cell: ({ issuer }) => [name(issuer)] },
  { label: "Serial", wide: true, cell: ({ serial }) => [serial ? mono(serial) : "–"] },
  { label: "Ends", cell: ends },
  { label: "Open", number: true, cell: ({ connections }) => [count(connections)] },
  { label: "Can be removed", wide: true, cell: mayGo },
]);

const peers = new Table($("peer-certificates"), [
  { label: "Peer", heading: true, cell: ({ name: peer }) => [name(peer)] },
  { label: "Authority", cell: ({ authority }) => [name(authority)] },
  { label: "Serial", wide: true, cell: ({ serial }) => [mono(serial)] },
  { label: "Ends", cell: ends },
  { label: "Tunnels", wide: true, cell: ({ tunnels }) => few(tunnels) },
  { label: "Open", number: true, cell: ({ connections }) => [count(connections)] },
]);

/** Show the certificates of an answer of /status. A section without certificates is hidden. */
export function drawCertificates({ time, certificates, peer_certificates: ofPeers, connections_of_others: others }) {
  now = time;
  show($("certificates-section"), certificates.length > 0);
  own.show(certificates.slice(0, MOST), (each) => [each.kind, each.name, each.subject, each.serial, each.not_after].join("\n"));
  say($("certificates-note"), certificates.length > MOST ? `The first ${MOST} of ${count(certificates.length)}.` : "");
  show($("peer-certificates-section"), ofPeers.length > 0);
  peers.show(ofPeers.slice(0, MOST), (each) => [each.name, each.authority, each.serial, each.not_after].join("\n"));
  const rest = ofPeers.slice(MOST).reduce((sum, each) => sum + each.connections, others);
  say(
    $("peer-certificates-note"),
    rest ? `The certificates with most open connections; ${plural(rest, "connection")} by further certificates.` : "",
  );
}
