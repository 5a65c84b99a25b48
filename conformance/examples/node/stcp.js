#!/usr/bin/env node
"use strict";
// A small second implementation of docs/PROTOCOL.md: suites 2 and 4, both roles, kept legs.
//
//   node stcp.js responder|initiator --listen HOST:PORT --target HOST:PORT --suite 2 --private FILE --peer FILE
//   node stcp.js responder|initiator --listen HOST:PORT --target HOST:PORT --suite 4 --secret FILE
//
// The files have 32 bytes as 64 hex digits: the own private key, the public key of the other side, the shared secret. With --keep SECONDS a
// wire leg carries several connections, one after the other (section 7).

const fs = require("node:fs");
const net = require("node:net");
const { parseArgs } = require("node:util");
const { SUITES, Handshake, keyPair } = require("./noise.js");
const {
  TYPE,
  HEADER,
  MOST_PLAINTEXT,
  Direction,
  Order,
  checkHeader,
  readAttributes,
  readReason,
  writeKeep,
  writeReason,
} = require("./frames.js");

const HANDSHAKE_SECONDS = 10;
const DISCARD_SECONDS = 2;
const MOST_CONNECTIONS = 65536;
const CODE = { unknownService: 2, refused: 3, timedOut: 4, unreachable: 5, plainReset: 8, protocol: 10 };
const NOTHING = Buffer.alloc(0);

/** A wire leg, and the connection that it carries now. */
class Leg {
  /** `wire`: socket of the wire leg; `plain`: socket of the application (initiator), or null until the target is dialled. */
  constructor(settings, wire, plain) {
    Object.assign(this, { settings, wire, plain, initiator: settings.initiator, unread: NOTHING, over: false });
    this.number = 0;
    this.begins();
    this.handshake = new Handshake(settings);
    this.order = new Order(!this.initiator);
    this.expects = this.initiator ? this.message2 : this.greeting;
    wire.setTimeout(HANDSHAKE_SECONDS * 1000, () => this.fail(new Error("the handshake took too long")));
    wire.on("data", (bytes) => this.arrived(bytes));
    wire.on("end", () => this.wireEnded());
    wire.on("error", (error) => this.fail(error));
    if (this.initiator) {
      const message = this.handshake.write(1);
      wire.write(Buffer.concat([Buffer.from("STCP"), Buffer.from([1, settings.suite]), lengthOf(message), message]));
    }
  }

  begins() {
    this.accepted = this.sentFin = this.gotFin = this.resting = false;
    this.kept = 0;
  }

  // -- what arrives on the wire leg

  arrived(bytes) {
    if (this.over) return;
    this.unread = Buffer.concat([this.unread, bytes]);
    try {
      while (!this.over && this.expects()) continue;
    } catch (error) {
      this.fail(error);
    }
  }

  /** The next `count` unread bytes, or null while they are not there. */
  take(count) {
    if (this.unread.length < count) return null;
    const bytes = this.unread.subarray(0, count);
    this.unread = this.unread.subarray(count);
    return bytes;
  }

  greeting() {
    const bytes = this.take(6);
    if (!bytes) return false;
    if (!bytes.equals(Buffer.from([...Buffer.from("STCP"), 1, this.settings.suite]))) throw new Error("another version or suite");
    this.expects = this.message1;
    return true;
  }

  message(number) {
    const length = SUITES[this.settings.suite].lengths[number - 1];
    if (this.unread.length >= 2 && this.unread.readUInt16BE() !== length) throw new Error(`message ${number} has another length`);
    const bytes = this.take(2 + length);
    if (!bytes) return false;
    this.handshake.read(number, bytes.subarray(2));
    return true;
  }

  message1() {
    if (!this.message(1)) return false;
    if (this.settings.peer && !this.handshake.peer.equals(this.settings.peer)) throw new Error("the peer's key is not known");
    const message = this.handshake.write(2);
    this.wire.write(Buffer.concat([lengthOf(message), message]));
    this.established();
    return true;
  }

  message2() {
    if (!this.message(2)) return false;
    this.established();
    this.wire.setTimeout(0);
    this.open();
    this.readPlain();
    return true;
  }

  established() {
    const [fromInitiator, fromResponder] = this.handshake.split().map((key) => new Direction(key));
    this.sends = this.initiator ? fromInitiator : fromResponder;
    this.receives = this.initiator ? fromResponder : fromInitiator;
    this.expects = this.frame;
    console.log(`handshake done, channel ${this.handshake.channelId()}`);
  }

  frame() {
    if (this.unread.length < HEADER) return false;
    const length = checkHeader(this.unread.subarray(0, HEADER));
    const frame = this.take(HEADER + length);
    if (!frame) return false;
    const header = frame.subarray(0, HEADER);
    const plaintext = this.receives.open(header, frame.subarray(HEADER));
    this.order.take(header[0]);
    this.act(header[0], plaintext);
    return true;
  }

  act(type, plaintext) {
    if ([TYPE.FIN, TYPE.BYE].includes(type) && plaintext.length) throw new Error("FIN or BYE has contents");
    if (type === TYPE.DATA) this.toPlain(plaintext);
    else if (type === TYPE.FIN) {
      this.gotFin = true;
      if (this.plain) this.plain.end();
      this.closeWhenDone();
    } else if (type === TYPE.OPEN) {
      const attributes = readAttributes(plaintext, true);
      this.wire.setTimeout(0);
      this.opened(attributes[1]?.toString() ?? "", attributes[4]?.readUInt16BE() ?? 0);
    } else if (type === TYPE.ACCEPT) {
      const seconds = readAttributes(plaintext, false)[4]?.readUInt16BE() ?? 0;
      if (seconds && !this.settings.keep) throw new Error("ACCEPT keeps a leg that OPEN did not offer to keep");
      this.kept = Math.min(seconds, this.settings.keep);
      this.accepted = true;
      if (this.number) this.readPlain();
    } else {
      const { code, text } = type === TYPE.BYE ? { code: 0, text: "BYE" } : readReason(plaintext);
      if (type !== TYPE.REJECT && this.untouched()) return this.again();
      this.end(`the peer ended the connection: ${code} ${JSON.stringify(text)}`);
    }
  }

  toPlain(bytes) {
    if (this.ready) throw new Error("DATA on a leg that is made ready");
    if (bytes.length && !this.plain.write(bytes)) {
      this.wire.pause();
      this.plain.once("drain", () => this.wire.resume());
    }
  }

  wireEnded() {
    this.ended = true;
    if (this.untouched()) this.again();
    else if (this.resting) this.end("the peer closed a leg at rest");
    else if (!this.gotFin) this.fail(new Error("the wire leg ended without FIN"));
  }

  // -- kept legs

  open() {
    this.send(TYPE.OPEN, writeKeep(this.settings.keep));
    const plain = this.plain;
    plain.on("error", (error) => this.plain === plain && this.plainFailed(error));
    if (plain.destroyed) this.plainFailed(new Error("the application has left"));
  }

  /** The responder got OPEN. */
  opened(service, seconds) {
    this.begins();
    clearTimeout(this.timer);
    this.kept = Math.min(seconds, this.settings.keep);
    this.ready = service === ":ready" && this.kept > 0;
    if (this.ready) {
      this.send(TYPE.ACCEPT, writeKeep(this.settings.keep));
      this.finished();
    } else if (service.startsWith(":")) this.goodbye(TYPE.REJECT, CODE.unknownService, "a name of the protocol");
    else this.dial();
  }

  /** The connection is over in order, and the leg can carry the next one. */
  rest() {
    const seconds = this.kept;
    this.begins();
    this.resting = true;
    this.plain = null;
    this.number += 1;
    this.order = new Order(!this.initiator, true);
    if (this.initiator) this.order.first = [TYPE.BYE, TYPE.RESET];
    this.sends.atRest = this.receives.atRest = true;
    if (this.number === MOST_CONNECTIONS) return this.lastFrame(TYPE.BYE, NOTHING);
    this.timer = setTimeout(() => this.lastFrame(TYPE.BYE, NOTHING), seconds * 1000);
    if (this.initiator) this.settings.idle.add(this);
    this.wire.resume();
    return console.log("the leg is at rest");
  }

  /** The initiator carries the next connection. Its bytes wait for ACCEPT, so they can go over another leg. */
  next(plain) {
    clearTimeout(this.timer);
    this.settings.idle.delete(this);
    this.begins();
    this.plain = plain;
    this.order = new Order(false, true);
    this.open();
  }

  /** Whether the initiator has sent OPEN of a later connection, and nothing behind it. */
  untouched() {
    return this.initiator && this.number > 0 && !this.resting && !this.accepted && !this.over;
  }

  again() {
    const plain = this.plain;
    this.plain = null;
    this.end("the peer left; the connection goes on over another leg");
    connect(this.settings, plain);
  }

  // -- the plain leg

  dial() {
    this.plain = net.connect({ ...this.settings.target, allowHalfOpen: true });
    const plain = this.plain;
    plain.once("connect", () => {
      if (this.over) return;
      this.accepted = true;
      this.send(TYPE.ACCEPT, writeKeep(this.kept && this.settings.keep));
      this.readPlain();
    });
    plain.on("error", (error) => this.plain === plain && this.plainFailed(error));
  }

  readPlain() {
    const plain = this.plain;
    if (!plain) return;
    plain.on("data", (bytes) => {
      for (let at = 0; at < bytes.length; at += MOST_PLAINTEXT) this.send(TYPE.DATA, bytes.subarray(at, at + MOST_PLAINTEXT));
      if (this.wire.writableNeedDrain) {
        plain.pause();
        this.wire.once("drain", () => plain.resume());
      }
    });
    plain.on("end", () => this.plain === plain && this.finished());
    plain.resume();
  }

  finished() {
    this.send(TYPE.FIN, NOTHING);
    this.sentFin = true;
    this.closeWhenDone();
  }

  plainFailed(error) {
    if (this.over) return;
    if (this.accepted || this.initiator) this.goodbye(TYPE.RESET, CODE.plainReset, error.message);
    else
      this.goodbye(
        TYPE.REJECT,
        { ECONNREFUSED: CODE.refused, ETIMEDOUT: CODE.timedOut }[error.code] ?? CODE.unreachable,
        error.message,
      );
  }

  // -- ends

  send(type, plaintext) {
    if (!this.over) this.wire.write(this.sends.seal(type, plaintext));
  }

  closeWhenDone() {
    if (!this.sentFin || !this.gotFin || this.over) return;
    if (this.kept && !this.ended) return this.rest();
    this.over = true;
    this.wire.end();
    console.log("both directions have ended");
  }

  goodbye(type, code, text) {
    if (this.over) return;
    this.lastFrame(type, writeReason(code, text));
    if (this.plain) this.plain.resetAndDestroy();
    console.log(`ended the connection: ${code} ${text}`);
  }

  /** Send RESET, REJECT or BYE as the last frame; then read and discard for two seconds. */
  lastFrame(type, plaintext) {
    this.send(type, plaintext);
    this.over = true;
    this.leaveIdle();
    this.wire.end();
    this.wire.on("end", () => this.wire.destroy());
    setTimeout(() => this.wire.destroy(), DISCARD_SECONDS * 1000).unref();
    this.wire.resume();
  }

  leaveIdle() {
    clearTimeout(this.timer);
    this.settings.idle.delete(this);
  }

  /** A fault on the wire leg: reset both legs. */
  fail(error) {
    if (this.over) return;
    this.end(error.message);
    this.wire.resetAndDestroy();
  }

  end(why) {
    if (this.over) return;
    this.over = true;
    this.leaveIdle();
    this.wire.end();
    if (this.plain) this.plain.resetAndDestroy();
    console.log(`connection over: ${why}`);
  }
}

function lengthOf(message) {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(message.length);
  return bytes;
}

function address(text) {
  const [, host, port] = text.match(/^\[?(.*?)\]?:(\d+)$/);
  return { host, port: Number(port) };
}

function fileOf32(path) {
  const bytes = Buffer.from(fs.readFileSync(path, "utf-8").trim(), "hex");
  if (bytes.length !== 32) throw new Error(`${path} does not have 64 hex digits`);
  return bytes;
}

/** A new wire leg for an application. */
function connect(settings, socket) {
  const wire = net.connect({ ...settings.target, allowHalfOpen: true, noDelay: true });
  const refused = () => socket.resetAndDestroy();
  wire.once("error", refused);
  wire.once("connect", () => {
    wire.off("error", refused);
    new Leg(settings, wire, socket);
  });
}

function main() {
  const options = Object.fromEntries(
    ["listen", "target", "suite", "private", "peer", "secret", "keep"].map((name) => [name, { type: "string" }]),
  );
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const settings = {
    initiator: positionals[0] === "initiator",
    suite: Number(values.suite),
    target: address(values.target),
    keep: Number(values.keep ?? 0),
    idle: new Set(),
  };
  if (SUITES[settings.suite].secret) settings.psk = fileOf32(values.secret);
  else Object.assign(settings, { pair: keyPair(fileOf32(values.private)), peer: fileOf32(values.peer) });
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: settings.initiator }, (socket) => {
    socket.setNoDelay(true);
    if (!settings.initiator) return new Leg(settings, socket, null);
    socket.on("error", () => {});
    const [idle] = settings.idle;
    return idle ? idle.next(socket) : connect(settings, socket);
  });
  server.listen(address(values.listen), () => console.log("listening"));
}

main();
