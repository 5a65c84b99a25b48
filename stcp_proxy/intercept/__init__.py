"""The rules of a host that send outbound connections to a tunnel: nftables, and for tproxy policy routing.

- ``rules``           the text of the rules for a tunnel
- ``guard``           of these, the chains that keep a captured connection from leaving in the clear
- ``nft_text``        how nftables spells them
- ``users``           as whom the proxy runs, so that the rules leave its connections alone
- ``install``         into the kernel and out again
- ``watch``           keep them installed
- ``hold``            a second guard that `nft flush ruleset` leaves alone
- ``policy_routing``  the routes that tproxy needs
- ``sockets``         the open connections of this host
- ``programs``        calls of `nft` and `ip`
"""

from stcp_proxy.intercept.install import apply, installed, remove
from stcp_proxy.intercept.rules import TABLE, Rules, rules_for

__all__ = ["TABLE", "Rules", "apply", "installed", "remove", "rules_for"]
