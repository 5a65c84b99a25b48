"""The dashboard's page by itself: a real proxy serves it, and the test says what `/status` answers. What it makes of every state,
at every width, in both themes, by keyboard, and for whoever does not see it.
"""

from __future__ import annotations

import copy
import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness.browser import Visit
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

Status = dict[str, Any]
NOW = 1_800_000_000.0
HOSTILE = "<img src=x onerror=\"document.title='owned'\">\u202e" + "w" * 200


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, echo: Target) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("proxy")
    arguments = ["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *Keys(folder).listen(), "--admin", "127.0.0.1:0"]
    with Proxy(arguments, log=folder / "listen.log").ready() as proxy:
        yield f"http://{proxy.wait_log('admin address')[0]['addresses'][0]}/"


@pytest.fixture(scope="module")
def real(url: str) -> Status:
    """An answer of the real proxy, so that its shape is true."""
    with urllib.request.urlopen(f"{url}status", timeout=20) as answer:
        found: Status = json.load(answer)
    assert len(found["tunnels"]) == 1
    assert len(found["keys"]) == 2
    return found


def refusal(**fields: object) -> Status:
    plain = {"time": NOW - 10, "tunnel": "listen", "client": "192.0.2.1:5", "peer": "", "why": "w", "remedy": "r", "count": 1}
    return {**plain, "reason": "unknown_peer", **fields}


def connection(number: int, **fields: object) -> Status:
    plain = {"tunnel": "listen", "worker": 0, "client": f"10.0.0.1:{number}", "peer": "app-host", "target": "10.0.0.2:80"}
    counts = {"engine": "python", "why_engine": "", "age": 100.0 + number, "bytes_to_wire": 5_000, "bytes_to_plain": 1_234_567}
    return {**plain, **counts, "channel": f"{number:016x}", **fields}


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


class Answers:
    """What `/status` says to a visit, two seconds on each time.

    Args:
        seen: the visit.
        make: an answer for a time.
    """

    def __init__(self, seen: Visit, make: Callable[[float], Status]) -> None:
        self.make = make
        self.count = 0
        self.code = 200
        self.queries: list[str] = []
        seen.page.route("**/status?*", self._answer)

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


# -- is it well? -----------------------------------------------------------------------------------------------------------------


def tunnel(**fields: object) -> Callable[[Status], None]:
    return lambda status: status["tunnels"][0].update(fields)


def refused(*found: Status) -> Callable[[Status], None]:
    return lambda status: status.update(refusals=list(found))


DOWN = {"address": "a:1", "health": "down", "why": "refused the connection"}
VERDICTS: dict[str, tuple[Callable[[Status], object], str, str, str]] = {
    "nothing": (lambda _: None, "ok", "", ""),
    "draining": (lambda status: status["process"].update(state="draining"), "warn", "may finish", "second SIGTERM"),
    "starting": (lambda status: status["process"].update(state="starting"), "warn", "does not serve yet", "its log"),
    "deaf": (tunnel(listening=[]), "bad", "does not listen", "its log"),
    "full": (tunnel(open=10_000), "bad", "is full: 10,000", "max_connections"),
    "nearly full": (tunnel(open=9_000), "warn", "nearly full: 9,000 of 10,000", "max_connections"),
    "not nearly full": (tunnel(open=8_999), "ok", "", ""),
    "strangers wait": (tunnel(proving=256), "warn", "256 callers have not proved", "max_handshakes"),
    "no target": (tunnel(targets=[DOWN]), "bad", "no target answered when last tried: a:1 (refused the connection)", "firewall"),
    "one target": (tunnel(targets=[DOWN, {**DOWN, "health": "up"}]), "warn", "1 of 2 targets", "firewall"),
    "descriptors": (
        lambda status: status["process"]["workers"][0].update(descriptors=990, descriptor_limit=1000),
        "warn", "uses 990 of 1,000 file descriptors", "LimitNOFILE",
    ),
    "silent worker": (
        lambda status: status["process"]["workers"][0].update(state="silent", pid=0, descriptors=0, descriptor_limit=0),
        "bad", "Worker 0 does not answer", "restart the proxy",
    ),
    "bad reload": (
        lambda status: status["reloads"].update(failed=1, last={"time": NOW, "ok": False, "what": "c.yaml:3: no"}),
        "warn", "was not applied, and the configuration before it goes on: c.yaml:3: no", "stcp-proxy check",
    ),
    "good reload": (lambda status: status["reloads"].update(applied=1, last={"time": NOW, "ok": True, "what": ""}), "ok", "", ""),
    "unknown key": (refused(refusal()), "warn", "Tunnel listen turned away 192.0.2.1:5: w (last at ", "r"),
    "known peer": (refused(refusal(peer="app", reason="target_refused")), "warn", "could not serve app: w", "r"),
    "often": (refused(refusal(count=3), refusal(count=4, client="b")), "warn", "(7 times since the start, from 2 hosts, ", "r"),
    "our mistake": (refused(refusal(reason="internal_error", remedy="")), "bad", "turned away", "the log has"),
    "long ago": (refused(refusal(time=NOW - 301)), "ok", "", ""),
    "client gone": (refused(refusal(reason="plain_reset")), "ok", "", ""),
    "stranger": (refused(refusal(reason="not_stcp")), "ok", "turned away a stranger at 192.0.2.1:5", "r"),
    "stranger without remedy": (refused(refusal(reason="handshake_closed", remedy="")), "ok", "a stranger", "none of yours"),
    "the peer is no peer": (
        lambda status: (tunnel(mode="connect")(status), refused(refusal(reason="not_stcp"))(status)),
        "warn", "could not serve 192.0.2.1:5", "r",
    ),
    "the worst counts": (
        lambda status: (tunnel(listening=[])(status), refused(refusal())(status)), "bad", "does not listen", "its log",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def scripts(browser: Browser, url: str) -> Iterator[Page]:
    """A page in which to try the scripts' functions."""
    with Visit(browser) as seen:
        seen.page.route("**/status?*", lambda route: route.abort())
        yield seen.open(url)


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict(scripts: Page, real: Status, name: str) -> None:
    change, level, what, remedy = VERDICTS[name]
    status = made(real)
    change(status)
    found = scripts.evaluate("async (status) => (await import('/assets/verdict.js')).judge(status)", status)
    assert found["level"] == level
    if not what:
        assert found["findings"] == []
        return
    first = found["findings"][0]
    assert what in "".join(part if isinstance(part, str) else part["value"] for part in first["what"])
    assert remedy in first["remedy"]


def test_values_are_apart_from_words(scripts: Page, real: Status) -> None:
    """A sentence of ours is text that we wrote; all else is marked, and gets a direction of its own."""
    status = made(real)
    refused(refusal(tunnel="T", client="C", peer="P", why="W"))(status)
    found = scripts.evaluate("async (status) => (await import('/assets/verdict.js')).judge(status)", status)
    assert {"T", "P", "W"} <= {part["value"] for part in found["findings"][0]["what"] if not isinstance(part, str)}


HISTORIES = {
    "steady": ([(0, 0, 0), (2, 10, 20), (4, 20, 20)], [None, 5, 5], [None, 10, 0]),
    "a counter went back": ([(0, 100, 100), (2, 5, 200), (4, 15, 220)], [None, None, 5], [None, None, 10]),
    "a silence": ([(0, 0, 0), (60, 600, 600), (62, 610, 600)], [None, None, 5], [None, None, 0]),
    "the same look twice": ([(0, 0, 0), (0, 5, 5), (2, 15, 5)], [None, 5], [None, 0]),
    "the clock was put back": ([(100, 0, 0), (102, 4, 4), (50, 8, 8), (52, 12, 8)], [None, 2], [None, 0]),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_rates(scripts: Page, name: str) -> None:
    """A line is broken where nothing is known, rather than drawn."""
    samples, up, down = HISTORIES[name]
    run = """async (samples) => {
        const { History } = await import('/assets/history.js');
        const history = new History();
        for (const [time, up, down] of samples) history.add(1, time, new Map([['t', [up, down]]]));
        return history.get('t');
    }"""
    found = scripts.evaluate(run, samples)
    assert (found["up"], found["down"]) == (up, down)
    assert found["times"] == sorted(found["times"])


def test_rates_of_another_run(scripts: Page) -> None:
    """A proxy that was started anew may have counted beyond where the one before was: no rate comes of that."""
    run = """async () => {
        const { History, KEPT } = await import('/assets/history.js');
        const history = new History();
        const add = (run, time, count) => history.add(run, time, new Map([['t', [count, count]]]));
        add(1, 0, 0); add(1, 2, 10); add(2, 4, 1000); add(2, 6, 1010);
        const found = [...history.get('t').up];
        for (let time = 8; time < 2000; time += 2) add(2, time, 5000 + time);
        history.add(2, 3000, new Map());
        return [found, KEPT, history.get('t').times.length];
    }"""
    found, kept, left = scripts.evaluate(run)
    assert found == [None, 5, None, 5]
    assert kept >= 150
    assert left == 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("bytes(0)", "0 B"), ("bytes(999)", "999 B"), ("bytes(1000)", "1.0 kB"), ("bytes(99_999)", "100 kB"),
        ("bytes(999_999)", "1.0 MB"), ("bytes(1.5e15)", "1.5 PB"),
        ("bytes(5e18)", "5000 PB"), ("bytes(NaN)", "–"), ("rate(null ?? NaN)", "–"),
        ("duration(0)", "0 s"), ("duration(59.9)", "59 s"), ("duration(3600)", "1 h"), ("duration(3725)", "1 h 2 min"),
        ("duration(90_061)", "1 d 1 h"), ("duration(-5)", "0 s"), ("plural(1, 'key')", "1 key"),
        ("plural(2000, 'key')", "2,000 keys"),
    ],
)  # fmt: skip
def test_figures(scripts: Page, call: str, text: str) -> None:
    assert scripts.evaluate(f"async () => (await import('/assets/format.js')).{call}") == text


# -- every state, at every width -------------------------------------------------------------------------------------------------


def everywhere(real: Status, at: float) -> Status:
    """Hostile text in every place for text that is not one of a few words of ours."""
    status = made(real, tunnels=2, connections=3, at=at)
    status["refusals"] = [refusal(), refusal(reason="not_stcp", time=NOW - 20)]

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: spoil(child, name) for name, child in value.items()}
        if isinstance(value, list):
            return [spoil(child, key) for child in value]
        return f"{value}{HOSTILE}" if isinstance(value, str) and key not in {"state", "health", "order"} else value

    status["reloads"]["last"] = {"time": at, "ok": False, "what": "x"}
    spoilt: Status = spoil(status)
    return spoilt


@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_text_everywhere(browser: Browser, url: str, real: Status, width: int) -> None:
    with Visit(browser, width=width) as seen:
        Answers(seen, lambda at: everywhere(real, at))
        page = shown(seen, url)
        assert page.locator("main img, main script").count() == 0
        assert "owned" not in page.title()
        assert "\u202e" not in page.evaluate("document.body.innerText + document.body.textContent + document.title")
        assert page.get_by_text("onerror").count() > 20
        assert seen.faults == []
        assert fits(page)


STATES: dict[str, Callable[[Status, float], Status]] = {
    "busy": lambda real, at: {
        **made(real, tunnels=3, connections=40, at=at),
        "refusals": [refusal(), refusal(reason="not_stcp")],
    },
    "empty": lambda real, at: {**made(real, at=at), "keys": [], "refusals": []},
    "many": lambda real, at: {
        **made(real, tunnels=60, connections=4000, at=at),
        "refusals": [refusal(tunnel=f"t{number}") for number in range(50)],
    },
}


def audit(page: Page) -> list[str]:
    """What axe-core finds fault with: contrast, names, roles, and more."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_anybody_can_use_it(browser: Browser, url: str, real: Status, width: int, *, dark: bool) -> None:
    with Visit(browser, width=width, dark=dark) as seen:
        answers = Answers(seen, lambda at: STATES["busy"](real, at))
        page = shown(seen, url)
        turn(page, answers)
        assert audit(page) == []
        assert fits(page)
        assert seen.faults == []
        assert page.evaluate("document.getAnimations().length") == 0


@pytest.mark.parametrize("state", ["empty", "many"])
def test_little_and_much_on_a_phone(browser: Browser, url: str, real: Status, state: str) -> None:
    with Visit(browser, width=360) as seen:
        Answers(seen, lambda at: STATES[state](real, at))
        page = shown(seen, url)
        assert fits(page)
        assert page.get_by_text("None is open.").is_visible() == (state == "empty")
        assert page.get_by_text("Nothing has been refused.").is_visible() == (state == "empty")
        assert page.locator("#tunnels tbody tr").count() == {"empty": 1, "many": 60}[state]
        assert seen.faults == []


@pytest.mark.parametrize(("code", "width", "dark"), [(401, 360, True), (503, 1280, False)])
def test_anybody_can_use_it_when_it_does_not_answer(
    browser: Browser, url: str, real: Status, code: int, width: int, *, dark: bool
) -> None:
    with Visit(browser, width=width, dark=dark) as seen:
        answers = Answers(seen, lambda at: STATES["busy"](real, at))
        page = shown(seen, url)
        answers.code = code
        turn(page, answers)
        page.get_by_role("heading", name="Connection lost" if code == 503 else "asks for its admin token").wait_for()
        assert audit(page) == []
        assert fits(page)
        assert not page.get_by_role("heading", name="Tunnels").is_visible() or code == 503


def test_tables_stay_tables_on_a_phone(browser: Browser, url: str, real: Status) -> None:
    """Rows that look like cards are rows to a screen reader, with every cell and the headings."""
    with Visit(browser, width=360) as seen:
        Answers(seen, lambda at: STATES["busy"](real, at))
        page = shown(seen, url)
        for name, rows in (("Tunnels", 3), ("Refused", 2), ("Connections", 25), ("Keys", 2)):
            table = page.get_by_role("table", name=name)
            assert table.get_by_role("row").count() == rows + 1, name
            columns = table.get_by_role("columnheader").count()
            assert columns >= 5
            assert table.get_by_role("rowheader").count() == rows
            assert table.get_by_role("cell").count() == rows * (columns - 1)


def test_by_keyboard_alone(browser: Browser, url: str, real: Status) -> None:
    with Visit(browser) as seen:
        answers = Answers(seen, lambda at: STATES["many"](real, at))
        page = shown(seen, url)
        focused = "document.activeElement.id || document.activeElement.className"
        order = []
        for _ in range(12):
            page.keyboard.press("Tab")
            order.append(page.evaluate(focused))
        assert order == [
            "skip",
            "pause",
            "theme",
            "scroll",
            "scroll",
            "which",
            "which",
            "filter",
            "order",
            "scroll",
            "more",
            "scroll",
        ]
        rows = page.locator("#connections tbody tr")
        assert rows.count() == 25
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        assert rows.count() == 100
        assert page.evaluate(focused) == "more"
        page.locator("#filter").focus()
        page.keyboard.type("0000000f")
        page.keyboard.press("ArrowLeft")
        turn(page, answers)
        assert page.evaluate("[document.activeElement.id, document.activeElement.selectionStart]") == ["filter", 7]
        assert "connections=1000" in answers.queries[-1]
        assert page.locator("#connections-note").inner_text().startswith("1 among the 100 newest of 4,000")
        assert rows.count() == 1


def test_rows_are_kept(browser: Browser, url: str, real: Status) -> None:
    """What does not change is not touched: a selection survives, and newcomers come where they belong."""
    with Visit(browser) as seen:

        def make(at: float) -> Status:
            status = made(real, connections=3, at=at)
            status["connections"]["shown"] = [connection(number) for number in ([1, 2, 3] if at <= NOW + 2 else [4, 3, 1])]
            return status

        answers = Answers(seen, make)
        page = shown(seen, url)
        page.evaluate(
            "for (const row of document.querySelectorAll('#connections tbody tr')) row.mark = row.innerText.slice(0, 16)"
        )
        turn(page, answers)
        wait_for(
            lambda: page.evaluate("document.querySelector('#connections tbody tr').innerText.startsWith('0000000000000004')"),
            words="new",
        )
        marks = page.evaluate("[...document.querySelectorAll('#connections tbody tr')].map((row) => row.mark ?? null)")
        assert marks == [None, f"{3:016x}", f"{1:016x}"]


def test_what_is_said_aloud_changes_only_with_the_state(browser: Browser, url: str, real: Status) -> None:
    """Figures change every two seconds; the live region does not."""
    with Visit(browser) as seen:
        level = [8_999]

        def make(at: float) -> Status:
            status = made(real, at=at)
            tunnel(open=level[0])(status)
            return status

        answers = Answers(seen, make)
        page = shown(seen, url)
        page.evaluate(
            """() => {
                window.said = 0;
                const options = { childList: true, subtree: true, characterData: true };
                for (const region of document.querySelectorAll('[role=status], [role=alert], [aria-live]'))
                    new MutationObserver(() => { window.said += 1; }).observe(region, options);
            }"""
        )
        turn(page, answers)
        turn(page, answers)
        assert page.evaluate("said") == 0
        level[0] = 10_000
        turn(page, answers)
        wait_for(lambda: page.evaluate("said") == 1, words="it is said once")


# -- looking ---------------------------------------------------------------------------------------------------------------------


def test_asks_only_while_somebody_looks(browser: Browser, url: str, real: Status) -> None:
    with Visit(browser) as seen:
        answers = Answers(seen, lambda at: made(real, at=at))
        page = shown(seen, url)
        turn(page, answers)
        page.get_by_role("button", name="Pause").click()
        assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"
        asked = answers.count
        page.clock.run_for(20_000)
        assert answers.count == asked
        page.get_by_role("button", name="Pause").click()
        wait_for(lambda: answers.count > asked or page.evaluate("null"), words="it asks at once")
        hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); "
        hide += "document.dispatchEvent(new Event('visibilitychange')); }"
        page.evaluate(hide, True)
        page.clock.run_for(2000)
        asked = answers.count
        page.clock.run_for(20_000)
        assert answers.count == asked
        page.evaluate(hide, False)
        wait_for(lambda: answers.count > asked or page.evaluate("null"), words="it asks at once")


def test_one_tunnel_of_many(browser: Browser, url: str, real: Status) -> None:
    """Chosen in either place, for the chart and for the connections; gone with a reload, it is all of them again."""
    with Visit(browser) as seen:
        tunnels = [3]
        answers = Answers(seen, lambda at: made(real, tunnels=tunnels[0], at=at))
        page = shown(seen, url)
        page.locator("#throughput-title ~ label select").select_option("tunnel-2")
        turn(page, answers)
        assert "tunnel=tunnel-2" in answers.queries[-1]
        assert page.evaluate("[...document.querySelectorAll('.which')].map((select) => select.value)") == ["tunnel-2", "tunnel-2"]
        tunnels[0] = 1
        turn(page, answers)
        turn(page, answers)
        assert answers.queries[-1].endswith("tunnel=")


def test_theme(browser: Browser, url: str, real: Status) -> None:
    """As the system has it, unless somebody chose."""
    with Visit(browser, dark=True) as seen:
        Answers(seen, lambda at: made(real, at=at))
        page = shown(seen, url)
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.get_by_label("Theme").select_option("light")
        light = page.evaluate(background)
        assert light != dark
        page.reload()
        assert page.evaluate(background) == light
        page.get_by_label("Theme").select_option("system")
        assert page.evaluate(background) == dark
        page.emulate_media(color_scheme="light")
        assert page.evaluate(background) == light


def test_a_mistake_of_ours_does_not_look_like_the_truth(browser: Browser, url: str, real: Status) -> None:
    """An answer that the page cannot draw: it says so, and goes on asking."""
    with Visit(browser) as seen:
        whole = [True]
        answers = Answers(seen, lambda at: made(real, at=at) if whole[0] else {"tunnels": "?"})
        page = shown(seen, url)
        whole[0] = False
        turn(page, answers)
        page.get_by_role("heading", name="Connection lost").wait_for()
        assert "cannot be shown" in page.locator("#verdict").inner_text()
        whole[0] = True
        turn(page, answers)
        page.get_by_role("heading", name="All is well").wait_for()
