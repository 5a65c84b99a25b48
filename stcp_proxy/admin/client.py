"""Client of the admin address, for the commands that use it."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Final

from stcp_proxy.config import AdminPlan
from stcp_proxy.errors import StcpError
from stcp_proxy.net.address import Address, UnixAddress
from stcp_proxy.redact import printable

REFUSED: Final = 409
"""HTTP status of a reload that was refused."""
MAX_ANSWER: Final = 64 * 1024 * 1024
_TIMEOUT: Final = 10.0
_ANYWHERE: Final = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class AdminError(StcpError):
    """The request to the admin address failed."""

    label = "admin"


class Unreachable(AdminError):
    """Nothing answers at the admin address."""


class AnswerTimeout(Unreachable):
    """The process at the admin address does not answer in time."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(plan: AdminPlan, path: str, *, method: str = "GET", timeout: float = _TIMEOUT) -> tuple[int, bytes]:
    """Send one request. Returns the HTTP status, which may be an error, and the body.

    Args:
        plan: the address and its token.
        path: the path with its query.
        method: GET or POST.
        timeout: seconds for each step.

    Raises:
        Unreachable: nothing answers.
        AdminError: the answer is not HTTP, or too long.
    """
    headers = {} if plan.token is None else {"Authorization": f"Bearer {plan.token.reveal()}"}
    connection = _connection(plan.address, timeout)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER + 1)
    except TimeoutError:
        raise AnswerTimeout(
            f"nothing answers at {plan.address} within {timeout:g} s", remedy="check that this is the proxy's admin address"
        ) from None
    except OSError as exc:
        why = exc.strerror or str(exc)
        raise Unreachable(
            f"no proxy answers at {plan.address}: {why.lower()}", remedy="check that it runs, and with this admin address"
        ) from None
    except http.client.HTTPException:
        raise AdminError(f"what answers at {plan.address} is no admin address", remedy="check the address") from None
    finally:
        connection.close()
    if len(body) > MAX_ANSWER:
        raise AdminError(f"what answers at {plan.address} says too much", remedy="check the address")
    return answer.status, body


def ask_well(plan: AdminPlan, path: str, *, method: str = "GET", timeout: float = _TIMEOUT) -> bytes:
    """Send one request that must succeed. Returns the body; see `ask`.

    Raises:
        AdminError: the request failed; the text has the reason.
    """
    status, body = ask(plan, path, method=method, timeout=timeout)
    if status == http.client.NOT_FOUND:
        raise AdminError(
            f"what answers at {plan.address} has no {path.partition('?')[0]}", remedy="check that it is an admin address"
        )
    if status >= http.client.MULTIPLE_CHOICES:
        words = printable(body[:300].decode("utf-8", "replace").strip()) or f"HTTP status {status}"
        raise AdminError(f"the proxy at {plan.address} refused: {words}")
    return body


def ask_json(plan: AdminPlan, path: str) -> Any:
    """Send one GET request whose answer is JSON; see `ask_well`."""
    try:
        return json.loads(ask_well(plan, path))
    except ValueError:
        raise AdminError(f"what answers at {plan.address} is no admin address", remedy="check the address") from None


def _connection(address: Address, timeout: float) -> http.client.HTTPConnection:
    if isinstance(address, UnixAddress):
        return _UnixConnection(address.path, timeout)
    return http.client.HTTPConnection(_ANYWHERE.get(address.host, address.host), address.port, timeout=timeout)
