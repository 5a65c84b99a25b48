"""The rules of a host that send outbound connections to a tunnel: nftables, and for tproxy policy routing.

- ``rules``    the text of the rules for a tunnel
- ``users``    whose connections they leave alone
- ``install``  into the kernel and out again, by `nft` and `ip`
"""

from stcp_proxy.intercept.install import apply, installed, remove
from stcp_proxy.intercept.rules import TABLE, Rules, rules_for

__all__ = ["TABLE", "Rules", "apply", "installed", "remove", "rules_for"]
