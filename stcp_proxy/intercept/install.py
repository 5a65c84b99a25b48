"""Rules into the kernel and out again.

The table is replaced in one transaction: there is no moment between the old rules and the new ones. Policy routing, which
tproxy needs, is put there before it and taken away after it, so that no packet is ever marked for a route that is not there.
The comment of the table tells which mark that was, so that it can be taken away without the file that the rules were made
for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Final

from stcp_proxy.errors import ConfigError, RulesRefused
from stcp_proxy.intercept.rules import MADE_BY, Rules, about, routing

_FOLDERS: Final = "/usr/sbin:/sbin:/usr/local/sbin"
_TIMEOUT: Final = 30.0
_COMMENT: Final = re.compile(rf'comment "({MADE_BY} [^"]*)"')
_MARK: Final = re.compile(r", mark ([0-9]+)$")
_PRIVILEGE: Final = "run it as root or with CAP_NET_ADMIN: in a container, as an init container that has it"
_FEATURES: Final = {
    "tproxy": "transparent proxying (nft_tproxy)",
    "redirect": "redirection (nft_redir)",
    "fib": "route look-ups in rules (nft_fib_inet)",
    "reject": "rejection (nft_reject_inet)",
    "nat": "address translation (nft_chain_nat)",
    "ct ": "connection tracking (nf_conntrack, nft_ct)",
    "skuid": "a packet's user (nft_meta)",
}
"""What a kernel may lack, by a word in the rule that it refused."""
_LACKING: Final = ("No such file or directory", "Operation not supported", "Protocol not supported", "not supported")


def apply(rules: Rules) -> str:
    """Install rules, in place of those that this program has installed under the same name. Twice is as good as once.

    Returns:
        One sentence: what has been done.

    Raises:
        RulesRefused: in one sentence why not; nothing has changed.
    """
    before = installed(rules.table)
    stale = _mark_of(before)
    added = [] if rules.divert is None else _add_routing(rules.divert)
    try:
        _nft(["-f", "-"], stdin=rules.nft)
    except BaseException:
        _delete(added)
        raise
    if stale is not None and stale != rules.divert:
        _delete(routing(stale, "delete"))
    after = installed(rules.table)
    replaced = f", in place of {about(before)}" if before and before != after else ""
    return f"installed: table inet {rules.table}, {about(after)}{replaced}"


def remove(table: str) -> str:
    """Take away what `apply` has installed under this name, and nothing else.

    Returns:
        One sentence: what has been done.

    Raises:
        RulesRefused: in one sentence why not.
    """
    before = installed(table)
    if before is None:
        return f"there is nothing to remove: no table inet {table} is installed"
    _nft(["delete", "table", "inet", table])
    mark = _mark_of(before)
    if mark is not None:
        _delete(routing(mark, "delete"))
    return f"removed: table inet {table}, {about(before)}"


def installed(table: str) -> str | None:
    """The comment of a table that is installed; None where there is none.

    Raises:
        RulesRefused: there is one that this program has not made.
    """
    tables = _nft(["list", "tables", "inet"]).split("\n")
    if f"table inet {table}" not in (line.strip() for line in tables):
        return None
    found = _COMMENT.search(_nft(["list", "table", "inet", table]))
    if found is None:
        remedy = "remove it yourself if it is not needed, or choose another name with --table"
        raise RulesRefused(f"there is a table inet {table}, and stcp-proxy has not made it", remedy=remedy)
    return found[1]


def _mark_of(comment: str | None) -> int | None:
    found = _MARK.search(comment or "")
    return int(found[1]) if found else None


# -- policy routing ------------------------------------------------------------------------------------------------------------


def _add_routing(mark: int) -> list[tuple[str, ...]]:
    """Returns the commands that take away again what was added."""
    added: list[tuple[str, ...]] = []
    for command, undo in zip(routing(mark, "add"), routing(mark, "delete"), strict=True):
        if command[1] == "-6" and not os.path.exists("/proc/net/if_inet6"):
            continue  # a host without IPv6
        done = _run(command)
        if done.returncode == 0:
            added.append(undo)
        elif "File exists" not in done.stderr:
            _delete(added)
            raise _refused("a route for marked packets", command, done.stderr)
    return added


def _delete(commands: list[tuple[str, ...]]) -> None:
    """What is not there need not be deleted."""
    for command in commands:
        _run(command)


# -- programs ------------------------------------------------------------------------------------------------------------------


def _nft(arguments: list[str], *, stdin: str = "") -> str:
    done = _run(("nft", *arguments), stdin=stdin)
    if done.returncode != 0:
        raise _refused("the rules", ("nft", *arguments), done.stderr)
    return done.stdout


def _run(command: tuple[str, ...], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:{_FOLDERS}")
    if program is None:
        package = {"nft": "nftables", "ip": "iproute2"}[command[0]]
        raise RulesRefused(f"the program '{command[0]}' is not installed here", remedy=f"install the package {package}")
    env = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(  # noqa: S603  (a list, no shell; what varies was checked by the configuration)
            [program, *command[1:]], input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, env=env, check=False
        )
    except subprocess.TimeoutExpired:
        what = f"'{command[0]}' did not come to an end within {_TIMEOUT:g} s"
        raise RulesRefused(what, remedy=f"run '{' '.join(command)}' by hand, and see what it waits for") from None
    except OSError as exc:
        raise RulesRefused(f"'{command[0]}' cannot be run: {exc.strerror}", remedy=f"look at {program}") from None


def _refused(what: str, command: tuple[str, ...], stderr: str) -> RulesRefused:
    """The sentence for what a program had to say."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if "not permitted" in stderr or "Permission denied" in stderr:
        return RulesRefused(f"the system refuses {what}: this process may not change the network", remedy=_PRIVILEGE)
    if any(words in stderr for words in _LACKING):
        statement = next((line for line in lines[1:] if not set(line) <= set("^~ ")), "")
        lacking = next((name for word, name in _FEATURES.items() if word in statement), "")
        what = f"the kernel lacks {lacking or 'what a rule needs'}: it refuses '{statement or ' '.join(command)}'"
        return RulesRefused(what, remedy="load that module, or use a kernel that has it")
    what = f"'{' '.join(command)}' failed: {lines[0] if lines else 'without a word'}"
    return RulesRefused(
        what, remedy="compare what it was given ('stcp-proxy intercept CONFIG' prints it) with what the system has"
    )


def check_table(name: str) -> str:
    """Returns `name` if a table can have it, else raises ConfigError."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", name):
        raise ConfigError("a table's name has letters, digits and '_', at most 31", remedy="leave out --table for the usual one")
    return name
