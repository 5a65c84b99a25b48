"""An eavesdropper: all TCP segments that pass a network interface (AF_PACKET)."""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import threading
from dataclasses import dataclass

_ETH_P_ALL = 3
_PACKET_STATISTICS = 6
_SOL_PACKET = 263
_SO_RCVBUFFORCE = 33
_BUFFER = 64 << 20
_FRAME = 1 << 17
_IP4, _IP6, _TCP = 0x0800, 0x86DD, 6
SYN, RST, ACK = 0x02, 0x04, 0x10


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment on the wire.

    Attributes:
        source, sink: (address, port) of the sender and the receiver.
        flags: the flags of the TCP header.
        payload: the bytes after the TCP header.
    """

    source: tuple[str, int]
    sink: tuple[str, int]
    flags: int
    payload: bytes


class Watch:
    """Reads an interface until `stop`. A lost frame is an error, because an incomplete recording proves nothing.

    Args:
        sock: the socket from `open`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames: list[bytes] = []
        self._tell, self._told = socket.socketpair()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @staticmethod
    def open(interface: str) -> socket.socket:
        """A socket that receives all frames of `interface`. Call this on the host of the interface."""
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        sock.bind((interface, _ETH_P_ALL))
        sock.setblocking(False)
        return sock

    def _read(self) -> None:
        stopping = False
        while not stopping:
            ready, _, _ = select.select([self._sock, self._told], [], [], 60)
            stopping = self._told in ready or not ready
            while True:  # a passed frame is in the queue at once, so an empty queue means that all are read
                try:
                    self._frames.append(self._sock.recv(_FRAME))
                except BlockingIOError:
                    break
                except OSError:  # the kernel reports once that the interface went down
                    continue

    def stop(self) -> None:
        """Read all frames that have passed so far, then stop."""
        if self._sock.fileno() < 0:
            return
        self._tell.send(b"x")
        self._thread.join(30)
        missed = struct.unpack("II", self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        for sock in (self._sock, self._tell, self._told):
            sock.close()
        assert missed == 0, f"the watcher missed {missed} frames"

    @property
    def raw(self) -> bytes:
        """All frames, headers included."""
        return b"".join(self._frames)

    @property
    def segments(self) -> list[Segment]:
        """Every TCP segment, in order."""
        return [segment for frame in self._frames if (segment := _parse(frame)) is not None]

    @property
    def dialled(self) -> set[tuple[str, int]]:
        """Every (address, port) to which a SYN was sent."""
        return {segment.sink for segment in self.segments if segment.flags & (SYN | ACK) == SYN}

    def payload(self) -> bytes:
        """The payload of all segments, in the order in which they passed."""
        return b"".join(segment.payload for segment in self.segments)


def _parse(frame: bytes) -> Segment | None:
    kind, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
    if kind == _IP4 and len(packet) >= 20 and packet[9] == _TCP:
        head, size = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        ends = packet[12:16], packet[16:20]
        end = size or len(packet)
    elif kind == _IP6 and len(packet) >= 40 and packet[6] == _TCP:
        head, size = 40, int.from_bytes(packet[4:6], "big")
        ends = packet[8:24], packet[24:40]
        end = head + size if size else len(packet)
    else:
        return None
    tcp = packet[head:end]
    source, sink = (str(ipaddress.ip_address(end)) for end in ends)
    ports = struct.unpack(">HH", tcp[:4])
    return Segment((source, ports[0]), (sink, ports[1]), tcp[13], tcp[(tcp[12] >> 4) * 4 :])
