"""Peers of a file and of peer directories: names, groups, and every mistake in a directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy import keys
from stcp_proxy.config import ConfigProblems, KeyAuth, Plan
from stcp_proxy.config.inputs import changed, digest
from stcp_proxy.config.peers import read_peer_file
from stcp_proxy.config.value_types import NAME
from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import PublicKey

from .plan_files import APP, DB

Load = Callable[[str], Plan]

FILE = """\
identity: host.key
peers: {include: peers.d/, db-host: $DB}
tunnels:
  in: {mode: listen, bind: :7443, to: :6379, allow: %s}
"""


def key() -> PublicKey:
    return keys.PrivateKey.generate().public


@pytest.fixture
def peers(folder: Path) -> Callable[..., PublicKey]:
    """Write NAME.pub into the peer directory, with a new key. Returns the key."""

    def write(name: str, groups: str = "", *, text: str | None = None, where: str = "peers.d") -> PublicKey:
        (folder / where).mkdir(exist_ok=True)
        made = key()
        line = f"# groups: {groups}\n" if groups else ""
        (folder / where / f"{name}.pub").write_text(f"# a peer\n{line}{made}\n" if text is None else text)
        return made

    return write


def allowed(load: Load, allow: str) -> dict[PublicKey, str]:
    (tunnel,) = load(FILE % allow).tunnels
    assert isinstance(tunnel.auth, KeyAuth)
    return dict(tunnel.auth.peers)


def mistakes(load: Load, allow: str = "db-host") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(FILE % allow)
    assert isinstance(caught.value, ConfigProblems)
    return [str(finding) for finding in caught.value.findings]


def test_names_and_groups_stand_side_by_side(load: Load, peers: Callable[..., PublicKey]) -> None:
    web, job, old = peers("web-1", "apps, prod"), peers("job.7", "prod"), peers("old_1")
    assert allowed(load, '"@apps"') == {web: "web-1"}
    assert allowed(load, '["@prod", db-host]') == {job: "job.7", web: "web-1", DB: "db-host"}
    assert allowed(load, '["@apps", "@prod", web-1]') == {web: "web-1", job: "job.7"}
    plan = load(FILE % "[old_1, $APP]")
    assert allowed(load, "[old_1, $APP]")[old] == "old_1"
    assert plan.included == {web: "web-1", job: "job.7", old: "old_1"}
    assert plan.known >= {web, job, old, DB, APP}


def test_a_group_of_a_service(load: Load, peers: Callable[..., PublicKey]) -> None:
    web = peers("web-1", "apps")
    text = FILE.replace("to: :6379, allow: %s", 'services: {r: {to: :6379, allow: "@apps"}, s: {to: :6380, allow: db-host}}')
    (tunnel,) = load(text).tunnels
    assert tunnel.services["r"].allow == {web}


def test_several_keys_of_a_peer(load: Load, peers: Callable[..., PublicKey], folder: Path) -> None:
    first, second = key(), key()
    peers("web-1", text=f"\ufeff{first}\r\n\n  {second}  \n#groups:a\n# Groups : b ,c\n")
    assert allowed(load, '["@a"]') == allowed(load, '["@c"]') == {first: "web-1", second: "web-1"}
    assert read_peer_file(folder / "peers.d" / "web-1.pub").groups == ("a", "b", "c")


def test_other_files_are_ignored(load: Load, peers: Callable[..., PublicKey], folder: Path) -> None:
    web = peers("web-1", "apps")
    for name in ("README", "web-2.pub~", ".web-3.pub", ".web-1.pub.swp", "web-4.key"):
        (folder / "peers.d" / name).write_text("junk")
    (folder / "peers.d" / "..data").mkdir()
    assert load(FILE % '"@apps"').included == {web: "web-1"}


def test_two_directories(load: Load, peers: Callable[..., PublicKey]) -> None:
    web, job = peers("web", "all"), peers("job", "all", where="more.d")
    text = FILE.replace("include: peers.d/", "include: [peers.d, more.d]") % '"@all"'
    assert load(text).included == {web: "web", job: "job"}


def test_mistakes_in_a_directory(load: Load, peers: Callable[..., PublicKey], folder: Path) -> None:
    web = peers("web-1")
    peers("empty", text="")
    peers("cut", text=str(key())[:30])
    peers("secret", text=keys.format_private_key(keys.PrivateKey.generate()))
    peers("same", text=f"# groups: a\n{web}\n")
    once = str(key())
    peers("twice", text=f"{once}\n{once}\n")
    peers("many", text="".join(f"{key()}\n" for _ in range(5)))
    peers("-x")
    peers("db-host")
    peers("group", text=f"# groups: a, , b\n{key()}\n")
    peers("large", text="#" * 5000)
    os.mkfifo(folder / "peers.d" / "pipe.pub")
    (folder / "peers.d" / "lost.pub").symlink_to("nowhere")
    found = {line.split("/peers.d/")[1].split(":")[0]: line.split(": ", 1)[1] for line in mistakes(load)}
    for name, says in {
        "-x.pub": "'-x' is not a name; use letters, digits",
        "cut.pub": "line 1: a public key is 'stcp-pub:' and 32 bytes",
        "db-host.pub": "'db-host' is in 'peers' already; keep one of them, or rename the file",
        "empty.pub": "it contains no public key; write what 'stcp-proxy pubkey' prints",
        "group.pub": "line 1: '' is no name of a group; write names with commas",
        "large.pub": "it is larger than 4096 bytes",
        "lost.pub": "it cannot be read: No such file or directory",
        "many.pub": "it contains 5 keys; a peer has at most 4",
        "pipe.pub": "it contains no public key",
        "secret.pub": "line 1: a secret stands where a public key belongs",
        "twice.pub": "this key is there already; name it once",
        "web-1.pub": "'same' has the same key; keep one name for a key",
    }.items():
        assert found.pop(name).startswith(says), name
    assert found == {}


def test_mistakes_around_a_directory(load: Load, peers: Callable[..., PublicKey], folder: Path) -> None:
    assert "cannot read the peer directory" in mistakes(load)[0]
    (folder / "peers.d").mkdir()
    assert "peers.d contains no .pub files; write a file NAME.pub" in mistakes(load)[0]
    peers("web-1", "apps")
    assert "no peer is in the group 'app'; did you mean '@apps'?" in mistakes(load, '"@app"')[0]
    assert "no peer is in the group 'x'; write '# groups: x' into" in mistakes(load, '"@x"')[0]
    assert "'@' is no group; write '@' and the name of a group" in mistakes(load, '"@"')[0]
    assert "'web-2' is not in 'peers'; did you mean 'web-1'?" in mistakes(load, "web-2")[0]
    with pytest.raises(ConfigError, match=r'put a group in quotes: "@apps"'):
        load(FILE % "@apps")
    with pytest.raises(ConfigError, match="'include' names a directory, so no peer can have this name"):
        load(FILE.replace("peers.d/", "$APP") % "db-host")
    with pytest.raises(ConfigError, match=r"peers\.'a b': 'a b' is not a name"):
        load(FILE.replace("db-host: $DB", "a b: $DB") % "db-host")


def test_a_connect_tunnel_has_no_group_as_its_peer(load: Load, peers: Callable[..., PublicKey]) -> None:
    peers("web-1", "apps")
    text = FILE.replace(
        "in: {mode: listen, bind: :7443, to: :6379, allow: %s}", 'out: {mode: connect, bind: :1, to: :2, peer: "@apps"}'
    )
    with pytest.raises(ConfigError, match="this is neither a name nor a public key"):
        load(text)


# -- inputs ----------------------------------------------------------------------------------------------------------------------


def test_a_plan_knows_its_files(load: Load, peers: Callable[..., PublicKey], folder: Path) -> None:
    peers("web-1")
    plan = load(FILE % "db-host")
    assert {Path(path).name for path in plan.inputs} == {"c.yaml", "host.key", "peers.d"}
    assert changed(plan.inputs) == {}
    (folder / "peers.d" / "README").write_text("more")
    os.utime(folder / "peers.d" / "web-1.pub")
    assert changed(plan.inputs) == {}
    peers("web-2")
    assert [*changed(plan.inputs)] == [str(folder / "peers.d")]
    (folder / "host.key").unlink()
    assert changed(plan.inputs)[str(folder / "host.key")] == b""


def test_the_content_of_a_directory_decides(tmp_path: Path) -> None:
    """A ConfigMap is exchanged by a symbolic link: names, sizes and times may all stay."""
    for name, text in (("..1", "a"), ("..2", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.pub").write_text(text)
        os.utime(tmp_path / name / "x.pub", ns=(1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "x.pub").symlink_to("..data/x.pub")
    before = digest(tmp_path)
    (tmp_path / "new").symlink_to("..2")
    (tmp_path / "new").replace(tmp_path / "..data")
    assert digest(tmp_path) not in (before, b"")


@given(st.dictionaries(st.from_regex(NAME, fullmatch=True), st.text("ab\n", max_size=3), min_size=1, max_size=4), st.data())
def test_different_directories_have_different_digests(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("peers")
    for name, text in files.items():
        (folder / f"{name}.pub").write_text(text)
    before = digest(folder)
    name = data.draw(st.sampled_from(sorted(files)))
    (folder / f"{name}.pub").rename(folder / f"{name}-2.pub")
    assert digest(folder) != before
    (folder / f"{name}-2.pub").rename(folder / f"{name}.pub")
    assert digest(folder) == before
    (folder / f"{name}.pub").write_text(files[name] + "c")
    assert digest(folder) != before
    (folder / f"{name}.pub").unlink()
    assert digest(folder) != before
