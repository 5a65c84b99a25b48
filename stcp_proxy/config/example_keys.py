"""The public keys of the examples in configs/ and docs/. Strangers may know their private halves, so no host may use them."""

from __future__ import annotations

from typing import Final

from stcp_proxy.config.plan import Plan
from stcp_proxy.errors import ConfigError

EXAMPLES: Final = frozenset(
    f"stcp-pub:{text}="
    for text in (
        "1CjGhrQsdQb/ayz8Vh5KTD/PPCqYl/E5n8k7UBQO9AQ",
        "Jo9W2KTC0PQ3nwECE9gl2fnv+CMG0t1HSU8bREQHHQo",
        "nxv6/J6Gx8agWo6CBgBCGrWaQ1f7M6+HxK0Tw/lgzyg",
        "sm7wkzvkwS5UriUZG505HAlsQ63DDVhungSBgUE6QmM",
        "xjsg9UiqCyB7KFos/tCE2NNP2s6OCWDB68Az16iaclE",
    )
)


def refuse_examples(plan: Plan) -> None:
    """Refuse a plan that names a key of an example.

    Raises:
        ConfigError: names the keys.
    """
    found = sorted(str(key) for key in plan.known if str(key) in EXAMPLES)
    if found:
        what = f"the file still names keys of the documentation's examples: {', '.join(found)}"
        raise ConfigError(what, remedy="write what 'stcp-proxy pubkey FILE' prints on the other side instead")
