"""Our own vectors, tests/vectors/stcp1.json and conformance/vectors.json, which are computed without the product's code."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from stcp_proxy.errors import CounterExhausted, FrameError, FrameNotAuthentic
from stcp_proxy.protocol import noise, symmetric
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import Credentials, Initiator, Responder
from stcp_proxy.protocol.leg import LegOpener
from stcp_proxy.protocol.lifecycle import Phase, follow
from stcp_proxy.protocol.opening import Opening, check_empty, decode_reason, encode_reason, parse_attributes, read_keep
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.suites import KEY_SUITES, PSK_SUITES
from stcp_proxy.protocol.wire import HEADER_LEN, FrameType, Suite

from .fixed import KIT, ONE_ROUND_TRIP, PROJECT, VECTORS, Fixed, pair

Vector = dict[str, Any]


def named(vector: Vector) -> str:
    return str(
        vector.get("name") or vector.get("why") or vector.get("noise_name") or vector.get("content") or vector.get("types")
    )


def h(vector: Vector, key: str) -> bytes:
    return bytes.fromhex(vector[key])


BOTH = {name: VECTORS[name] + KIT[name] for name in ("handshakes", "frames")}
HANDSHAKES = pytest.mark.parametrize("vector", [v for v in BOTH["handshakes"] if v["suite"] in ONE_ROUND_TRIP], ids=named)


def test_the_generator_writes_the_committed_file(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = PROJECT / "tests" / "vectors"
    monkeypatch.syspath_prepend(folder)  # as for a script: its own folder is the first to be searched
    spec = importlib.util.spec_from_file_location("generate_stcp1", folder / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    committed = (folder / "stcp1.json").read_text(encoding="utf-8")
    assert generate.build(generate.encapsulations(committed)) == committed


def sides(vector: Vector) -> tuple[Initiator, Responder]:
    suite = Suite(vector["suite"])
    kem = MLKEM768PrivateKey.from_seed_bytes(h(vector, "kem_seed")) if "kem_seed" in vector else None
    encapsulation = (h(vector, "kem_shared"), h(vector, "kem_ciphertext")) if kem else None
    entropy_i = Fixed(ephemeral=pair(vector["initiator_ephemeral_private"]), kem=kem)
    entropy_r = Fixed(ephemeral=pair(vector["responder_ephemeral_private"]), encapsulation=encapsulation)
    psk = Secret(h(vector, "psk")) if suite in PSK_SUITES else None
    if suite not in KEY_SUITES:
        keys = Credentials(psk=psk)
        return Initiator(suite, keys, entropy=entropy_i), Responder({suite}, keys, entropy=entropy_r)
    s_i, s_r = pair(vector["initiator_static_private"]), pair(vector["responder_static_private"])
    assert (s_i.public, s_r.public) == (h(vector, "initiator_static_public"), h(vector, "responder_static_public"))
    return (
        Initiator(suite, Credentials(static=s_i, psk=psk), remote_static=s_r.public, entropy=entropy_i),
        Responder({suite}, Credentials(static=s_r, psk=psk), allowed={s_i.public}, entropy=entropy_r),
    )


@HANDSHAKES
def test_handshake(vector: Vector) -> None:
    initiator, responder = sides(vector)
    assert initiator.message_1() == h(vector, "message_1")
    answer = responder.receive(h(vector, "message_1"))
    assert answer is not None
    assert answer.reply == h(vector, "message_2")
    established = initiator.receive(h(vector, "message_2"))
    assert established is not None
    for end, mine, other in (
        (established, "key_to_responder", "key_to_initiator"),
        (answer.established, "key_to_initiator", "key_to_responder"),
    ):
        assert end.handshake_hash == h(vector, "handshake_hash")
        assert end.channel_id == vector["channel_id"]
        assert end.send_key == Secret(h(vector, mine))
        assert end.receive_key == Secret(h(vector, other))
        assert end.rest == b""


@HANDSHAKES
@pytest.mark.parametrize("who", ["initiator", "responder"])
def test_every_step_of_the_symmetric_state(vector: Vector, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations, inputs and results, for a third party to compare when its handshake fails."""
    steps: list[tuple[str, bytes, bytes, bytes]] = []
    state_class = symmetric.SymmetricState
    inside = False

    def spy(op: str, method: str, *, opens: bool = False) -> None:
        original = getattr(state_class, method)

        def wrapper(self: symmetric.SymmetricState, data: bytes) -> bytes | None:
            nonlocal inside
            outermost, inside = not inside, True
            try:
                result: bytes | None = original(self, data)
            finally:
                inside = not outermost
            if outermost:
                steps.append((op, (result or b"") if opens else data, self.ck, self.h))
            return result

        monkeypatch.setattr(state_class, method, wrapper)

    spy("mix_hash", "mix_hash")
    spy("mix_key", "mix_key")
    spy("mix_key_and_hash", "mix_key_and_hash")
    spy("encrypt_and_hash", "encrypt_and_hash")
    spy("encrypt_and_hash", "decrypt_and_hash", opens=True)
    initiator, responder = sides(vector)
    steps.clear()
    noise._before_messages.cache_clear()
    # The responder reads its state anew with message 1; the initiator made it above, before anything was noted.
    if who == "initiator":
        initiator, _ = sides(vector)
        initiator.message_1()
        initiator.receive(h(vector, "message_2"))
    else:
        responder.receive(h(vector, "message_1"))
    assert [(op, data.hex()) for op, data, _, _ in steps] == [(step["op"], step["input"]) for step in vector["trace"]]
    for (_, _, ck, digest), step in zip(steps, vector["trace"], strict=True):
        if "h" in step:
            assert digest.hex() == step["h"], step["what"]
        if "ck" in step:
            assert ck.hex() == step["ck"], step["what"]


def content_of(vector: Vector) -> bytes:
    return h(vector, "content") if "content" in vector else h(vector, "content_byte") * vector["content_size"]


FRAMES = pytest.mark.parametrize("vector", BOTH["frames"], ids=named)


@FRAMES
def test_frame_sealed(vector: Vector) -> None:
    sealer = Sealer(Secret(h(vector, "key")), int(vector["counter"]))
    frame = sealer.seal(vector["type"], content_of(vector))
    if "frame" in vector:
        assert frame == h(vector, "frame")
    else:
        assert hashlib.sha256(frame).digest() == h(vector, "frame_sha256")
    assert sealer.counter == int(vector["next_counter"])
    assert sealer.key == Secret(h(vector, "next_key"))


@FRAMES
def test_frame_opened(vector: Vector) -> None:
    key, counter = Secret(h(vector, "key")), int(vector["counter"])
    frame = h(vector, "frame") if "frame" in vector else Sealer(key, counter).seal(vector["type"], content_of(vector))
    opener = LegOpener(key, counter) if vector["type"] == FrameType.BYE else Opener(key, counter)
    assert opener.open(frame + b"behind") == (len(frame), vector["type"], content_of(vector))
    assert opener.counter == int(vector["next_counter"])
    assert opener.key == Secret(h(vector, "next_key"))


@pytest.mark.parametrize("vector", VECTORS["refused_frames"], ids=named)
def test_frame_refused(vector: Vector) -> None:
    opener = Opener(Secret(h(vector, "key")), int(vector["counter"]))
    frame = h(vector, "frame")
    error = {"tag": FrameNotAuthentic, "header": FrameError, "exhausted": CounterExhausted}[vector["why"]]
    with pytest.raises(error) as caught:
        opener.open(frame[:HEADER_LEN] if vector["why"] == "header" else frame)
    assert type(caught.value) is error
    assert opener.counter == int(vector["counter"])


@pytest.mark.parametrize("vector", VECTORS["contents"], ids=named)
def test_content(vector: Vector) -> None:
    content, kind = h(vector, "content"), vector["type"]
    if kind in (FrameType.FIN, FrameType.BYE):
        check_empty(FrameType(kind), content)
    elif kind == FrameType.ACCEPT:
        assert read_keep(parse_attributes(content)) == (
            int(vector["attributes"]["keep"]) if "keep" in vector["attributes"] else None
        )
    elif kind == FrameType.OPEN:
        opening = Opening.decode(content)
        found = {"service": opening.service, "client": opening.client, "original": opening.original, "keep": opening.keep}
        assert {key: str(value) for key, value in found.items() if value is not None} == vector["attributes"]
        assert Opening.decode(opening.encode()) == opening
    else:
        assert decode_reason(content) == (vector["code"], vector["text"])
        assert encode_reason(vector["code"], vector["text"]) == content


@pytest.mark.parametrize("vector", VECTORS["refused_contents"], ids=named)
def test_content_refused(vector: Vector) -> None:
    read: dict[int, Callable[[bytes], object]] = {
        FrameType.OPEN: Opening.decode,
        FrameType.ACCEPT: lambda content: read_keep(parse_attributes(content)),
        FrameType.FIN: lambda content: check_empty(FrameType.FIN, content),
        FrameType.BYE: lambda content: check_empty(FrameType.BYE, content),
        FrameType.REJECT: decode_reason,
        FrameType.RESET: decode_reason,
    }
    with pytest.raises(FrameError):
        read[vector["type"]](h(vector, "content"))


@pytest.mark.parametrize("vector", VECTORS["sequences"], ids=named)
def test_sequence(vector: Vector) -> None:
    phase = Phase.EXPECT_OPEN if vector["side"] == "initiator" else Phase.EXPECT_ACCEPT
    refused_at = None
    for i, kind in enumerate(vector["types"]):
        try:
            phase = follow(phase, FrameType[kind])
        except FrameError:
            refused_at = i
            break
    assert refused_at == vector["refused_at"]
