"""A name server on a UDP port of 127.0.0.1. Its table can be changed while it runs."""

from __future__ import annotations

import collections
import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameServer:
    """Answers from `table`; a context manager.

    Attributes:
        table: records as text by name and type, ``{("db.test", "A"): ["127.0.0.1"]}``. Other names do not exist.
        ttl: the TTL of every answer, in seconds.
        silent: while true, the server sends no answers.
        faults: errors by record type, in place of an answer, ``{"AAAA": "SERVFAIL"}``; None sends no answer.
        asked: the number of queries for each name and type.
    """

    def __init__(self, table: dict[tuple[str, str], list[str]], *, ttl: int = 60) -> None:
        self.table = table
        self.ttl = ttl
        self.silent = False
        self.faults: dict[str, str | None] = {}
        self.asked: collections.Counter[tuple[str, str]] = collections.Counter()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self._sock.settimeout(0.2)
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    @property
    def address(self) -> str:
        """The address for `dns.servers`."""
        return f"127.0.0.1:{self.port}"

    def _serve(self) -> None:
        while not self._stopped:
            try:
                data, client = self._sock.recvfrom(4096)
            except TimeoutError:
                continue
            except OSError:
                return
            query = dns.message.from_wire(data)
            (question,) = query.question
            name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
            self.asked[name, kind] += 1
            if not self.silent and self.faults.get(kind, "") is not None:
                self._sock.sendto(self._answer(query, name, kind).to_wire(), client)

    def _answer(self, query: dns.message.Message, name: str, kind: str) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        records = self.table.get((name, kind))
        if fault := self.faults.get(kind):
            answer.set_rcode(dns.rcode.from_text(fault))
        elif records:
            answer.answer.append(dns.rrset.from_text_list(query.question[0].name, self.ttl, "IN", kind, records))
        elif not any(known == name for known, _ in self.table):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    def close(self) -> None:
        self._stopped = True
        self._thread.join()
        self._sock.close()

    def __enter__(self) -> NameServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
