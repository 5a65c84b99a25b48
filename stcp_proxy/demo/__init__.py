"""`stcp-proxy demo`: a demonstration of the product in about 15 seconds, and a self-test.

    customer --plain-- connect ==STCP== eavesdropper ==STCP== listen --plain-- bank

Every box is a process of its own except the eavesdropper, which is a task in this process. It sits on the wire leg as a stranger
on the network would. It copies every byte, and can change one bit.

- ``app``     the applications: plain sockets, without code of the product
- ``tap``     the eavesdropper, and the parts of the wire format that are visible without a key
- ``stage``   the processes and the temporary folder, which are always removed at the end
- ``story``   the scenes, each with its checks
- ``run``     the whole demo, its deadline and its exit status
- ``screen``  the output, at most 80 columns wide
"""

from __future__ import annotations

from stcp_proxy.demo.run import run as run
