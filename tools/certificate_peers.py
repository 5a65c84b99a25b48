"""Many peers by certificate at one listener: its start, its memory for each peer, and its processor time for each handshake.

.venv/bin/python tools/certificate_peers.py --peers 10000

One authority issues a certificate for each peer. Each peer connects once, as a stranger to the listener, then some of them again.
The last lines compare the listener's processor time with that of handshakes by keys (suite 1). Rounds of the four kinds take
turns, and each figure is the median of its rounds: other programs of the machine then disturb all kinds alike.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from stcp_proxy.credentials.binding import make_credential
from stcp_proxy.keys import PrivateKey, format_private_key, write_secret_file
from stcp_proxy.protocol.certified_handshake import CertifiedInitiator, Identity
from stcp_proxy.protocol.established import Answer
from stcp_proxy.protocol.handshake import Credentials, Initiator
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Role, Suite

CertificateKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey
LeafKey: TypeAlias = CertificateKey | X25519PrivateKey
KEYS: dict[str, tuple[Callable[[], CertificateKey], Callable[[], LeafKey]]] = {
    "ed25519": (Ed25519PrivateKey.generate, Ed25519PrivateKey.generate),
    "p256": (lambda: generate_private_key(SECP256R1()), lambda: generate_private_key(SECP256R1())),
    "x25519": (Ed25519PrivateKey.generate, X25519PrivateKey.generate),
}
"""What makes the key of the authority, and of certificates. A key of `x25519` is that of the handshake: no signature binds it."""
DAY = datetime.timedelta(days=1)
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
ROUND = 25
"""Handshakes of one kind before the next kind has its turn."""
KINDS = ("known credential", "known certificate of a peer that has started again", "new certificate")
WARM = 300
"""Handshakes before the first figure: they fill caches that do not grow with the number of peers."""


class Authority:
    """Issues certificates.

    Args:
        keys: an entry of `KEYS`.
    """

    def __init__(self, keys: str = "ed25519") -> None:
        make_key, self.make_leaf_key = KEYS[keys]
        self.key = make_key()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet")])
        self.root = self._sign(self.name, self.key, ca=True)

    def _sign(self, subject: x509.Name, key: LeafKey, *, ca: bool = False, name: str = "") -> x509.Certificate:
        now, serial = datetime.datetime.now(datetime.UTC), x509.random_serial_number()
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), serial, now - DAY, now + 30 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        if name:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        return builder.sign(self.key, None if isinstance(self.key, Ed25519PrivateKey) else SHA256())

    def issue(self, name: str) -> tuple[bytes, LeafKey]:
        """A certificate (DER) and its key."""
        key = self.make_leaf_key()
        return self._sign(x509.Name([]), key, name=name).public_bytes(Encoding.DER), key

    def peer(self, number: int, issued: tuple[bytes, LeafKey] | None = None) -> Identity:
        """What one peer presents, by a certificate that was issued before or by a new one."""
        der, key = issued or self.issue(f"app-{number}.prod.internal")
        static = KeyPair(key if isinstance(key, X25519PrivateKey) else Secret(os.urandom(32)))
        signing = None if isinstance(key, X25519PrivateKey) else key
        end = int(time.time()) + 86400
        return Identity(static, make_credential((der,), signing, role=Role.INITIATOR, static=static.public, not_after=end))


class Listener:
    """The listener under test, a process of its own."""

    def __init__(self, folder: Path, authority: Authority, client: PrivateKey) -> None:
        der, key = authority.issue("db.prod.internal")
        self.own = PrivateKey.generate()
        write_secret_file(folder / "host.key", format_private_key(self.own) + "\n")
        write_secret_file(folder / "tls.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
        (folder / "tls.crt").write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
        (folder / "ca.crt").write_bytes(authority.root.public_bytes(Encoding.PEM))
        tunnel = {
            "mode": "listen",
            "bind": "127.0.0.1:0",
            "to": "127.0.0.1:1",
            "allow": ["dns:*.prod.internal", str(client.public)],
        }
        config = {
            "identity": "host.key", "certificate": {"chain": "tls.crt", "key": "tls.key"}, "authorities": {"prod": "ca.crt"},
            "log": {"quiet": ["handshake-errors"]}, "tunnels": {"in": tunnel},
        }  # fmt: skip
        (folder / "c.yaml").write_text(json.dumps(config))
        began = time.monotonic()
        command = [sys.executable, "-m", "stcp_proxy", "run", str(folder / "c.yaml")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.address = self._wait_until_ready()
        self.start = time.monotonic() - began
        self.start_cost = self._seconds(*range(11, 15))

    def _wait_until_ready(self) -> tuple[str, int]:
        assert self.process.stderr is not None
        address = ""
        for line in self.process.stderr:
            said: dict[str, Any] = json.loads(line)
            address = said["address"] if said["event"] == "listening" else address
            if said["event"] == "ready":
                host, _, port = address.rpartition(":")
                return host, int(port)
        raise SystemExit("the listener did not start")

    @property
    def memory(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE

    @property
    def processor_time(self) -> float:
        """Seconds of processor time so far, of all threads."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def _seconds(self, *columns: int) -> float:
        """The sum of columns of /proc/PID/stat, counted from the name: 11 and 12 are its own time, 13 and 14 its children's."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(fields[column]) for column in columns) / TICKS

    def cost(self, handshake: Callable[[int], None], numbers: Iterable[int]) -> float:
        """Processor time of one handshake in seconds, the mean of one for each number."""
        before, count = self.processor_time, 0
        for number in numbers:
            handshake(number)
            count += 1
        return (self.processor_time - before) / count


def meet(address: tuple[str, int], initiator: Initiator | CertifiedInitiator) -> None:
    """Complete one handshake, and end the connection in order before its first frame."""
    with socket.create_connection(address, timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(initiator.message_1())
        while (answer := initiator.receive(sock.recv(65536))) is None:
            pass
        if isinstance(answer, Answer):
            sock.sendall(answer.reply)
        sock.shutdown(socket.SHUT_WR)
        if sock.recv(1):
            raise SystemExit("the listener sent what nobody had asked for")


def main() -> None:
    """Measure, and print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peers", type=int, default=10_000, help="peers with certificates [default: 10000]")
    parser.add_argument("--again", type=int, default=2_000, help="handshakes of each kind whose cost is measured [default: 2000]")
    parser.add_argument("--keys", choices=KEYS, default="ed25519", help="kind of all certificates' keys [default: ed25519]")
    args = parser.parse_args()
    authority, client = Authority(args.keys), PrivateKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        listener = Listener(Path(folder), authority, client)
        try:
            measure(listener, authority, client, peers=args.peers, again=args.again)
        finally:
            listener.process.terminate()
            listener.process.wait()


def measure(listener: Listener, authority: Authority, client: PrivateKey, *, peers: int, again: int) -> None:
    """Print the figures of a listener that has just started."""

    def certified(identity: Identity) -> None:
        meet(listener.address, CertifiedInitiator(identity, verify=lambda credential, static: credential))

    def keyed(_: int) -> None:
        pair, remote = KeyPair(client.secret), listener.own.public.raw
        meet(listener.address, Initiator(Suite.HYBRID_KEYS, Credentials(pair), remote_static=remote))

    print(f"start: {listener.start:.2f} s, of which processor time {listener.start_cost:.2f} s")
    warm = authority.peer(peers)
    for number in range(WARM):
        certified(warm)
        keyed(number)
    issued = [authority.issue(f"app-{number}.prod.internal") for number in range(peers)]
    identities = [authority.peer(number, each) for number, each in enumerate(issued)]
    started_again = [authority.peer(number, each) for number, each in enumerate(issued[:again])]
    before = listener.memory
    for number in range(again, peers):
        certified(identities[number])
    rounds = [range(at, min(at + ROUND, again, peers)) for at in range(0, min(again, peers), ROUND)]
    costs = []
    for numbers in rounds:
        new = listener.cost(lambda number: certified(identities[number]), numbers)
        known = listener.cost(lambda number: certified(identities[number]), numbers)
        renewed = listener.cost(lambda number: certified(started_again[number]), numbers)
        costs.append((listener.cost(keyed, numbers), known, renewed, new))
    print(f"memory for each of {peers} peers: {(listener.memory - before) / peers:.0f} bytes")
    by_key, *others = (statistics.median(column) for column in zip(*costs, strict=True))
    print(f"processor time of a handshake: by key {by_key * 1e6:.0f} us")
    for place, (kind, cost) in enumerate(zip(KINDS, others, strict=True), start=1):
        ratio = statistics.median(row[place] / row[0] for row in costs)
        print(f"by a {kind} {cost * 1e6:.0f} us, {ratio:.2f} of it")


if __name__ == "__main__":
    main()
