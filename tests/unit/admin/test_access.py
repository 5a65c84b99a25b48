"""Who may ask at the admin address."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from starlette.responses import PlainTextResponse
from trio.testing import MockClock

from stcp_proxy.admin.access import TRUSTED, AccessControl
from stcp_proxy.config import AdminPlan, Token
from stcp_proxy.net.address import Address, TcpAddress, UnixAddress

TOKEN = "0123456789abcdef0123456789abcdef"
LOOPBACK = TcpAddress("127.0.0.1", 9901)


async def ask(
    address: Address = LOOPBACK, path: str = "/status", *, token: str | None = None, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of one request to a guarded page that says "told"."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    plan = AdminPlan(address, None if token is None else Token(token))
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in {"host": "localhost", **headers}.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    await AccessControl(PlainTextResponse("told"), plan)(scope, receive, send)
    start, *rest = sent
    answer = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], answer, b"".join(part.get("body", b"") for part in rest).decode()


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9901", "LOCALHOST.", "127.0.0.1", "127.0.0.1:8080", "127.8.8.8", "[::1]", "[::1]:9901"]
)
async def test_a_loopback_address_answers_to_this_machines_names(host: str) -> None:
    assert (await ask(host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0", "",
        "[::1", "localhost@evil.example:1", "evil.example@localhost", "evil.example:1@localhost:9901",
        "localhost:1:2", "[::1]x", "evil.example#localhost", "evil.example/localhost", "2130706433", "0x7f.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/status", "/metrics", "/"])
async def test_a_page_whose_name_was_made_to_mean_this_machine_gets_nothing(host: str, path: str) -> None:
    status, _, body = await ask(path=path, host=host)
    assert status == 421
    assert "told" not in body


@pytest.mark.parametrize("host", ["", "evil.example", "10.0.0.1", "proxy.internal:9901"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_probe_is_answered_by_whatever_name_it_asks(host: str, path: str, method: str) -> None:
    """A load balancer's check, in HTTP/1.0 without a name too."""
    assert (await ask(path=path, host=host, method=method))[0] == 200


@pytest.mark.parametrize(("host", "trusted"), [("localhost", True), ("", False), ("evil.example", False)])
async def test_a_probe_by_a_foreign_name_is_told_no_addresses(host: str, trusted: bool) -> None:
    seen: list[bool] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope[TRUSTED])

    await probe(AccessControl(app, AdminPlan(LOOPBACK, None)), host=host)
    assert seen == [trusted]


async def test_a_flood_of_one_source_delays_no_probe_of_another(autojump_clock: MockClock) -> None:
    guard = AccessControl(PlainTextResponse("told"), AdminPlan(LOOPBACK, Token(TOKEN)))

    async def flood() -> None:
        while True:
            await probe(guard, client=("10.0.0.66", 1))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(flood)
        await trio.sleep(30)
        began = trio.current_time()
        for _ in range(10):
            await probe(guard, client=("10.0.0.1", 1))
        assert trio.current_time() - began < 0.01
        nursery.cancel_scope.cancel()


async def probe(guard: AccessControl, *, host: str = "localhost", client: tuple[str, int] = ("127.0.0.1", 1)) -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(_message: Any) -> None:
        await trio.lowlevel.checkpoint()

    headers = [(b"host", host.encode())] if host else []
    await guard({"type": "http", "method": "GET", "path": "/healthz", "headers": headers, "client": client}, receive, send)


async def test_the_bound_name_is_an_own_name() -> None:
    assert (await ask(TcpAddress("127.0.0.2", 1), host="127.0.0.2:1"))[0] == 200


async def test_no_browser_reaches_a_unix_socket() -> None:
    assert (await ask(UnixAddress("/run/admin"), host="stcp"))[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:8080", "http://localhost", "", "file://"])
async def test_another_site_changes_nothing(origin: str) -> None:
    assert (await ask(path="/quit", method="POST", host="localhost:9901", origin=origin))[0] == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_nor_does_a_request_that_a_browser_says_is_another_sites(site: str) -> None:
    assert (await ask(path="/quit", method="POST", sec_fetch_site=site))[0] == 403


@pytest.mark.parametrize("headers", [{}, {"origin": "http://localhost:9901"}, {"sec_fetch_site": "same-origin"}])
async def test_a_program_and_the_own_page_may(headers: dict[str, str]) -> None:
    assert (await ask(path="/quit", method="POST", **{"host": "localhost:9901", **headers}))[0] == 200


@pytest.mark.parametrize(
    "header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN} "], ids=["usual", "small letters", "spaces"]
)
async def test_the_token_opens(header: str) -> None:
    assert (await ask(token=TOKEN, host="proxy.internal", authorization=header))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN}0"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": "Bearer ÿ"},
        {"x-token": TOKEN},
    ],
)
async def test_anything_else_does_not_and_the_answer_does_not_say_it(headers: dict[str, str]) -> None:
    status, answer, body = await ask(token=TOKEN, **headers)
    assert status == 401
    assert answer["www-authenticate"].startswith("Bearer")
    assert TOKEN[:8] not in body


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/assets/page.js"])
async def test_what_holds_no_data_needs_no_token(path: str) -> None:
    assert (await ask(path=path, token=TOKEN))[0] == 200


@pytest.mark.parametrize("path", ["/status", "/metrics", "/quit", "/healthz/", "/assets", "//", "/nothing"])
async def test_all_else_does(path: str) -> None:
    assert (await ask(path=path, token=TOKEN))[0] == 401


async def test_a_token_does_not_make_another_site_welcome() -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "origin": "http://evil.example"}
    assert (await ask(path="/quit", method="POST", token=TOKEN, **headers))[0] == 403


async def test_answers_and_refusals_alike_cannot_be_framed_kept_or_guessed_at() -> None:
    for host in ("localhost", "evil.example"):
        _, headers, _ = await ask(host=host)
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_a_token_is_not_shown() -> None:
    token = Token(TOKEN)
    assert TOKEN not in f"{token} {token!r} {AdminPlan(LOOPBACK, token)}"
