"use strict";
// The Noise handshakes of suites 2 and 4 (docs/PROTOCOL.md, section 1; Noise Protocol Framework, revision 34).

const crypto = require("node:crypto");

const SUITES = {
  2: {
    name: "Noise_IK_25519_AESGCM_SHA256",
    knowsResponder: true,
    messages: [
      ["e", "es", "s", "ss"],
      ["e", "ee", "se"],
    ],
    lengths: [96, 48],
  },
  4: {
    name: "Noise_NNpsk0_25519_AESGCM_SHA256",
    secret: true,
    messages: [
      ["psk", "e"],
      ["e", "ee"],
    ],
    lengths: [48, 48],
  },
};

const TAG = 16;
const PKCS8 = Buffer.from("302e020100300506032b656e04220420", "hex");
const SPKI = Buffer.from("302a300506032b656e032100", "hex");

/** An X25519 key pair from its 32 private bytes. */
function keyPair(raw) {
  const secret = crypto.createPrivateKey({ key: Buffer.concat([PKCS8, raw]), format: "der", type: "pkcs8" });
  return { secret, bytes: crypto.createPublicKey(secret).export({ format: "der", type: "spki" }).subarray(-32) };
}

/** X25519. Throws when the result is 32 zero bytes. */
function diffieHellman(pair, bytes) {
  const publicKey = crypto.createPublicKey({ key: Buffer.concat([SPKI, bytes]), format: "der", type: "spki" });
  const result = crypto.diffieHellman({ privateKey: pair.secret, publicKey });
  if (result.equals(Buffer.alloc(32))) throw new Error("X25519 gave 32 zero bytes");
  return result;
}

function nonce(n) {
  const bytes = Buffer.alloc(12);
  bytes.writeBigUInt64BE(n, 4);
  return bytes;
}

/** AES-256-GCM: ciphertext and tag. */
function seal(key, n, data, plaintext) {
  const cipher = crypto.createCipheriv("aes-256-gcm", key, nonce(n));
  cipher.setAAD(data);
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** The plaintext. Throws when the tag fails. */
function open(key, n, data, sealed) {
  const cipher = crypto.createDecipheriv("aes-256-gcm", key, nonce(n), { authTagLength: TAG });
  cipher.setAAD(data);
  cipher.setAuthTag(sealed.subarray(-TAG));
  return Buffer.concat([cipher.update(sealed.subarray(0, -TAG)), cipher.final()]);
}

const sha256 = (...parts) => crypto.createHash("sha256").update(Buffer.concat(parts)).digest();

function hkdf(ck, input, count) {
  const hmac = (key, ...parts) => crypto.createHmac("sha256", key).update(Buffer.concat(parts)).digest();
  const temporary = hmac(ck, input);
  const outputs = [];
  let last = Buffer.alloc(0);
  for (let i = 1; i <= count; i++) outputs.push((last = hmac(temporary, last, Buffer.from([i]))));
  return outputs;
}

class Handshake {
  /** `options`: suite, initiator (boolean), pair (own key pair), peer (public key of the responder), psk. */
  constructor({ suite, initiator, pair, peer, psk }) {
    Object.assign(this, { initiator, pair, peer, psk, suite: SUITES[suite], key: null, n: 0n });
    this.ephemeral = keyPair(crypto.randomBytes(32));
    const name = Buffer.from(this.suite.name);
    this.h = name.length <= 32 ? Buffer.concat([name, Buffer.alloc(32 - name.length)]) : sha256(name);
    this.ck = this.h;
    this.mixHash(Buffer.from([...Buffer.from("STCP"), 1, suite]));
    if (this.suite.knowsResponder) this.mixHash(initiator ? peer : pair.bytes);
  }

  mixHash(bytes) {
    this.h = sha256(this.h, bytes);
  }

  mixKey(input) {
    [this.ck, this.key] = hkdf(this.ck, input, 2);
    this.n = 0n;
  }

  mixKeyAndHash(input) {
    const [ck, hash, key] = hkdf(this.ck, input, 3);
    this.ck = ck;
    this.mixHash(hash);
    this.key = key;
    this.n = 0n;
  }

  encryptAndHash(plaintext) {
    const bytes = this.key ? seal(this.key, this.n++, this.h, plaintext) : plaintext;
    this.mixHash(bytes);
    return bytes;
  }

  decryptAndHash(bytes) {
    const plaintext = this.key ? open(this.key, this.n++, this.h, bytes) : bytes;
    this.mixHash(bytes);
    return plaintext;
  }

  mixToken(token) {
    if (token === "psk") return this.mixKeyAndHash(this.psk);
    const ours = this.initiator ? token[0] : token[1];
    const theirs = this.initiator ? token[1] : token[0];
    const pair = ours === "e" ? this.ephemeral : this.pair;
    return this.mixKey(diffieHellman(pair, theirs === "e" ? this.peerEphemeral : this.peer));
  }

  mixEphemeral(bytes) {
    this.mixHash(bytes);
    if (this.suite.secret) this.mixKey(bytes);
  }

  /** Message 1 or 2. */
  write(number) {
    const parts = [];
    for (const token of this.suite.messages[number - 1]) {
      if (token === "e") {
        parts.push(this.ephemeral.bytes);
        this.mixEphemeral(this.ephemeral.bytes);
      } else if (token === "s") parts.push(this.encryptAndHash(this.pair.bytes));
      else this.mixToken(token);
    }
    parts.push(this.encryptAndHash(Buffer.alloc(0)));
    return Buffer.concat(parts);
  }

  /** Read message 1 or 2, whose length was checked. Throws when it is not valid. */
  read(number, message) {
    let at = 0;
    const take = (count) => message.subarray(at, (at += count));
    for (const token of this.suite.messages[number - 1]) {
      if (token === "e") this.mixEphemeral((this.peerEphemeral = take(32)));
      else if (token === "s") this.peer = this.decryptAndHash(take(32 + TAG));
      else this.mixToken(token);
    }
    this.decryptAndHash(message.subarray(at));
  }

  /** The two keys: from the initiator, from the responder. */
  split() {
    return hkdf(this.ck, Buffer.alloc(0), 2);
  }

  channelId() {
    return this.h.subarray(0, 8).toString("hex");
  }
}

module.exports = { SUITES, TAG, Handshake, keyPair, seal, open };
