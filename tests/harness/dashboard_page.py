"""The dashboard's page with answers that a test makes: a real proxy serves the page, and the test says what `/status` answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.browser import Visit
from harness.process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

Status = dict[str, Any]
NOW = 1_800_000_000.0
HOSTILE = "<img src=x onerror=\"document.title='owned'\">\u202e" + "w" * 200


def refusal(**fields: object) -> Status:
    plain = {"time": NOW - 10, "tunnel": "listen", "client": "192.0.2.1:5", "peer": "", "why": "w", "remedy": "r", "count": 1}
    return {**plain, "reason": "unknown_peer", **fields}


def connection(number: int, **fields: object) -> Status:
    plain = {"tunnel": "listen", "worker": 0, "client": f"10.0.0.1:{number}", "peer": "app-host", "target": "10.0.0.2:80"}
    counts = {"engine": "python", "why_engine": "", "age": 100.0 + number, "bytes_to_wire": 5_000, "bytes_to_plain": 1_234_567}
    return {**plain, **counts, "channel": f"{number:016x}", **fields}


def certificate(**fields: object) -> Status:
    """A certificate of an authority in an answer."""
    plain = {
        "kind": "authority",
        "name": "prod",
        "subject": "CN=prod root",
        "issuer": "CN=prod root",
        "serial": "1f",
        "key_id": "k",
    }
    times = {"not_before": NOW - 86400, "not_after": NOW + 9 * 86400, "last_use": NOW - 60}
    words = {"overdue": "", "remedy": "", "may_go": "no", "why": "it is the only one"}
    return {**plain, **times, **words, "tunnels": ["listen"], "connections": 3, **fields}


def peer_certificate(number: int = 0, **fields: object) -> Status:
    """A certificate of a peer with open connections."""
    plain = {"name": f"spiffe://prod/ns/web/sa/app-{number}", "authority": "prod", "serial": "7" * 32, "tunnels": ["listen"]}
    return {**plain, "not_after": NOW + 3600, "connections": 2, **fields}


def made(real: Status, *, tunnels: int = 1, connections: int = 0, at: float = NOW) -> Status:
    """An answer with so many of each."""
    status = copy.deepcopy(real)
    status["time"] = at
    status["process"]["started"], status["process"]["uptime"] = NOW - 3600, at - NOW + 3600
    (plain,) = status["tunnels"]
    plain["bytes_to_wire"], plain["bytes_to_plain"] = int(5e6 + 1e3 * (at - NOW)), int(9e6 + 2e6 * (at - NOW))
    status["tunnels"] = [{**plain, "name": "listen" if number == 0 else f"tunnel-{number}"} for number in range(tunnels)]
    status["connections"] = {
        "total": connections, "order": "newest", "shown": [connection(number) for number in range(min(connections, 100))]
    }  # fmt: skip
    return status


def fault(**fields: object) -> Status:
    """A fault of the verdict of an answer."""
    plain = {"key": "k", "kind": "no_target", "level": "bad", "what": ["Tunnel ", "redis", " has no target: ", "a:1"]}
    times = {"since": NOW - 190, "last": None, "until": None, "times": 1}
    return {**plain, **times, "remedy": "start `it`", "public_key": "", "tunnels": ["redis"], **fields}


def verdict(*faults: Status, level: str = "bad", headline: str = "1 of 2 tunnels has no target", more: int = 0) -> Status:
    """The verdict of an answer."""
    return {"level": level, "headline": headline, "faults": list(faults), "more": more}


def past(at: float, tunnels: tuple[str, ...] = ("listen",), points: int = 360) -> Status:
    """An answer of `/history`: a point every ten seconds until `at`."""
    times = [at - 10 * back for back in range(points - 1, -1, -1)]
    plain = {"to_wire": [1000] * points, "to_plain": [2000] * points, "open": [3] * points, "refused": [0] * points}
    return {"started": NOW - 3600, "step": 10.0, "times": times, "series": [{"tunnel": name, **plain} for name in ("", *tunnels)]}


class Answers:
    """What `/status` and `/history` say to a visit, two seconds on each time.

    Args:
        seen: the visit.
        make: an answer for a time.
    """

    def __init__(self, seen: Visit, make: Callable[[float], Status]) -> None:
        self.make = make
        self.count = 0
        self.code = 200
        self.queries: list[str] = []
        self.asked_past: list[str] = []
        seen.page.route("**/status?*", self._answer)
        seen.page.route("**/history?*", self._answer_past)

    def _answer_past(self, route: Route) -> None:
        query = route.request.url.partition("?")[2]
        self.asked_past.append(query)
        points = int(query.partition("points=")[2] or 360)
        route.fulfill(json=past(NOW + 2 * self.count, points=points))

    def _answer(self, route: Route) -> None:
        self.count += 1
        self.queries.append(route.request.url.partition("?")[2])
        if self.code != 200:
            route.fulfill(status=self.code, body="no")
        else:
            route.fulfill(json=self.make(NOW + 2 * self.count))


def shown(seen: Visit, url: str) -> Page:
    """The page, once it has drawn an answer. Its clock is the test's."""
    page = seen.page
    page.clock.install(time=NOW)
    seen.open(url)
    page.locator("#content").wait_for()
    return page


def turn(page: Page, answers: Answers) -> None:
    """Let the page ask once more, and draw that."""
    before = answers.count
    page.clock.run_for(2000)
    wait_for(lambda: answers.count > before or page.evaluate("null"), words="it asks")
    page.evaluate(
        "new Promise((done) => { const { port1, port2 } = new MessageChannel(); port1.onmessage = done; port2.postMessage(0); })"
    )


def fits(page: Page) -> bool:
    """Whether nobody has to scroll sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
