"""One request to the collector (OTLP/HTTP, protobuf), and the meaning of its answer.

The standard library's client is enough: no redirect is followed, because the headers hold secrets; certificates are verified;
proxies are those of the environment (https_proxy, http_proxy, no_proxy). The collector is not trusted with time or memory: a
request has one deadline for everything, and of an answer at most `MOST_ANSWER` bytes are read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from types import FrameType
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from stcp_proxy import __version__
from stcp_proxy.redact import without_keys
from stcp_proxy.spans.orders import Orders

MOST_ANSWER: Final = 1 << 16
_MOST_WORDS: Final = 200
_MOST_WAIT: Final = 60.0
_TICK: Final = 0.2
"""Seconds between two looks at the deadline: the end of the proxy brings it forward."""
_RETRIED: Final = (429, 502, 503, 504)
"""The statuses that the specification of OTLP calls retryable."""
_PROTOBUF: Final = "application/x-protobuf"
_REMEDIES: Final = {
    400: "see the collector's log for what it misses",
    401: "correct the token in 'headers_file'",
    403: "correct the token in 'headers_file'",
    404: "correct 'endpoint': it has to be the collector's address for OTLP/HTTP, usually port 4318",
    405: "correct 'endpoint': it has to be the collector's address for OTLP/HTTP, usually port 4318",
    413: "raise the largest size of a request at the collector, or at the proxy before it",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one request.

    Attributes:
        refused: spans that the collector has not taken; 0 means all were accepted.
        why: the failure, in words; empty without one.
        remedy: what to do about it.
        retry: whether the same request may be accepted later.
        wait: seconds that the collector asks to wait before that; None where it does not say.
    """

    refused: int = 0
    why: str = ""
    remedy: str = ""
    retry: bool = False
    wait: float | None = None


class Late(Exception):
    """The deadline of a request is over."""


class Collector:
    """Sends requests to one collector. Only for the main thread: the deadline is a timer of the process.

    Args:
        orders: where it is, and how to reach it.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders: Final = orders
        self._opener: Final = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=orders.ca)),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def send(self, body: bytes, spans: int, *, is_over: Callable[[], bool] = lambda: False) -> Outcome:
        """Send one request.

        Args:
            body: the request.
            spans: how many spans it has.
            is_over: asked several times a second; ends the request before its deadline.
        """
        timeout = self._orders.timeout
        headers = {"Content-Type": _PROTOBUF, "User-Agent": f"stcp-proxy/{__version__}", **self._orders.headers}
        request = urllib.request.Request(self._orders.endpoint, data=body, headers=headers, method="POST")  # noqa: S310  (http, https)
        try:
            with _deadline(timeout, is_over):
                try:
                    with self._opener.open(request, timeout=timeout) as answer:
                        return _judged(answer.read(MOST_ANSWER), answer.headers.get_content_type(), spans)
                except urllib.error.HTTPError as exc:
                    with exc:
                        return _refused(exc.code, exc.headers, spans)
        except (Late, TimeoutError):
            return Outcome(
                spans, f"no answer within {timeout:g} s", "look at the collector, and at the network to it", retry=True
            )
        except urllib.error.URLError as exc:
            return _unreached(exc.reason, spans)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            return _unreached(exc, spans)


@contextlib.contextmanager
def _deadline(seconds: float, is_over: Callable[[], bool]) -> Iterator[None]:
    """Raise Late in the main thread when the time is over: a timeout of a socket begins anew with every byte."""
    end = time.monotonic() + seconds

    def ring(_number: int, _frame: FrameType | None) -> None:
        if time.monotonic() >= end or is_over():
            raise Late

    before = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, min(seconds, _TICK), _TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _judged(content: bytes, kind: str, spans: int) -> Outcome:
    """The meaning of an answer with a status of success."""
    try:
        rejected, words = _rejected(content, kind)
    except (DecodeError, ValueError, TypeError, AttributeError, RecursionError):
        remedy = "correct 'endpoint': it has to be the collector's address for OTLP/HTTP, usually port 4318"
        return Outcome(spans, "the answer is not one of OTLP", remedy)
    if rejected <= 0:
        return Outcome()
    why = f"the collector rejected {min(rejected, spans)} spans: {_words(words)}"
    return Outcome(min(rejected, spans), why, "see the collector's log for why")


def _rejected(content: bytes, kind: str) -> tuple[int, str]:
    """How many spans a collector has rejected, and why. An empty answer rejects none."""
    if not content:
        return 0, ""
    if kind == "application/json":
        partial = json.loads(content).get("partialSuccess", {})
        return int(partial.get("rejectedSpans", 0)), str(partial.get("errorMessage", ""))
    if kind != _PROTOBUF:
        raise ValueError(kind)
    answer = ExportTraceServiceResponse.FromString(content)
    return answer.partial_success.rejected_spans, answer.partial_success.error_message


def _refused(status: int, headers: Message, spans: int) -> Outcome:
    """The meaning of an answer with another status."""
    why = f"the collector answered with status {status}"
    if 300 <= status < 400:
        return Outcome(spans, f"{why}: a redirect, which is not followed", "set 'endpoint' to where the collector is")
    if status not in _RETRIED:
        return Outcome(spans, why, _REMEDIES.get(status, "see the collector's log for why"))
    return Outcome(spans, why, "give the collector more capacity", retry=True, wait=_wait(headers.get("Retry-After", "")))


def _wait(text: str) -> float | None:
    """The seconds of Retry-After; a date is not worth a clock."""
    return min(float(text), _MOST_WAIT) if text.isascii() and text.isdigit() and len(text) < 8 else None


def _unreached(reason: object, spans: int) -> Outcome:
    """The meaning of a connection that failed."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        why = f"the collector's certificate is refused: {_words(reason.verify_message)}"
        return Outcome(
            spans, why, "set 'ca' to the authority of the collector, and 'endpoint' to a name in its certificate", retry=True
        )
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else f"{type(reason).__name__}: {reason}"
    return Outcome(spans, f"the collector cannot be reached: {_words(str(text))}", "start it, or correct 'endpoint'", retry=True)


def _words(text: str) -> str:
    return without_keys(text)[:_MOST_WORDS]
