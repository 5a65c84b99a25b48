"""The dashboard's page with made-up answers: every state, at every width, in both themes, by keyboard, and for screen readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from harness.browser import Visit
from harness.dashboard_page import (
    HOSTILE,
    NOW,
    Answers,
    Status,
    certificate,
    connection,
    fault,
    fits,
    made,
    peer_certificate,
    refusal,
    shown,
    turn,
    verdict,
)
from harness.process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def everywhere(real_status: Status, at: float) -> Status:
    """Hostile text in every place for text that is not one of a few words of ours."""
    status = made(real_status, tunnels=2, connections=3, at=at)
    status["refusals"] = [refusal(), refusal(reason="not_stcp", time=NOW - 20)]
    status["verdict"] = verdict(fault(), fault(key="o", until=NOW - 5))
    status["certificates"], status["peer_certificates"] = [certificate()], [peer_certificate()]

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: spoil(child, name) for name, child in value.items()}
        if isinstance(value, list):
            return [spoil(child, key) for child in value]
        return (
            f"{value}{HOSTILE}"
            if isinstance(value, str) and key not in {"state", "health", "order", "level", "headline"}
            else value
        )

    status["reloads"]["last"] = {"time": at, "ok": False, "what": "x"}
    spoilt: Status = spoil(status)
    return spoilt


@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_text_everywhere(browser: Browser, dashboard_url: str, real_status: Status, width: int) -> None:
    with Visit(browser, width=width) as seen:
        Answers(seen, lambda at: everywhere(real_status, at))
        page = shown(seen, dashboard_url)
        assert page.locator("main img, main script").count() == 0
        assert "owned" not in page.title()
        assert "\u202e" not in page.evaluate("document.body.innerText + document.body.textContent + document.title")
        assert page.get_by_text("onerror").count() > 20
        assert seen.faults == []
        assert fits(page)


STATES: dict[str, Callable[[Status, float], Status]] = {
    "busy": lambda real_status, at: {
        **made(real_status, tunnels=3, connections=40, at=at),
        "refusals": [refusal(), refusal(reason="not_stcp")],
        "verdict": verdict(
            fault(), fault(key="w", level="warn", public_key="stcp-pub:" + "K" * 44), fault(key="o", until=NOW - 60), more=2
        ),
        "certificates": [certificate(), certificate(serial="2f", not_after=NOW - 86400, overdue="it expired", may_go="yes")],
        "peer_certificates": [peer_certificate()],
    },
    "empty": lambda real_status, at: {**made(real_status, at=at), "keys": [], "refusals": []},
    "many": lambda real_status, at: {
        **made(real_status, tunnels=60, connections=4000, at=at),
        "refusals": [refusal(tunnel=f"t{number}") for number in range(50)],
    },
}


def audit(page: Page) -> list[str]:
    """What axe-core finds fault with: contrast, names, roles, and more."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_anybody_can_use_it(browser: Browser, dashboard_url: str, real_status: Status, width: int, *, dark: bool) -> None:
    with Visit(browser, width=width, dark=dark) as seen:
        answers = Answers(seen, lambda at: STATES["busy"](real_status, at))
        page = shown(seen, dashboard_url)
        turn(page, answers)
        assert audit(page) == []
        assert fits(page)
        assert seen.faults == []
        assert page.evaluate("document.getAnimations().length") == 0


@pytest.mark.parametrize("state", ["empty", "many"])
def test_little_and_much_on_a_phone(browser: Browser, dashboard_url: str, real_status: Status, state: str) -> None:
    with Visit(browser, width=360) as seen:
        Answers(seen, lambda at: STATES[state](real_status, at))
        page = shown(seen, dashboard_url)
        assert fits(page)
        assert page.get_by_text("No connection is open.").is_visible() == (state == "empty")
        assert page.get_by_text("Nothing has been refused.").is_visible() == (state == "empty")
        assert page.locator("#tunnels tbody tr").count() == {"empty": 1, "many": 60}[state]
        assert seen.faults == []


@pytest.mark.parametrize(("code", "width", "dark"), [(401, 360, True), (503, 1280, False)])
def test_anybody_can_use_it_when_it_does_not_answer(
    browser: Browser, dashboard_url: str, real_status: Status, code: int, width: int, *, dark: bool
) -> None:
    with Visit(browser, width=width, dark=dark) as seen:
        answers = Answers(seen, lambda at: STATES["busy"](real_status, at))
        page = shown(seen, dashboard_url)
        answers.code = code
        turn(page, answers)
        page.get_by_role("heading", name="Connection lost" if code == 503 else "asks for its admin token").wait_for()
        assert audit(page) == []
        assert fits(page)
        assert not page.get_by_role("heading", name="Tunnels").is_visible() or code == 503


def test_tables_stay_tables_on_a_phone(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    """Rows that look like cards are rows to a screen reader, with every cell and the headings."""
    with Visit(browser, width=360) as seen:
        Answers(seen, lambda at: STATES["busy"](real_status, at))
        page = shown(seen, dashboard_url)
        for name, rows in (
            ("Tunnels", 3),
            ("Refused", 2),
            ("Connections", 25),
            ("Keys", 2),
            ("Certificates", 2),
            ("Certificates of peers", 1),
        ):
            table = page.get_by_role("table", name=name, exact=True)
            assert table.get_by_role("row").count() == rows + 1, name
            columns = table.get_by_role("columnheader").count()
            assert columns >= 5
            assert table.get_by_role("rowheader").count() == rows
            assert table.get_by_role("cell").count() == rows * (columns - 1)


def test_by_keyboard_alone(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    with Visit(browser) as seen:
        answers = Answers(seen, lambda at: STATES["many"](real_status, at))
        page = shown(seen, dashboard_url)
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


def test_wire_legs_at_rest_are_shown_where_there_are_some(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    with Visit(browser) as seen:

        def make(at: float) -> Status:
            status = made(real_status, tunnels=3, at=at)
            for tunnel, legs in zip(status["tunnels"], (0, 1, 1500), strict=True):
                tunnel["idle_legs"] = legs
            return status

        Answers(seen, make)
        rows = shown(seen, dashboard_url).locator("#tunnels tbody tr")
        assert [("idle" in text, "1 idle leg" in text, "1,500 idle legs" in text) for text in rows.all_inner_texts()] == [
            (False, False, False), (True, True, False), (True, False, True),
        ]  # fmt: skip


def test_rows_are_kept(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    """What does not change is not touched: a selection survives, and newcomers come where they belong."""
    with Visit(browser) as seen:

        def make(at: float) -> Status:
            status = made(real_status, connections=3, at=at)
            status["connections"]["shown"] = [connection(number) for number in ([1, 2, 3] if at <= NOW + 2 else [4, 3, 1])]
            return status

        answers = Answers(seen, make)
        page = shown(seen, dashboard_url)
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


def test_what_is_said_aloud_changes_only_with_the_state(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    """Figures change every two seconds; the live region does not."""
    with Visit(browser) as seen:
        said = ["All is well"]

        def make(at: float) -> Status:
            return {**made(real_status, at=at), "verdict": verdict(fault(), headline=said[0])}

        answers = Answers(seen, make)
        page = shown(seen, dashboard_url)
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
        said[0] = "The tunnel is full"
        turn(page, answers)
        wait_for(lambda: page.evaluate("said") == 1, words="it is said once")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_the_verdict_says_what_is_wrong_since_when_and_what_to_do(
    browser: Browser, dashboard_url: str, real_status: Status, width: int, *, dark: bool
) -> None:
    key = "stcp-pub:" + "K" * 44
    found = verdict(
        fault(times=3),
        fault(key="w", level="warn", since=NOW - 60, last=NOW - 5, public_key=key),
        fault(key="o", until=NOW - 30),
        more=4,
    )
    with Visit(browser, width=width, dark=dark) as seen:
        Answers(seen, lambda at: {**made(real_status, at=NOW), "verdict": found})
        page = shown(seen, dashboard_url)
        box = page.locator("#verdict")
        assert page.locator("#verdict-line").inner_text() == "1 of 2 tunnels has no target"
        assert page.title() == "■ 1 of 2 tunnels has no target · stcp-proxy"
        first, second, over, more, tunnels = box.locator("li").all_inner_texts()
        assert first.startswith("Tunnel redis has no target: a:1 since 07:56:50 UTC, 3 min 10 s, 3 times since the start")
        assert "start it" in first
        assert key in second
        assert "last 5 s ago" in second
        assert "over since 07:59:30 UTC, lasted 2 min 40 s" in over
        assert "start it" not in over
        assert more.startswith("4 more")
        assert tunnels == "1 tunnel, 0 open connections."
        assert fits(page)
        top = page.evaluate("document.getElementById('verdict').getBoundingClientRect().top")
        assert top < 80, "the verdict stands at the top, on a phone too"


def test_the_last_hour_comes_from_the_proxy(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    """A page that has just been opened has the whole hour; later it asks for the new points alone."""
    with Visit(browser) as seen:
        answers = Answers(seen, lambda at: made(real_status, at=at))
        page = shown(seen, dashboard_url)
        assert answers.asked_past == ["points=360"]
        readout = page.locator("#throughput .readout")
        assert readout.inner_text() == "08:00:02 UTC: to the wire 1.0 kB/s, to plain legs 2.0 kB/s"
        assert page.locator("#opened .readout").inner_text() == "08:00:02 UTC: 3 open, 0 refused in 10 s"
        for _ in range(5):
            turn(page, answers)
        wait_for(lambda: len(answers.asked_past) == 2 or page.evaluate("null"), words="it asks once in ten seconds")
        assert answers.asked_past[1] == "points=2"
        assert seen.faults == []


@pytest.mark.parametrize("width", [390, 1280])
def test_certificates_are_shown_as_keys_are(browser: Browser, dashboard_url: str, real_status: Status, width: int) -> None:
    def make(at: float) -> Status:
        own = certificate(kind="certificate", name="(own)", subject="dns:db.prod.internal", serial="7f3a")
        old = certificate(not_after=NOW - 86400, overdue="it expired", may_go="yes", why="it has expired", connections=0)
        listed = certificate(kind="revocation list", serial="", not_after=None, may_go="no", why="they would be admitted again")
        peers = [peer_certificate(number) for number in range(30)]
        found = {"certificates": [own, old, listed], "peer_certificates": peers, "connections_of_others": 70}
        return {**made(real_status, at=at), **found}

    with Visit(browser, width=width) as seen:
        answers = Answers(seen, make)
        page = shown(seen, dashboard_url)
        own, old, listed = page.locator("#certificates tbody tr").all_inner_texts()
        for words in ("this proxy", "dns:db.prod.internal", "CN=prod root", "7f3a", "2027-01-24", "in 8 d 23 h", "3", "No"):
            assert words in own
        for words in ("prod", "2027-01-14", "1 d ago", "Yes", "it has expired"):
            assert words in old
        assert "no end" in listed
        rows = page.locator("#peer-certificates tbody tr")
        assert rows.count() == 25
        for words in ("spiffe://prod/ns/web/sa/app-0", "prod", "7" * 32, "listen", "in 59 min", "2"):
            assert words in rows.first.inner_text()
        note = page.locator("#peer-certificates-note").inner_text()
        assert note == "The certificates with most open connections; 80 connections by further certificates."
        assert fits(page)
        answers.make = lambda at: {**made(real_status, at=at), "certificates": [], "peer_certificates": []}
        turn(page, answers)
        for title in ("Certificates", "Certificates of peers"):
            wait_for(
                lambda title=title: not page.get_by_role("heading", name=title, exact=True).is_visible(), words="it is hidden"
            )
        assert seen.faults == []
