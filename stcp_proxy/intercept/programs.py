"""Calls of `nft`, `ip` and `tc`, and the messages for their errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from stcp_proxy.errors import RulesRefused

_FOLDERS: Final = "/usr/sbin:/sbin:/usr/local/sbin"
_TIMEOUT: Final = 30.0
_PRIVILEGE: Final = "run it as root or with CAP_NET_ADMIN: in a container, as an init container that has it"
_FEATURES: Final = {
    "tproxy": "transparent proxying (nft_tproxy)",
    "redirect": "redirection (nft_redir)",
    "fib": "route look-ups in rules (nft_fib_inet)",
    "reject": "rejection (nft_reject_inet)",
    "nat": "address translation (nft_chain_nat)",
    "ct label": "connection labels (nft_ct, built with CONFIG_NF_CONNTRACK_LABELS)",
    "ct ": "connection tracking (nf_conntrack, nft_ct)",
    "clsact": "filters at the wire (sch_ingress)",
    "bytecode": "filters in classic BPF (cls_bpf)",
    "cgroupv2": "matches by control group (nft_socket, Linux 5.13)",
    "skuid": "a packet's user (nft_meta)",
}
"""Features that a kernel may lack, by a word in the refused rule."""
_LACKING: Final = ("No such file or directory", "Operation not supported", "Protocol not supported", "not supported")


def program(name: str) -> str:
    """The path of `nft`, `ip` or `tc`.

    Raises:
        RulesRefused: the program is not installed.
    """
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_FOLDERS}")
    if path is None:
        package = {"nft": "nftables", "ip": "iproute2", "tc": "iproute2 or iproute2-tc"}[name]
        raise RulesRefused(f"the program '{name}' is not installed here", remedy=f"install the package {package}")
    return path


def has_tc() -> bool:
    """Whether `tc` is installed. The rules work without it."""
    try:
        program("tc")
    except RulesRefused:
        return False
    return True


def nft(arguments: Sequence[str], *, stdin: str = "") -> str:
    """Run `nft` and return its output.

    Raises:
        RulesRefused: `nft` failed, with the reason.
    """
    done = run(("nft", *arguments), stdin=stdin)
    if done.returncode != 0:
        raise refused("the rules", ("nft", *arguments), done.stderr)
    return done.stdout


def run(command: tuple[str, ...], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command and wait for its end.

    Raises:
        RulesRefused: the command cannot be run, or does not end in time.
    """
    path = program(command[0])
    env = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(  # noqa: S603  (a list, no shell; the configuration checks every field that varies)
            [path, *command[1:]], input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, env=env, check=False
        )
    except subprocess.TimeoutExpired:
        what = f"'{command[0]}' did not end within {_TIMEOUT:g} s"
        raise RulesRefused(what, remedy=f"run '{' '.join(command)}' by hand, and see what it waits for") from None
    except OSError as exc:
        raise RulesRefused(f"'{command[0]}' cannot be run: {exc.strerror}", remedy=f"look at {path}") from None


def refused(what: str, command: tuple[str, ...], stderr: str) -> RulesRefused:
    """The exception for a program's error.

    Args:
        what: the object that was to be installed.
        command: the failed command.
        stderr: the program's error output.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if "not permitted" in stderr or "Permission denied" in stderr:
        return RulesRefused(f"the system refuses {what}: this process may not change the network", remedy=_PRIVILEGE)
    if any(words in stderr for words in _LACKING):
        statement = next((line for line in lines[1:] if not set(line) <= set("^~ ")), "")
        lacking = next((name for word, name in _FEATURES.items() if word in statement), "")
        what = f"the kernel lacks {lacking or 'what a rule needs'}: it refuses '{statement or ' '.join(command)}'"
        return RulesRefused(what, remedy="load that module, or use a kernel that has it")
    what = f"'{' '.join(command)}' failed: {lines[0] if lines else 'without a word'}"
    return RulesRefused(what, remedy="compare the rules ('stcp-proxy intercept CONFIG' prints them) with what the system has")
