"""`stcp-proxy demo`: the product in a quarter of a minute, and a self-test.

    customer --plain-- connect ==STCP== eavesdropper ==STCP== listen --plain-- bank

Every box is a process of its own but the eavesdropper, which is a task here: it sits on the wire leg as a stranger on the network
would, copies every byte, and can change one.

- ``app``     the applications: plain sockets, nothing of the product
- ``tap``     the eavesdropper, and what can be told apart on the wire without a key
- ``stage``   processes and a temporary folder that are gone afterwards, whatever happens
- ``story``   the scenes, each with what must be true in it
- ``run``     all of it from start to end
- ``screen``  how it looks, at 80 columns and without a terminal
"""

from __future__ import annotations

from stcp_proxy.demo.run import run as run
