"""A mistake that a user of other tools makes: the sentence fits the place, and nothing secret is repeated."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest

from stcp_proxy import keys
from stcp_proxy.config import ConfigProblems, Mode, Plan, load_plan, plan_from_flags
from stcp_proxy.config.certificate_plan import AuthorityPlan, Encoded, Facts, Revoked, Trusted
from stcp_proxy.config.example_keys import EXAMPLES, refuse_examples
from stcp_proxy.errors import ConfigError
from stcp_proxy.process.reload import compared
from stcp_proxy.protocol.secret import Secret

ROOT = Path(__file__).parents[3]


def refused(folder: Path, text: str) -> str:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    return str(caught.value).replace(f"{path}:", "")


TUNNEL = "tunnels:\n  a: {mode: listen, bind: '127.0.0.1:1', to: '%s', psk: '%s'}\n"


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("http://web.internal:8080/x?y", "tunnels.a.to: this is a URL, and an address belongs here; write web.internal:8080"),
        ("postgres://me:hunter2@db/base", "tunnels.a.to: this is a URL, and an address belongs here; write db:PORT"),
        ("${DB}:5432", "tunnels.a.to: variables like ${NAME} are not replaced here; write the value itself"),
        ("$DB:5432", "tunnels.a.to: variables like ${NAME} are not replaced here"),
    ],
)
def test_addresses(tmp_path: Path, to: str, says: str) -> None:
    keys.write_secret_file(tmp_path / "a.psk", keys.format_psk(keys.generate_psk()))
    found = refused(tmp_path, TUNNEL % (to, "a.psk"))
    assert says in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("~/a.psk", "'~' is not replaced here; write the whole path"),
        ("${HOME}/a.psk", "variables like ${NAME} are not replaced here"),
    ],
)
def test_file_names(tmp_path: Path, file: str, says: str) -> None:
    """Not 'make one with keygen', which would fail for the same reason."""
    assert says in refused(tmp_path, TUNNEL % ("127.0.0.1:2", file))


def test_a_variable_where_a_number_belongs(tmp_path: Path) -> None:
    found = refused(tmp_path, "workers: ${N}\n" + TUNNEL % ("127.0.0.1:2", "a.psk"))
    assert found.startswith("1: workers: variables like ${NAME} are not replaced here")


def test_an_unclosed_quote_is_where_it_opens(tmp_path: Path) -> None:
    found = refused(tmp_path, "drain: 5s\nidentity: 'host.key\ntunnels:\n  a: {mode: listen}\n")
    assert found.startswith("2: this is not YAML: a quote is not closed; close it")


@pytest.mark.parametrize("quote", ["'", '"'])
def test_an_unclosed_quote_that_takes_a_later_one_for_its_end(tmp_path: Path, quote: str) -> None:
    found = refused(tmp_path, f"drain: 5s\nidentity: {quote}host.key\ntunnels:\n  a: {{mode: listen, bind: {quote}:1{quote}}}\n")
    assert found.startswith("2: this is not YAML: the quote that begins here ends in a later line; close it in the same line")


def test_a_letter_that_looks_alike(tmp_path: Path) -> None:
    found = refused(tmp_path, "dr\u0430in: 5s\n" + TUNNEL % ("127.0.0.1:2", "a.psk"))
    assert found.endswith("there is no such key; type it again: it has a letter that only looks like a Latin one")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"admin_token": "a.token"}, "--admin-token: a token is set, and no admin address uses it; set --admin, or"),
        (
            {"admin": "0.0.0.0:9"},
            "--admin: 0.0.0.0:9 can be reached from other machines, and no token protects it; set --admin-to",
        ),
    ],
)
def test_words_of_the_command_line(tmp_path: Path, flags: dict[str, str], says: str) -> None:
    keys.write_secret_file(tmp_path / "a.psk", keys.format_psk(keys.generate_psk()))
    with pytest.raises(ConfigProblems) as caught:
        plan_from_flags(mode=Mode.LISTEN, bind="127.0.0.1:1", to=["127.0.0.1:2"], psk=tmp_path / "a.psk", **flags)
    assert str(caught.value).startswith(says)


def test_peer_of_a_flag(tmp_path: Path) -> None:
    """A command line has no names for peers."""
    with pytest.raises(ConfigProblems, match=r"--peer: 'db-host' is no public key; give what 'stcp-proxy pubkey FILE' prints"):
        plan_from_flags(mode=Mode.CONNECT, bind="127.0.0.1:1", to=["127.0.0.1:2"], peer="db-host", key=tmp_path / "no.key")


# -- example keys --------------------------------------------------------------------------------------------------------------


def test_every_example_key_is_known() -> None:
    text = "".join(path.read_text() for folder in ("configs", "docs") for path in (ROOT / folder).rglob("*.*") if _is_text(path))
    assert set(re.findall(r"stcp-pub:[A-Za-z0-9+/]{43}=", text + (ROOT / "README.md").read_text())) == EXAMPLES


def _is_text(path: Path) -> bool:
    return path.suffix in (".md", ".yaml", ".service", ".conf", ".json", ".pub")


def test_example_keys_are_refused() -> None:
    example = keys.PublicKey.parse(min(EXAMPLES))
    with pytest.raises(ConfigError, match=f"still names keys of the documentation's examples: {re.escape(str(example))}"):
        refuse_examples(Plan((), known=frozenset({example})))
    refuse_examples(Plan((), known=frozenset({keys.PrivateKey.generate().public})))


# -- a file cut off ------------------------------------------------------------------------------------------------------------


def tunnels(folder: Path, count: int, end: str = "") -> Plan:
    lines = (f"  t{number}: {{mode: listen, bind: '127.0.0.1:{number + 1}', to: '127.0.0.1:999'}}\n" for number in range(count))
    path = folder / "c.yaml"
    path.write_text("psk: a.psk\ntunnels:\n" + "".join(lines) + end)
    return load_plan(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.write_secret_file(tmp_path / "a.psk", keys.format_psk(keys.generate_psk()))
    return tmp_path


@pytest.mark.parametrize(("before", "after"), [(3, 1), (5, 2), (100, 49)])
def test_a_reload_that_takes_more_than_half_of_the_tunnels(folder: Path, before: int, after: int) -> None:
    old, new = tunnels(folder, before), tunnels(folder, after)
    with pytest.raises(ConfigError, match=rf"has {after} of {before} tunnels left, as if it had been cut off; .*'\.\.\.'"):
        compared(old, new)
    assert compared(new, old).added
    for end in ("...\n", "...", "...\n\n"):
        whole = tunnels(folder, after, end)
        assert whole == new  # the mark is no setting
        assert len(compared(old, whole).removed) == before - after


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 1), (3, 2), (4, 2), (1, 4)])
def test_a_reload_that_leaves_half_of_them(folder: Path, before: int, after: int) -> None:
    compared(tunnels(folder, before), tunnels(folder, after))


def test_renaming_all_is_no_cut(folder: Path) -> None:
    old = tunnels(folder, 4)
    renamed = tuple(dataclasses.replace(tunnel, name=f"{tunnel.name}x") for tunnel in old.tunnels)
    assert len(compared(old, dataclasses.replace(old, tunnels=renamed)).added) == 4


# -- peers of a directory that are gone ------------------------------------------------------------------------------------------


def included(folder: Path, *names: str) -> Plan:
    """A plan with these peers in its directory; the same name has the same key, "x=y" is x with the key of y."""
    plan = tunnels(folder, 1)
    peers = {}
    for name in names:
        shown, _, whose = name.partition("=")
        peers[keys.PrivateKey(Secret(hashlib.sha256((whose or shown).encode()).digest())).public] = shown
    return dataclasses.replace(plan, included=peers, known=frozenset(peers) | plan.known)


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [("a b c", "a", 1), ("a", "b", 0), ("a b c d e", "a b", 2), ("a b c", "a x y z", 1), ("a b c", "", 0)],
)
def test_more_than_half_of_the_peers_gone_is_refused(folder: Path, before: str, after: str, kept: int) -> None:
    old, new = included(folder, *before.split()), included(folder, *after.split())
    with pytest.raises(ConfigError, match=rf"have {kept} of {len(before.split())} peers left, .*'stcp-proxy reload --force'"):
        compared(old, new)
    assert compared(old, new, force=True).empty


@pytest.mark.parametrize(
    ("before", "after"), [("a b", "a"), ("a b c d", "a b"), ("a", "a=new"), ("a", "new=a"), ("", "a"), ("a b c", "a=x b=y z=c")]
)
def test_half_of_the_peers_may_go_and_all_may_have_other_keys_or_names(folder: Path, before: str, after: str) -> None:
    compared(included(folder, *before.split()), included(folder, *after.split()))


# -- authorities that are gone ------------------------------------------------------------------------------------------------


def trusting(folder: Path, **authorities: str) -> Plan:
    """A plan with these authorities; each letter is a certificate."""
    facts = Facts("an authority", "1", 0.0, 1.0)
    found = [
        AuthorityPlan(name, tuple(Encoded(root.encode(), facts) for root in roots), (), ()) for name, roots in authorities.items()
    ]
    return dataclasses.replace(tunnels(folder, 1), trusted=Trusted(tuple(found)))


def test_more_than_half_of_the_authorities_gone_is_refused(folder: Path) -> None:
    for old, new in [({"a": "x"}, {"a": "y"}), ({"a": "x", "b": "y", "c": "z"}, {"b": "y"}), ({"a": "xyz"}, {"a": "zuv"})]:
        with pytest.raises(ConfigError, match=r"of \d certificates of authorities are left, .*'stcp-proxy reload --force'"):
            compared(trusting(folder, **old), trusting(folder, **new))
        compared(trusting(folder, **old), trusting(folder, **new), force=True)


def revoking(folder: Path, keys: str, serials: str = "", authorities: str = "a") -> Plan:
    """A plan in which each letter of `keys` is a revoked key, and each of `serials` a serial number of authority `a`."""
    revoked = Revoked(tuple(key.encode() for key in keys), tuple(("a", ord(each)) for each in serials))
    trusted = dataclasses.replace(trusting(folder, **dict.fromkeys(authorities, "x")).trusted, revoked=revoked)
    return dataclasses.replace(tunnels(folder, 1), trusted=trusted)


@pytest.mark.parametrize(
    ("before", "after"), [(("x",), ("",)), (("xyz",), ("x",)), (("", "12"), ("", "")), (("xy", "12"), ("x",)), (("x",), ("y",))]
)
def test_a_file_of_revocations_that_lost_more_than_half_is_refused(
    folder: Path, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    """It may be half written, and everybody who is left out of it would be admitted again."""
    with pytest.raises(ConfigError, match=r"'revoked' has \d of \d entries left"):
        compared(revoking(folder, *before), revoking(folder, *after))
    compared(revoking(folder, *before), revoking(folder, *after), force=True)


def test_revocations_may_grow_lose_half_or_end_with_their_authority(folder: Path) -> None:
    compared(revoking(folder, "xy"), revoking(folder, "xyz", "1"))
    compared(revoking(folder, "xy"), revoking(folder, "x"))
    compared(revoking(folder, "", "12", "ab"), revoking(folder, "", "", "b"))


def test_an_authority_is_exchanged_with_both_for_a_while(folder: Path) -> None:
    old, both, new = trusting(folder, a="x"), trusting(folder, a="xy"), trusting(folder, b="y")
    compared(old, both)
    compared(both, new)
