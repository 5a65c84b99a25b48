"""Whether the path to the other end loses large packets, as where its MTU is smaller than this machine believes.

TCP connects by small packets. A handshake message of a hybrid suite fills a packet of more than 1,200 bytes: where the path drops
such packets without an ICMP message, the connection stands and nothing arrives. The kernel knows: it sends the bytes again and
again, and they are never acknowledged. A peer that is only silent acknowledges what it gets.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_INFO: Final = struct.Struct("=2xB21xI")
"""struct tcp_info up to tcpi_unacked: the retransmissions of one segment, and the number of segments without acknowledgement."""
REMEDY: Final = (
    "check the MTU of the path (ping -M do -s 1300 to that host): lower the MTU of this interface or of the overlay network to "
    "what gets through, or let ICMP 'fragmentation needed' pass; if small packets are lost, too, look for a firewall"
)


def is_unacknowledged(sock: socket.socket) -> bool:
    """Whether bytes that were sent again have not been acknowledged.

    Args:
        sock: any socket; a unix socket loses nothing.
    """
    if sock.family == socket.AF_UNIX:
        return False
    try:
        retransmits, unacknowledged = _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    except (OSError, struct.error):
        return False
    return bool(retransmits and unacknowledged)
