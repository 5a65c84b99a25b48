"""Each mistake in a file is named with its place, and no message repeats a secret."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stcp_proxy.config import ConfigProblems, Plan
from stcp_proxy.errors import ConfigError

from .plan_files import CONNECT, HEAD, LISTEN, SECRET, problems


@pytest.mark.parametrize(
    ("text", "says"),
    [
        # shape
        ("colour: x\n" + HEAD + LISTEN % "", "1: colour: there is no such key; known here: identity, "),
        ("identiy: x\n" + HEAD + LISTEN % "", "1: identiy: there is no such key; did you mean 'identity'?"),
        (
            HEAD + LISTEN % ", handshake-timeout: 5",
            "4: tunnels.in.handshake-timeout: there is no such key; did you mean",
        ),
        (HEAD + LISTEN % ", interrupt: never", "4: tunnels.in.interrupt: there is no such key"),
        ("log: {levle: info}\n" + HEAD + LISTEN % "", "1: log.levle: there is no such key; did you mean 'level'?"),
        ("identity: host.key\n", "1: tunnels: 'tunnels' is missing"),
        ("tunnels:\n", "1: tunnels: 'tunnels' is missing"),
        ("tunnels: {}\n", "1: tunnels: this is empty"),
        ("tunnels: {a: 5}\n", "1: tunnels.a: a mapping belongs here"),
        ("tunnels:\n  'a b': {mode: connect, bind: :1, to: :2, peer: x}\n", "2: tunnels.'a b': 'a b' is not a name"),
        (
            HEAD + "  in: {mode: listen, to: :1, allow: app-host}\n",
            "4: tunnels.in.bind: 'bind' is missing; name the address to accept",
        ),
        (
            HEAD + "  in: {mode: lisen, bind: :2, to: :1, allow: app-host}\n",
            "4: tunnels.in.mode: 'listen' or 'connect'",
        ),
        (HEAD + LISTEN % ", engine: turbo", "tunnels.in.engine: 'auto', 'kernel' or 'python' belongs here"),
        (HEAD + LISTEN % ", suite: best", "tunnels.in.suite: 'hybrid' or 'classic' belongs here"),
        (HEAD + LISTEN % ", suite: [hybrid, best]", "tunnels.in.suite[1]: 'hybrid' or 'classic' belongs here"),
        (HEAD + LISTEN % ", suite: []", "tunnels.in.suite: this is empty"),
        (HEAD + LISTEN % ", max_connections: 0", "tunnels.in.max_connections: a whole number"),
        (HEAD + LISTEN % ", max_connections: '5'", "tunnels.in.max_connections: a whole number"),
        (HEAD + LISTEN % ", max_connections: true", "tunnels.in.max_connections: a whole number"),
        (HEAD + LISTEN % ", max_handshakes: 1.5", "tunnels.in.max_handshakes: a whole number"),
        (HEAD + LISTEN % ", idle_timeout: 5 parsecs", "tunnels.in.idle_timeout: '5 parsecs' is not a time"),
        (HEAD + LISTEN % ", dial_timeout: 0", "tunnels.in.dial_timeout: this time must be more than zero"),
        ("drain: -1\n" + HEAD + LISTEN % "", "1: drain: -1 is not a time"),
        # addresses
        (
            HEAD + "  in: {mode: listen, bind: 7443, to: :1, allow: app-host}\n",
            "bind: an address belongs here; write ':7443', or",
        ),
        (
            HEAD + "  in: {mode: listen, bind: :1, to: [db:1, db2:70000], allow: app-host}\n",
            "tunnels.in.to[1]: the port of",
        ),
        (HEAD + "  in: {mode: listen, bind: :1, to: db, allow: app-host}\n", "tunnels.in.to: 'db' has no port"),
        (HEAD + "  in: {mode: listen, bind: :1, to: [], allow: app-host}\n", "tunnels.in.to: this is empty"),
        (
            HEAD + "  in: {mode: listen, bind: :1, to: unix:/no/x.sock, allow: app-host}\n",
            "tunnels.in.to: the folder /no",
        ),
        (
            HEAD + "  in: {mode: listen, bind: unix:/no/x.sock, to: :1, allow: app-host}\n",
            "tunnels.in.bind: the folder /no",
        ),
        (
            HEAD + f"  in: {{mode: listen, bind: unix:/{'x' * 107}, to: :1, allow: app-host}}\n",
            "tunnels.in.bind: the unix",
        ),
        (
            HEAD + "  in: {mode: listen, bind: :80, to: 127.0.0.5:80, allow: app-host}\n",
            "tunnels.in.to: 127.0.0.5:80 is",
        ),
        (
            HEAD + LISTEN % "" + LISTEN.replace("in:", "in2:").replace(" :7443", " 127.0.0.1:7443") % "",
            "5: tunnels.in2.bind: 12",
        ),
        (HEAD + LISTEN % ", balance: random", "tunnels.in.balance: 'failover', 'round-robin' or 'least-connections' belongs"),
        (HEAD + LISTEN.replace(":6379", "srv:db.example") % "", "tunnels.in.to: srv:db.example does not name SRV records"),
        (HEAD + LISTEN.replace(":7443", "'srv:_a._tcp.b'") % "", "tunnels.in.bind: the port of 'srv:_a._tcp.b' is not"),
        (
            HEAD + LISTEN % ", health: {intervall: 5s}",
            "in.health.intervall: there is no such key; did you mean 'interval'",
        ),
        (HEAD + LISTEN % ", keep: {idle: 500ms}", "tunnels.in.keep.idle: a wire leg is kept for 1 to 65535 seconds"),
        (HEAD + LISTEN % ", keep: {ready: 2}", "tunnels.in.keep.ready: a listen tunnel makes no wire legs"),
        (HEAD + CONNECT % ", keep: {ready: 9, legs: 8}", "tunnels.out.keep.ready: at most 8 wire legs wait in this tunnel"),
        (HEAD + LISTEN % ", health: {interval: 0}", "tunnels.in.health.interval: this time must be more than zero"),
        ("dns: {server: 1.1.1.1}\n" + HEAD + LISTEN % "", "1: dns.server: there is no such key; did you mean 'servers'?"),
        ("dns: {servers: dns.test}\n" + HEAD + LISTEN % "", "1: dns.servers: 'dns.test' is no IP address"),
        ("dns: {ttl: x}\n" + HEAD + LISTEN % "", "1: dns.ttl: 'x' is not a time"),
        ("dns: 5s\n" + HEAD + LISTEN % "", "1: dns: a mapping belongs here"),
        # keys and rules
        (
            HEAD + "  in: {mode: listen, bind: :1, to: :2}\n",
            "4: tunnels.in.allow: neither 'allow' nor 'psk' is given",
        ),
        (HEAD + "  in: {mode: connect, bind: :1, to: :2}\n", "4: tunnels.in.peer: neither 'peer' nor 'psk' is given"),
        (HEAD + "  in: {mode: listen, bind: :1, to: :2, allow: []}\n", "tunnels.in.allow: this is empty"),
        (HEAD + LISTEN % ", psk: no.psk", "tunnels.in.psk: the key file"),
        (HEAD + LISTEN % ", psk: shared.psk, suite: classic", "in.suite: a shared secret beside keys needs the hybrid"),
        ("suite: classic\n" + HEAD + CONNECT % ", psk: shared.psk", "1: suite: a shared secret beside keys needs the hybrid"),
        (HEAD + LISTEN % ", peer: db-host", "tunnels.in.peer: a listen tunnel has no 'peer'; use 'allow'"),
        (HEAD + CONNECT % ", allow: db-host", "tunnels.out.allow: a connect tunnel has no 'allow'; use 'peer'"),
        (HEAD + CONNECT.replace("db-host", "[db-host]") % "", "tunnels.out.peer: a connect tunnel has one peer"),
        (HEAD + CONNECT % ", suite: [hybrid, classic]", "tunnels.out.suite: a connect tunnel sends exactly one suite"),
        ("suite: [hybrid, classic]\n" + HEAD + CONNECT % "", "1: suite: a connect tunnel sends exactly one suite"),
        (
            HEAD + CONNECT.replace("db-host", "db-hots") % "",
            "tunnels.out.peer: 'db-hots' is not in 'peers'; did you mean 'db",
        ),
        (HEAD + LISTEN.replace("app-host", "[app-host, x]") % "", "tunnels.in.allow[1]: 'x' is not in 'peers'; add it there"),
        (HEAD + LISTEN.replace("app-host", "$OURS") % "", "tunnels.in.allow: this is this side's own public key"),
        (HEAD.replace("$DB", "$OURS") + CONNECT % "", "tunnels.out.peer: this is this side's own public key"),
        (HEAD.replace("$DB", "$APP") + CONNECT % "", "2: peers.app-host: 'db-host' has the same key"),
        (HEAD.replace("$DB", "stcp-pub:AAAA") + CONNECT % "", "2: peers.db-host: a public key is 'stcp-pub:' and 32 bytes"),
        (HEAD.replace("identity: host.key", "") + CONNECT % "", "identity: a private key of this side's own is needed"),
        (HEAD.replace("host.key", "no.key") + CONNECT % "", "1: identity: the key file "),
        (
            HEAD.replace("host.key", "shared.psk") + CONNECT % "",
            "shared.psk: this is a shared secret",
        ),
        (
            "tunnels:\n  in: {mode: listen, bind: :1, to: :2, psk: host.key}\n",
            "this is a private key, where",
        ),
        (
            HEAD + "  in: {mode: listen, bind: :1, to: :2, psk: shared.psk, identity: host.key}\n",
            "tunnels.in.identity: ",
        ),
        ("identity: 5\n" + LISTEN.replace("  in", "tunnels:\n  in") % "", "1: identity: text belongs here"),
    ],
)
def test_refused(load: Callable[[str], Plan], text: str, says: str) -> None:
    found = problems(load, text)
    assert len(found) == 1, found
    assert says in found[0]


def test_all_mistakes_are_listed(load: Callable[[str], Plan]) -> None:
    assert len(problems(load, HEAD + LISTEN % ", turbo: 1, max_connections: x" + "  b: {mode: x, bind: y}\nz: 1\n")) == 5
    text = HEAD.replace("host.key", "no.key") + LISTEN % "" + CONNECT % "" + "  x: {mode: listen, bind: :7443, to: unix:/no/x}\n"
    found = problems(load, text)
    assert len(found) == 4, found  # the key file once, the folder, the rule, the port taken
    with pytest.raises(ConfigProblems, match=r"^4 mistakes in .*c\.yaml\n  .*c\.yaml:1: identity"):
        load(text)


@pytest.mark.parametrize(
    "text",
    [
        f"identity: {SECRET}\ntunnels: {{}}\n",
        f"tunnels:\n  in: {{mode: listen, bind: :1, to: :2, psk: {SECRET}}}\n",
        f"peers: {{a: '{SECRET}'}}\ntunnels: {{}}\n",
        f"peers: {{'{SECRET}': a}}\ntunnels: {{}}\n",
        f"'{SECRET}': a\ntunnels: {{}}\n",
        HEAD + f"  in: {{mode: listen, bind: :1, to: :2, allow: '{SECRET}'}}\n",
        HEAD + f"  in: {{mode: listen, bind: :1, to: :2, allow: '{SECRET[9:]}'}}\n",
        HEAD + f"  in: {{mode: listen, bind: :1, to: :2, allow: '{SECRET[9:-1]}'}}\n",
        HEAD + f"  in: {{mode: listen, bind: '{SECRET}', to: '{SECRET[9:]}:5', idle_timeout: '{SECRET}', engine: '{SECRET}'}}\n",
        HEAD + f"  in: {{mode: '{SECRET}', max_connections: '{SECRET}', '{SECRET}': 1}}\n",
        HEAD + f"  '{SECRET}': {{}}\n",
        f"a: *{SECRET.replace(':', '').rstrip('=')}\n",
    ],
)
def test_no_message_repeats_a_secret(load: Callable[[str], Plan], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert SECRET[12:24] not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_file_of_somebody_else_is_named_with_its_place(load: Callable[[str], Plan], folder: Path) -> None:
    os.chown(folder / "host.key", 12345, -1)
    assert "belongs to user 12345" in problems(load, HEAD + LISTEN % "")[0]
