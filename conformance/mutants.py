#!/usr/bin/env python3
"""Break the example in JavaScript, one rule at a time. The kit has to find each fault.

python mutants.py [NAME ...]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import stcp_conformance.cases  # noqa: E402, F401
from stcp_conformance import config, report  # noqa: E402
from stcp_conformance.registry import CASES  # noqa: E402
from stcp_conformance.run import run  # noqa: E402


@dataclass(frozen=True)
class Mutant:
    """One broken rule.

    Attributes:
        file: the file of the example.
        old: text that stands there exactly once.
        new: what stands there in the mutant.
        case: id of a case that has to fail.
    """

    file: str
    old: str
    new: str
    case: str


NOISE, FRAMES, MAIN = "noise.js", "frames.js", "stcp.js"
MUTANTS = {
    "zero-exchange": Mutant(
        NOISE,
        "const result = crypto.diffieHellman({ privateKey: pair.secret, publicKey });\n"
        '  if (result.equals(Buffer.alloc(32))) throw new Error("X25519 gave 32 zero bytes");\n  return result;',
        "try {\n    return crypto.diffieHellman({ privateKey: pair.secret, publicKey });\n"
        "  } catch {\n    return Buffer.alloc(32);\n  }",
        "responder/suite-2/low-order-ephemeral",
    ),
    "one-ephemeral-key": Mutant(
        NOISE,
        "this.ephemeral = keyPair(crypto.randomBytes(32));",
        "this.ephemeral = keyPair(Buffer.alloc(32, 7));",
        "initiator/suite-2/fresh-ephemeral-keys",
    ),
    "psk-without-mix-key-of-e": Mutant(NOISE, "if (this.suite.secret) this.mixKey(bytes);", "", "responder/suite-4/complete"),
    "tag-unchecked": Mutant(
        NOISE,
        "cipher.update(sealed.subarray(0, -TAG)), cipher.final()]",
        "cipher.update(sealed.subarray(0, -TAG))]",
        "responder/flipped-tag-last",
    ),
    "reserved-unchecked": Mutant(FRAMES, "header[1] !== 0", "false", "initiator/reserved-byte-sealed"),
    "type-unchecked": Mutant(FRAMES, "header[0] > TYPE.BYE", "false", "responder/unknown-type-7"),
    "length-unchecked": Mutant(FRAMES, "length < TAG || length > MOST_SEALED", "length < TAG", "responder/length-65535"),
    "rekey-at-another-number": Mutant(FRAMES, "1n << 20n", "1n << 4n", "responder/frames-in-one-segment"),
    "data-after-fin": Mutant(
        FRAMES, "finished: [TYPE.RESET]", "finished: [TYPE.DATA, TYPE.RESET]", "initiator/empty-data-after-fin"
    ),
    "reset-in-place-of-accept": Mutant(
        FRAMES, "[TYPE.ACCEPT, TYPE.REJECT];", "[TYPE.ACCEPT, TYPE.REJECT, TYPE.DATA];", "initiator/data-in-place-of-accept"
    ),
    "attribute-twice": Mutant(FRAMES, "if (type in found)", "if (false)", "responder/open-with-service-twice"),
    "any-number-of-attributes": Mutant(FRAMES, "++count > MOST_ATTRIBUTES", "false", "responder/open-with-65-attributes"),
    "unknown-attribute-refused": Mutant(FRAMES, "type >= 1 && type <= 4", "type >= 1", "responder/unknown-attribute-128"),
    "any-length": Mutant(MAIN, "this.unread.readUInt16BE() !== length", "false", "responder/suite-2/message-1-length-65535"),
    "any-key": Mutant(MAIN, "!this.handshake.peer.equals(this.settings.peer)", "false", "responder/suite-2/unknown-key"),
    "dials-before-open": Mutant(
        MAIN,
        "this.established();\n    return true;\n  }\n\n  message2",
        "this.established();\n    this.dial();\n    return true;\n  }\n\n  message2",
        "responder/suite-2/nothing-before-the-first-frame",
    ),
    "fin-with-contents": Mutant(
        MAIN,
        "if ([TYPE.FIN, TYPE.BYE].includes(type) && plaintext.length) throw",
        "if (false) throw",
        "initiator/fin-with-a-byte",
    ),
    "truncation-is-an-end": Mutant(
        MAIN,
        'this.fail(new Error("the wire leg ended without FIN"));',
        "this.plain?.end();",
        "responder/end-of-stream-without-fin",
    ),
    "reset-is-an-end": Mutant(
        MAIN,
        "this.wire.end();\n    if (this.plain) this.plain.resetAndDestroy();\n    console.log(`connection over",
        "this.wire.end();\n    if (this.plain) this.plain.end();\n    console.log(`connection over",
        "initiator/reset-of-the-peer",
    ),
    "fin-closes-both": Mutant(
        MAIN,
        "if (this.plain) this.plain.end();\n      this.closeWhenDone();",
        "if (this.plain) this.plain.end();\n      this.wire.end();",
        "responder/fin-of-the-peer",
    ),
    "no-lingering": Mutant(
        MAIN,
        "setTimeout(() => this.wire.destroy(), DISCARD_SECONDS * 1000).unref();",
        "setImmediate(() => this.wire.resetAndDestroy());",
        "responder/lingers-after-reset",
    ),
    "fin-for-a-reset": Mutant(
        MAIN,
        "this.goodbye(TYPE.RESET, CODE.plainReset, error.message);",
        "this.send(TYPE.FIN, NOTHING);",
        "initiator/reset-of-the-plain-leg",
    ),
    "in-the-clear": Mutant(
        MAIN,
        "const message = this.handshake.write(1);",
        'plain.once("data", (bytes) => wire.write(bytes)).resume();\n      const message = this.handshake.write(1);',
        "initiator/nothing-in-the-clear",
    ),
    "no-new-key-for-a-connection": Mutant(
        MAIN, "this.sends.atRest = this.receives.atRest = true;", "", "responder/kept-connections"
    ),
    "new-key-a-turn-later": Mutant(
        MAIN,
        "this.sends.atRest = this.receives.atRest = true;",
        "setImmediate(() => (this.sends.atRest = this.receives.atRest = true));",
        "responder/fin-and-open-in-one-segment",
    ),
    "longer-of-both-times": Mutant(
        MAIN,
        "this.kept = Math.min(seconds, this.settings.keep);\n    this.ready",
        "this.kept = seconds && Math.max(seconds, this.settings.keep);\n    this.ready",
        "responder/idle-for-the-smaller-time",
    ),
    "kept-without-agreement": Mutant(
        MAIN,
        "if (this.kept && !this.ended) return this.rest();",
        "if (!this.ended) return this.rest();",
        "responder/no-agreement",
    ),
    "end-of-stream-loses-the-connection": Mutant(
        MAIN,
        "else if (!this.gotFin) this.fail",
        "else if (!this.gotFin || this.kept) this.fail",
        "responder/end-of-stream-after-fin-on-a-kept-leg",
    ),
    "ready-leg-dials": Mutant(
        MAIN, 'this.ready = service === ":ready" && this.kept > 0;', "this.ready = false;", "responder/ready-leg"
    ),
    "data-on-a-ready-leg": Mutant(
        MAIN,
        'if (this.ready) throw new Error("DATA on a leg that is made ready");',
        "if (this.ready) return;",
        "responder/data-on-a-leg-that-is-made-ready",
    ),
    "bye-is-a-loss": Mutant(
        MAIN,
        "if (type !== TYPE.REJECT && this.untouched())",
        "if (type === TYPE.RESET && this.untouched())",
        "initiator/bye-crosses-open",
    ),
    "again-after-reject": Mutant(
        MAIN, "if (type !== TYPE.REJECT && this.untouched())", "if (this.untouched())", "initiator/reject-of-a-later-connection"
    ),
    "accept-on-an-idle-leg": Mutant(
        MAIN, "if (this.initiator) this.order.first = [TYPE.BYE, TYPE.RESET];", "", "initiator/idle-accept"
    ),
}


def find(name: str, mutant: Mutant, folder: Path) -> str:
    """Run the case against the mutant. Returns what the kit saw; empty when it found nothing."""
    copy = folder / name
    shutil.copytree(HERE / "examples" / "node", copy)
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{name}: the text to replace stands {text.count(mutant.old)} times in {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    cases = [case for case in CASES if case.id == mutant.case]
    implementation = replace(config.read(copy / "conformance.toml"), seconds=2.0)
    (result,) = run(implementation, cases, lambda _: None)
    return result.seen if result.result == report.FAILED else ""


def main() -> int:
    names = sys.argv[1:] or list(MUTANTS)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            seen = find(name, MUTANTS[name], Path(folder))
            missed += not seen
            word, what = ("found", seen.splitlines()[-1]) if seen else ("MISSED", "no fault seen")
            print(f"{word:8} {name:28} {MUTANTS[name].case}: {what}", flush=True)
    print(f"{len(names) - missed} passed, {missed} failed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
