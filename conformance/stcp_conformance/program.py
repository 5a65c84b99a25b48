"""The process of the implementation under test."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from stcp_conformance.config import Implementation
from stcp_conformance.credential import Authority, Leaf
from stcp_conformance.noise import KeyPair

IMPLEMENTATION_NAME, KIT_NAME = "implementation.example", "kit.example"
"""The DNS names in the certificates of suite 5."""


@dataclass
class Secrets:
    """Keys of both sides.

    Attributes:
        implementation: key pair of the implementation.
        kit: key pair of the kit.
        psk: the shared secret.
        authority: the authority that both sides trust.
        implementation_leaf: the implementation's certificate.
    """

    implementation: KeyPair = field(default_factory=KeyPair)
    kit: KeyPair = field(default_factory=KeyPair)
    psk: bytes = field(default_factory=lambda: os.urandom(32))
    authority: Authority = field(default_factory=Authority)

    def __post_init__(self) -> None:
        self.implementation_leaf: Leaf = self.authority.issue(IMPLEMENTATION_NAME)

    def placeholders(self) -> dict[str, str]:
        found = {}
        values = {
            "private": self.implementation.private,
            "public": self.implementation.public,
            "peer_public": self.kit.public,
            "secret": self.psk,
        }
        for name, raw in values.items():
            found[f"{name}_hex"] = raw.hex()
            found[f"{name}_base64"] = base64.b64encode(raw).decode()
        return found | {
            "name": IMPLEMENTATION_NAME,
            "peer_name": KIT_NAME,
            "chain_pem": self.implementation_leaf.pem(),
            "key_pem": self.implementation_leaf.key_pem(),
            "authority_pem": self.authority.pem(),
        }


def fill(text: str, words: dict[str, str]) -> str:
    """Replace {name} by its word. Other braces stay."""
    for name, word in words.items():
        text = text.replace("{" + name + "}", word)
    return text


class Running:
    """The implementation in one role, with one suite; a context manager.

    Args:
        implementation: what its file says.
        role: the role to start.
        suite: the suite to tell it.
        secrets: the keys.
        folder: an empty folder for its files.
        listen_port: the port on which it listens: for wire legs (responder) or applications (initiator).
        target_port: the port that it dials: the application (responder) or the other proxy (initiator).
    """

    def __init__(
        self,
        implementation: Implementation,
        role: str,
        suite: int,
        secrets: Secrets,
        folder: Path,
        *,
        listen_port: int,
        target_port: int,
    ) -> None:
        program = implementation.programs[role]
        words = secrets.placeholders() | {
            "folder": str(folder),
            "here": str(implementation.here),
            "suite": str(suite),
            "listen": f"127.0.0.1:{listen_port}",
            "target": f"127.0.0.1:{target_port}",
        }
        extra = {name: fill(word, words) for name, word in implementation.words.get(suite, {}).items()}
        words = extra | words
        for name, text in program.files.items():
            path = folder / name
            path.touch(0o600)
            path.write_text(fill(fill(text, extra), words), encoding="utf-8")
        self.seconds = 4 * implementation.seconds
        self.port, self.output = listen_port, folder / "output.txt"
        environment = {name: fill(value, words) for name, value in program.environment.items()}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [fill(argument, words) for argument in program.command],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | environment,
                start_new_session=True,
            )

    def wait(self) -> socket.socket:
        """Wait until it accepts connections. Returns the first one.

        Raises:
            RuntimeError: it ended, or does not listen in time.
        """
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.port), 1)
            time.sleep(0.02)
        raise RuntimeError(
            f"the implementation does not listen on port {self.port}:\n{self.output.read_text(errors='replace')[-2000:]}"
        )

    def stop(self) -> None:
        """End it and its children."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
                return
