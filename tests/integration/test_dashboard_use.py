"""The dashboard's page while somebody uses it: pauses, the choice of a tunnel, the theme, an answer that it cannot draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.browser import Visit
from harness.dashboard_page import Answers, Status, made, shown, turn
from harness.process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_asks_only_while_somebody_looks(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    with Visit(browser) as seen:
        answers = Answers(seen, lambda at: made(real_status, at=at))
        page = shown(seen, dashboard_url)
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


def test_one_tunnel_of_many(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    """Chosen in either place, for the chart and for the connections; gone with a reload, it is all of them again."""
    with Visit(browser) as seen:
        tunnels = [3]
        answers = Answers(seen, lambda at: made(real_status, tunnels=tunnels[0], at=at))
        page = shown(seen, dashboard_url)
        page.locator("#throughput-title ~ label select").select_option("tunnel-2")
        turn(page, answers)
        assert "tunnel=tunnel-2" in answers.queries[-1]
        assert page.evaluate("[...document.querySelectorAll('.which')].map((select) => select.value)") == ["tunnel-2", "tunnel-2"]
        tunnels[0] = 1
        turn(page, answers)
        turn(page, answers)
        assert answers.queries[-1].endswith("tunnel=")


def test_theme(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    """As the system has it, unless somebody chose."""
    with Visit(browser, dark=True) as seen:
        Answers(seen, lambda at: made(real_status, at=at))
        page = shown(seen, dashboard_url)
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


def test_a_mistake_of_ours_does_not_look_like_the_truth(browser: Browser, dashboard_url: str, real_status: Status) -> None:
    """An answer that the page cannot draw: it says so, and goes on asking."""
    with Visit(browser) as seen:
        whole = [True]
        answers = Answers(seen, lambda at: made(real_status, at=at) if whole[0] else {"tunnels": "?"})
        page = shown(seen, dashboard_url)
        whole[0] = False
        turn(page, answers)
        page.get_by_role("heading", name="Connection lost").wait_for()
        assert "cannot be shown" in page.locator("#verdict").inner_text()
        whole[0] = True
        turn(page, answers)
        page.get_by_role("heading", name="All is well").wait_for()
