"use strict";
// Frames, their contents and their order (docs/PROTOCOL.md, sections 2 to 4). Nothing here does I/O.

const { TAG, seal, open } = require("./noise.js");

const TYPE = { DATA: 0, FIN: 1, RESET: 2, OPEN: 3, ACCEPT: 4, REJECT: 5, BYE: 6 };
const HEADER = 4;
const MOST_PLAINTEXT = 65516;
const MOST_SEALED = 65532;
const MOST_REASON = 256;
const MOST_ATTRIBUTES = 64;
const FIRST = [TYPE.OPEN, TYPE.ACCEPT, TYPE.REJECT];
const REKEY_EVERY = 1n << 20n;
const REKEY_NUMBER = 2n ** 64n - 1n;

/** The key and counter of one direction. After a connection of a kept leg, the first frame of the next one takes a new key. */
class Direction {
  constructor(key) {
    this.key = key;
    this.n = 0n;
    this.atRest = false;
  }

  rekey() {
    this.key = seal(this.key, REKEY_NUMBER, Buffer.alloc(0), Buffer.alloc(32)).subarray(0, 32);
  }

  next(type) {
    if (this.n === REKEY_NUMBER) throw new Error("a direction has used its last number");
    if (this.atRest && FIRST.includes(type)) {
      this.rekey();
      this.atRest = false;
    }
    if (this.n > 0n && this.n % REKEY_EVERY === 0n) this.rekey();
    return this.n++;
  }

  seal(type, plaintext) {
    const header = Buffer.alloc(HEADER);
    header[0] = type;
    header.writeUInt16BE(plaintext.length + TAG, 2);
    const n = this.next(type);
    return Buffer.concat([header, seal(this.key, n, header, plaintext)]);
  }

  open(header, sealed) {
    const n = this.next(header[0]);
    return open(this.key, n, header, sealed);
  }
}

/** Length of what follows a header. Throws for a header that no frame has. */
function checkHeader(header) {
  const length = header.readUInt16BE(2);
  if (header[0] > TYPE.BYE) throw new Error(`unknown type ${header[0]}`);
  if (header[1] !== 0) throw new Error("the reserved byte is not 0");
  if (length < TAG || length > MOST_SEALED) throw new Error(`a length of ${length}`);
  return length;
}

/** The order of one incoming direction: which type may come next. `atRest`: the leg has carried a connection before. */
class Order {
  constructor(fromInitiator, atRest = false) {
    this.first = fromInitiator ? [TYPE.OPEN] : [TYPE.ACCEPT, TYPE.REJECT];
    if (atRest) this.first.push(TYPE.BYE, TYPE.RESET);
    this.state = "first";
  }

  take(type) {
    const allowed = { first: this.first, open: [TYPE.DATA, TYPE.FIN, TYPE.RESET], finished: [TYPE.RESET], over: [] }[this.state];
    if (!allowed.includes(type)) throw new Error(`frame of type ${type} is out of place (${this.state})`);
    this.state = type === TYPE.FIN ? "finished" : [TYPE.RESET, TYPE.REJECT, TYPE.BYE].includes(type) ? "over" : "open";
  }
}

/** Parse the attributes of OPEN or ACCEPT. Throws unless they are whole, each known one comes once, and its value is valid. */
function readAttributes(plaintext, isOpen) {
  const found = {};
  let count = 0;
  for (let at = 0; at < plaintext.length;) {
    if (++count > MOST_ATTRIBUTES) throw new Error(`more than ${MOST_ATTRIBUTES} attributes`);
    if (plaintext.length - at < 3) throw new Error("half an attribute");
    const type = plaintext[at];
    const end = at + 3 + plaintext.readUInt16BE(at + 1);
    if (end > plaintext.length) throw new Error("an attribute is longer than its frame");
    const value = plaintext.subarray(at + 3, end);
    if (type >= 1 && type <= 4) {
      if (type in found) throw new Error(`attribute ${type} comes twice`);
      if (isOpen || type === 4) checkAttribute(type, value);
      found[type] = value;
    }
    at = end;
  }
  return found;
}

function checkAttribute(type, value) {
  if (type === 1) {
    if (value.length < 1 || value.length > 255) throw new Error("the length of a service's name");
    new TextDecoder("utf-8", { fatal: true }).decode(value);
  } else if (type === 4) {
    if (value.length !== 2 || value.readUInt16BE() === 0) throw new Error("keep is not 1 to 65535 seconds");
  } else if (!(value[0] === 4 && value.length === 7) && !(value[0] === 6 && value.length === 19))
    throw new Error("an address is not valid");
}

/** Code and text of RESET and REJECT. */
function readReason(plaintext) {
  if (plaintext.length < 2 || plaintext.length > 2 + MOST_REASON) throw new Error("the length of a reason");
  return { code: plaintext.readUInt16BE(), text: plaintext.subarray(2).toString("utf-8") };
}

/** Attribute 4 of OPEN or ACCEPT; nothing for no seconds. */
function writeKeep(seconds) {
  return seconds ? Buffer.from([4, 0, 2, seconds >> 8, seconds & 255]) : Buffer.alloc(0);
}

function writeReason(code, text) {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(code);
  return Buffer.concat([bytes, Buffer.from(text).subarray(0, MOST_REASON)]);
}

module.exports = {
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
};
