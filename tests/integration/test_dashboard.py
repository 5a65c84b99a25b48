"""The dashboard in a browser, with real tunnels behind it: what goes on, what was refused, what strangers say, who may look."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.browser import Visit
from harness.process import wait_for
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, read_all, read_exactly

from stcp_proxy.errors import Code
from stcp_proxy.protocol.frames import Sealer
from stcp_proxy.protocol.handshake import Credentials, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.opening import encode_reason
from stcp_proxy.protocol.wire import FrameType, Suite

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "0123456789abcdef0123456789abcdef"


def admin(proxy: Proxy) -> str:
    """Its admin address, as text."""
    address: str = proxy.wait_log("admin address")[0]["addresses"][0]
    return address


def cells(page: Page, table: str) -> list[dict[str, str]]:
    """The rows of a table, by heading; as a person would read them."""
    found: list[dict[str, str]] = page.evaluate(
        """(id) => {
            const table = document.getElementById(id);
            const names = [...table.querySelectorAll("thead th")].map((th) => th.innerText);
            return [...table.querySelectorAll("tbody tr")].map((row) =>
                Object.fromEntries([...row.children].map((cell, at) => [names[at], cell.innerText])));
        }""",
        table,
    )
    return found


def until(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression is true; the page's policy keeps Playwright's own way, which evaluates text, out."""
    wait_for(lambda: page.evaluate(expression), words=expression)


@contextlib.contextmanager
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    """A visit that must go without a fault, and ask for nothing elsewhere."""
    with Visit(browser) as found:
        found.open(url)
        yield found
        assert found.faults == []
        assert [address for address in found.requests if not address.startswith(url)] == []


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, echo: Target) -> Iterator[Pair]:
    """Both sides have an admin address."""
    flags = ["--admin", "127.0.0.1:0"]
    with Pair(tmp_path_factory.mktemp("pair"), echo.to, listen=flags, connect=flags) as found:
        yield found


def test_a_tunnel_at_work(browser: Browser, pair: Pair) -> None:
    """What is open, whose it is, and how much goes through it now."""
    with visit(browser, f"http://{admin(pair.listen)}/") as seen, contextlib.ExitStack() as open_ones:
        page = seen.page
        page.get_by_role("heading", name="All is well").wait_for()
        page.get_by_text("No connection is open.").wait_for()
        socks = [open_ones.enter_context(connect(pair.address)) for _ in range(3)]
        for sock in socks:
            sock.sendall(b"x" * 100_000)
            assert len(read_exactly(sock, 100_000)) == 100_000
        until(page, "document.querySelectorAll('#connections tbody tr').length === 3")
        (tunnel,) = cells(page, "tunnels")
        assert tunnel["State"] == "serving"
        assert tunnel["Open"].startswith("3\n")
        assert "app-host" in tunnel["Peers"]
        assert pair.listen.addresses[0] in tunnel["From → to"]
        until(page, "document.querySelector('#opened .readout').innerText.includes('3 open')")
        rows = cells(page, "connections")
        assert {row["Peer"] for row in rows} == {"app-host"}
        assert {row["Engine"] for row in rows} <= {"python", "kernel"}
        assert {row["To wire"] for row in rows} == {row["To plain"] for row in rows} == {"100 kB"}
        assert all(re.fullmatch(r"\d+ s", row["Age"]) for row in rows)
        channels = {line["Channel"] for line in rows}
        (own, peer) = cells(page, "keys")
        assert own["Key of"].startswith("this proxy")
        assert str(pair.keys.client.public) in peer["Public key"].replace("\n", "")
        assert peer["Can be removed"].startswith("No")
        assert peer["Open"] == "3"
        open_ones.close()
        page.get_by_text("No connection is open.").wait_for()
        assert {line["channel"] for line in pair.listen.ended(3)} == channels


def test_what_was_refused_and_the_remedy(browser: Browser, pair: Pair) -> None:
    """A stranger is a note; a peer of ours whose key is missing is something to look at."""
    with connect(pair.listen.address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            read_all(sock)
    with visit(browser, f"http://{admin(pair.listen)}/") as seen:
        page = seen.page
        page.get_by_role("heading", name="All is well").wait_for()
        until(page, "document.querySelectorAll('#refusals tbody tr').length === 1")
        (row,) = cells(page, "refusals")
        line = pair.listen.refused()[0]
        assert line["why"] in row["Why"]
        assert line["reason"] in row["Why"]
        assert "a stranger at 127.0.0.1" in page.locator("#verdict").inner_text()
        keys = pair.keys
        flags = ["--key", str(keys.folder / "stranger.key"), "--peer", str(keys.server.public)]
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", pair.listen.addresses[0], *flags]
        with Proxy(arguments, log=keys.folder / "stranger.log") as proxy:
            sock = connect(proxy.ready().address)
            with sock, contextlib.suppress(ConnectionResetError):
                sock.recv(1)
        page.get_by_role("heading", name="The tunnel refuses connections").wait_for()
        verdict = page.locator("#verdict").inner_text()
        assert "the peer's key is not allowed here" in verdict
        assert "add the key shown here to 'allow'" in verdict
        assert str(keys.stranger.public) in verdict
        assert page.title().startswith("▲ ")


# -- text of strangers ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "\u202egnp.exe\u2066 \u200b",
    "w" * 250,
    "שלום עולם",
]


def rejecting(keys: Keys, texts: list[str]) -> Target:
    """A listening side with the right key that refuses everything, each time in other words."""
    left = iter(texts)

    def serve(sock: socket.socket) -> None:
        responder = Responder([Suite.HYBRID_KEYS], Credentials(static=KeyPair(keys.server.secret)), allowed=lambda _: True)
        while (answer := responder.receive(sock.recv(4096))) is None:
            pass
        reject = Sealer(answer.established.send_key).seal(FrameType.REJECT, encode_reason(Code.DENIED, next(left)))
        sock.sendall(answer.reply + bytes(reject))
        with contextlib.suppress(OSError):
            read_all(sock)

    return Target(serve)


@pytest.mark.parametrize("width", [360, 1280])
def test_text_of_a_peer_is_text(browser: Browser, tmp_path: Path, width: int) -> None:
    """Whatever a peer says in a REJECT stands on the page as it was said, does nothing, and breaks nothing."""
    keys = Keys(tmp_path)
    with rejecting(keys, HOSTILE) as peer:
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", peer.to, *keys.connect(), "--admin", "127.0.0.1:0"]
        with Proxy(arguments, log=tmp_path / "connect.log").ready() as proxy:
            for _ in HOSTILE:
                with connect(proxy.address) as sock, contextlib.suppress(ConnectionResetError):
                    sock.recv(1)
            proxy.refused(len(HOSTILE), reason="rejected")
            with Visit(browser, width=width) as seen:
                page = seen.open(f"http://{admin(proxy)}/")
                until(page, f"document.querySelectorAll('#refusals tbody tr').length === {len(HOSTILE)}")
                said = "".join(row["Why"] for row in cells(page, "refusals"))
                for text in HOSTILE[:2] + HOSTILE[3:]:
                    assert text.replace("\n", " ") in said
                assert "\\u202egnp.exe\\u2066 \\u200b" in said
                assert not re.search("[\u202e\u2066\u200b]", page.content())
                assert page.locator("main img, main script").count() == 0
                assert "owned" not in page.title()
                assert seen.faults == []
                assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_policy_stops_what_the_page_does_not_do(browser: Browser, pair: Pair) -> None:
    """If a script of ours ever parsed text as HTML, or a line of it stood in the page, the browser would refuse."""
    with Visit(browser) as seen:
        page = seen.open(f"http://{admin(pair.listen)}/")
        page.get_by_role("heading", name="Tunnels").wait_for()
        parse = "() => { try { document.body.innerHTML = '<b>x</b>'; return 'done'; } catch { return 'refused'; } }"
        assert page.evaluate(parse) == "refused"
        page.evaluate("() => { document.body.appendChild(document.createElement('img')).src = '//127.0.0.1:9/'; }")
        wait_for(lambda: len(seen.faults) >= 2 or page.wait_for_timeout(50), words="both are reported")
        assert all("Content Security Policy" in fault or "TrustedHTML" in fault for fault in seen.faults)


# -- who may look --------------------------------------------------------------------------------------------------------------


def test_the_token(browser: Browser, tmp_path: Path, echo: Target) -> None:
    """Asked for, kept for the tab alone, sent in a header alone, forgotten on demand."""
    keys = Keys(tmp_path)
    (tmp_path / "admin.token").write_text(TOKEN)
    (tmp_path / "admin.token").chmod(0o600)
    arguments = ["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *keys.listen()]
    flags = ["--admin", "127.0.0.1:0", "--admin-token", str(tmp_path / "admin.token")]
    with Proxy([*arguments, *flags], log=tmp_path / "listen.log").ready() as proxy:
        url = f"http://{admin(proxy)}/"
        with visit(browser, url) as seen:
            page = seen.page
            field = page.get_by_label("Token", exact=True)
            for wrong in ("not-the-token-at-all", "não é", " "):
                field.fill(wrong)
                field.press("Enter")
            page.get_by_text("This token is wrong.").wait_for()
            assert page.locator("#content").is_hidden()
            field.fill(TOKEN)
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("heading", name="All is well").wait_for()
            page.reload()
            page.get_by_role("heading", name="All is well").wait_for()
            kept = page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]")
            assert kept == [[TOKEN], [], ""]
            page.get_by_role("button", name="Forget token").click()
            field.wait_for()
            assert page.evaluate("Object.values(sessionStorage)") == []
            assert not page.get_by_role("heading", name="All is well").is_visible()
            assert [address for address in seen.requests if TOKEN in address] == []
        assert TOKEN not in proxy.text()


class Forwarder:
    """A port of 127.0.0.1 in front of a unix socket, as ``ssh -L`` makes one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._front = Target(self._serve)
        self.to = self._front.to

    def _serve(self, left: socket.socket) -> None:
        with connect(self._path) as right:

            def pump(source: socket.socket, sink: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    while data := source.recv(1 << 16):
                        sink.sendall(data)
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)

            for sock in (left, right):
                sock.settimeout(60)
            back = threading.Thread(target=pump, args=(right, left), daemon=True)
            back.start()
            pump(left, right)
            back.join(60)

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._front.close()


def test_behind_a_unix_socket(browser: Browser, tmp_path: Path, echo: Target) -> None:
    keys = Keys(tmp_path)
    path = tmp_path / "admin.sock"
    arguments = ["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *keys.listen(), "--admin", f"unix:{path}"]
    with Proxy(arguments, log=tmp_path / "listen.log").ready(), Forwarder(str(path)) as forwarder:
        port = forwarder.to.rpartition(":")[2]
        with visit(browser, f"http://localhost:{port}/") as seen:
            seen.page.get_by_role("heading", name="All is well").wait_for()


# -- a proxy that goes, and comes back -------------------------------------------------------------------------------------------


def test_connection_lost_and_found(browser: Browser, tmp_path: Path, echo: Target) -> None:
    """Nothing on the page looks true that no longer is; it goes on by itself once the proxy is back, and no rate is made up."""
    keys = Keys(tmp_path)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Pair(tmp_path, echo.to, keys=keys, connect=["--admin", "127.0.0.1:0"]))
        address = admin(first.connect)
        seen = stack.enter_context(visit(browser, f"http://{address}/"))
        page = seen.page
        page.get_by_role("heading", name="All is well").wait_for()
        with connect(first.address) as sock:
            sock.sendall(b"x" * 500_000)
            read_exactly(sock, 500_000)
        until(page, "document.querySelector('#tunnels tbody').innerText.includes('500 kB')")
        first.connect.stop()
        page.get_by_role("heading", name="Connection lost").wait_for()
        assert page.title().startswith("■ ")
        assert "the last answer came at" in page.locator("#verdict").inner_text().lower()
        assert page.evaluate("getComputedStyle(document.querySelector('#tunnels').closest('section')).filter") == "grayscale(1)"
        again = ["connect", "--bind", "127.0.0.1:0", "--to", first.listen.addresses[0], *keys.connect(), "--admin", address]
        stack.enter_context(Proxy(again, log=tmp_path / "again.log")).ready()
        page.get_by_role("heading", name="All is well").wait_for()
        until(page, "document.querySelector('#tunnels tbody').innerText.includes('0 B/s')")
        assert "500 kB" not in page.locator("#tunnels tbody").inner_text()


# -- the files -------------------------------------------------------------------------------------------------------------------


def get(address: str, path: str, **headers: str) -> http.client.HTTPResponse:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.data = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def test_the_files_and_their_headers(pair: Pair) -> None:
    address = admin(pair.listen)
    page = get(address, "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    for rule in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"):
        assert rule in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    script = get(address, "/assets/app.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert get(address, "/assets/app.js", if_none_match=script.headers["etag"]).status == 304
    assert get(address, "/assets/vendor/uPlot.LICENSE").status == 200


STRAY = ["/assets/", "/assets/../host.py", "/assets/%2e%2e/host.py", "/assets//etc/passwd", "/assets/none.js"]


@pytest.mark.parametrize("path", STRAY)
def test_nothing_else_is_served(pair: Pair, path: str) -> None:
    assert get(admin(pair.listen), path).status == 404


def test_without_scripts(browser: Browser, pair: Pair) -> None:
    """The page says where the figures are."""
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(f"http://{admin(pair.listen)}/")
        page.get_by_role("link", name="/status").click()
        assert '"tunnels"' in page.content()
    finally:
        context.close()
