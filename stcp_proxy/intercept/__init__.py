"""The rules of a host that send outbound connections to a tunnel: nftables, and for tproxy policy routing.

- ``rules``           the text of the rules for a tunnel
- ``guard``           the chains that keep a captured connection from leaving unencrypted
- ``egress_filter``   a filter behind the guard, which does not depend on nftables
- ``egress_program``  the program of this filter
- ``bpf``             instructions of classic BPF
- ``nft_text``        rules in the syntax of nftables
- ``users``           the users of the proxy, whose connections the rules leave alone
- ``install``         installs the rules in the kernel, and removes them
- ``watch``           keeps the rules installed
- ``hold``            a second guard, which `nft flush ruleset` does not delete
- ``policy_routing``  the routes that tproxy needs
- ``sockets``         the open connections of this host
- ``programs``        calls of `nft`, `ip` and `tc`
"""

from stcp_proxy.intercept.install import apply, installed, remove
from stcp_proxy.intercept.rules import TABLE, Rules, rules_for

__all__ = ["TABLE", "Rules", "apply", "installed", "remove", "rules_for"]
