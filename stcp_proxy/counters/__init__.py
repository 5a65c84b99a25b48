"""What tunnels and processes count: written by ``session/`` and ``tunnel/``, read by ``admin/``.

- ``tunnel``   the counts of one tunnel, its last refusals, and the use of its keys and authorities
- ``issuers``  which authority vouched for which peer
- ``steps``    results and durations of handshakes and dials
- ``reloads``  the times that the configuration was read again
- ``merging``  how the values of several worker processes become one: each field declares it
"""

from stcp_proxy.counters.reloads import Reloads
from stcp_proxy.counters.steps import BOUNDS, Dials, Durations, Handshakes, Steps
from stcp_proxy.counters.tunnel import UNKNOWN, Counts, KeyUse, Ledger, Refusal

__all__ = ["BOUNDS", "UNKNOWN", "Counts", "Dials", "Durations", "Handshakes", "KeyUse", "Ledger", "Refusal", "Reloads", "Steps"]
