"""The tunnels of other projects, each tuned for this job as its manual says.

The same conditions for all: loopback, no pinning, access logs off, TCP_NODELAY, and mutual authentication. Each side has one
worker thread or process; stunnel can only use a thread for each connection. Each connection of an application has an encrypted
connection of its own. A TLS peer uses TLS 1.3, with ECDSA P-256 certificates of one authority on both sides and the library's
default suite (AES-256-GCM, as STCP). In most rows sessions and tickets are off, so that every connection makes a full handshake.
The peers `…-resume` have them on, as the programs do by default. They are measured where the opening of a connection counts.

A second set of the TLS peers may run in a root file system with newer versions (`in_root`): `tools/debian_root` makes one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from stcp_proxy.lab.bench.certs import SERVER_NAME
from stcp_proxy.lab.bench.peer import Commands, Peer, Place, Role, available_ulps
from stcp_proxy.lab.bench.rows import OPENING
from stcp_proxy.lab.loadgen import LabError

HERE: Final = Path("/")


def _program(*names: str, root: Path = HERE) -> list[str] | None:
    """The command of a program: its path; for a different root file system, `chroot` stands before it. None: not installed."""
    if root != HERE:
        folders = ("usr/sbin", "usr/bin", "sbin", "bin")
        inside = (Path(folder) / name for name in names for folder in folders)
        return next((["chroot", str(root), f"/{path}"] for path in inside if (root / path).exists()), None)
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"
    return next(([found] for name in names if (found := shutil.which(name, path=path))), None)


def _needs(*names: str, root: Path = HERE) -> Callable[[], str | None]:
    return lambda: None if _program(*names, root=root) else f"{names[0]} is not installed"


def _found(*names: str, root: Path = HERE) -> list[str]:
    program = _program(*names, root=root)
    if program is None:
        raise LabError(f"{names[0]} is not installed")
    return program


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout + done.stderr).strip()


def _first_line(*argv: str, containing: str = "", root: Path = HERE) -> Callable[[], str]:
    def version() -> str:
        program = _program(argv[0], root=root)
        lines = _output(*program, *argv[1:]).splitlines() if program else []
        return next((line.strip() for line in lines if containing in line), "")

    return version


# -- HAProxy ---------------------------------------------------------------------------------------------------------------

_HAPROXY = """\
global
    {ktls}nbthread 1
    maxconn 7000
    {sessions}
defaults
    mode tcp
    {splice} splice-auto
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen tunnel
    bind 127.0.0.1:{bind} backlog 4096{bind_tls}
    server next 127.0.0.1:{to}{server_tls}
"""


_EXPERIMENTAL: Final = "expose-experimental-directives\n    "
"""HAProxy 3.4 calls kTLS experimental."""
_HAPROXY_SESSIONS: Final = {
    False: """tune.ssl.cachesize 0
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets""",
    True: """ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3""",
}
"""Options for full handshakes (False) and for resumed sessions (True)."""


def _haproxy(
    place: Place, *, name: str, tls: bool = False, splice: bool = False, resume: bool = False, ktls: bool = False
) -> Commands:
    """Write HAProxy's files. With and without `tls` they differ only by encryption; `ktls` lets the kernel encrypt. Buffers have
    the default size of 16 KiB, because larger ones measured no better."""
    ca = place.folder / "ca.pem"
    serve = f" ssl crt {place.folder / 'listen.pem'} ca-file {ca} verify required"
    dial = (
        f" ssl crt {place.folder / 'connect.pem'} ca-file {ca} verify required"
        f" verifyhost {SERVER_NAME} sni str({SERVER_NAME})" + ("" if resume else " no-ssl-reuse")
    )
    if ktls:
        serve, dial = serve + " ktls on", dial + " ktls on"
    sessions = _HAPROXY_SESSIONS[resume]
    option = "option" if splice else "no option"
    ends = {
        "listen": {"bind": place.wire, "to": place.target, "bind_tls": serve if tls else "", "server_tls": ""},
        "connect": {"bind": place.entry, "to": place.dial, "bind_tls": "", "server_tls": dial if tls else ""},
    }
    program = _found("haproxy", root=place.root)
    texts = {
        side: _HAPROXY.format(ktls=_EXPERIMENTAL if ktls else "", splice=option, sessions=sessions, **end)
        for side, end in ends.items()
    }
    return {side: [*program, "-db", "-f", place.write(f"{name}-{side}.cfg", text)] for side, text in texts.items()}


def _ktls_missing(root: Path = HERE) -> str | None:
    program = _program("haproxy", root=root)
    if program is None:
        return "haproxy is not installed"
    if "+KTLS" not in _output(*program, "-vv"):
        return "HAProxy was built without kTLS"
    return None if "tls" in available_ulps() else "the kernel module tls is not loaded"


# -- nginx -----------------------------------------------------------------------------------------------------------------

_NGINX = """\
{module}daemon off;
{user}worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx-{side}.pid;
error_log stderr crit;
events {{ worker_connections 16000; multi_accept on; }}
stream {{
    proxy_buffer_size 64k;
    proxy_timeout 1h;
    tcp_nodelay on;
    server {{
        listen 127.0.0.1:{bind}{listen_options} backlog=4096;
        proxy_pass 127.0.0.1:{to};
        {tls}
    }}
}}
"""
_NGINX_LISTEN = """ssl_protocols TLSv1.3; ssl_certificate {folder}/listen.pem; ssl_certificate_key {folder}/listen.pem;
        ssl_client_certificate {folder}/ca.pem; ssl_verify_client on;{sessions}"""
_NGINX_CONNECT = """proxy_ssl on; proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {folder}/connect.pem;
        proxy_ssl_certificate_key {folder}/connect.pem; proxy_ssl_trusted_certificate {folder}/ca.pem;
        proxy_ssl_verify on; proxy_ssl_name {name};{sessions}"""
_NGINX_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def _nginx_module(root: Path) -> bool:
    return (root / _NGINX_MODULE.relative_to("/")).exists()


def _nginx_missing(root: Path = HERE) -> str | None:
    program = _program("nginx", root=root)
    if program is None:
        return "nginx is not installed"
    built_in = "--with-stream " in _output(*program, "-V") + " "
    return None if built_in or _nginx_module(root) else "nginx has no stream module here"


def _nginx(place: Place, *, resume: bool = False) -> Commands:
    program, folder = _found("nginx", root=place.root), place.folder
    off = {"listen": " ssl_session_tickets off; ssl_session_cache off;", "connect": " proxy_ssl_session_reuse off;"}
    sessions = dict.fromkeys(off, "") if resume else off
    common = {
        "module": f"load_module {_NGINX_MODULE};\n" if _nginx_module(place.root) else "",
        "user": "user root;\n" if os.geteuid() == 0 else "",
        "folder": folder,
    }
    listen = _NGINX.format(
        side="listen",
        bind=place.wire,
        to=place.target,
        listen_options=" ssl",
        tls=_NGINX_LISTEN.format(folder=folder, sessions=sessions["listen"]),
        **common,
    )
    connect = _NGINX.format(
        side="connect",
        bind=place.entry,
        to=place.dial,
        listen_options="",
        tls=_NGINX_CONNECT.format(folder=folder, name=SERVER_NAME, sessions=sessions["connect"]),
        **common,
    )
    return {
        side: [*program, "-p", str(folder), "-e", "stderr", "-c", place.write(f"nginx-{side}.conf", text)]
        for side, text in (("listen", listen), ("connect", connect))
    }


# -- stunnel ---------------------------------------------------------------------------------------------------------------

_STUNNEL = """\
foreground = yes
pid =
syslog = no
debug = err
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[tunnel]
client = {client}
accept = 127.0.0.1:{bind}
connect = 127.0.0.1:{to}
cert = {folder}/{side}.pem
CAfile = {folder}/ca.pem
verifyChain = yes
sslVersionMin = TLSv1.3
{sessions}
TIMEOUTclose = 0
TIMEOUTidle = 3600
"""


def _stunnel(place: Place, *, resume: bool = False) -> Commands:
    program, folder = _found("stunnel4", "stunnel", root=place.root), place.folder
    common = {"folder": folder, "sessions": "" if resume else "sessionResume = no\noptions = NO_TICKET"}
    listen = _STUNNEL.format(client="no", bind=place.wire, to=place.target, side="listen", **common)
    connect = _STUNNEL.format(client="yes", bind=place.entry, to=place.dial, side="connect", **common)
    connect += f"checkHost = {SERVER_NAME}\nsni = {SERVER_NAME}\n"
    return {
        "listen": [*program, place.write("stunnel-listen.conf", listen)],
        "connect": [*program, place.write("stunnel-connect.conf", connect)],
    }


# -- spiped ----------------------------------------------------------------------------------------------------------------


def _spiped(place: Place) -> Commands:
    program, key = _found("spiped"), place.folder / "spiped.key"
    key.write_bytes(os.urandom(32))

    def side(flag: str, name: str, bind: int, to: int) -> list[str]:
        here, there, pid = f"[127.0.0.1]:{bind}", f"[127.0.0.1]:{to}", place.folder / f"spiped-{name}.pid"
        return [*program, flag, "-F", "-g", "-n", "0", "-s", here, "-t", there, "-k", str(key), "-p", str(pid)]

    return {
        "listen": side("-d", "listen", place.wire, place.target),
        "connect": side("-e", "connect", place.entry, place.dial),
    }


# -- the list --------------------------------------------------------------------------------------------------------------


def _tls_peers(root: Path = HERE, tag: str = "") -> tuple[Peer, ...]:
    """HAProxy, nginx and stunnel with TLS, each without and with resumption."""
    stunnel = ("stunnel4", "stunnel")
    programs: tuple[tuple[str, str, Callable[[], str | None], Callable[..., Commands], Callable[[], str]], ...] = (
        (
            "haproxy",
            "HAProxy TLS 1.3",
            _needs("haproxy", root=root),
            partial(_haproxy, name="haproxy", tls=True),
            _first_line("haproxy", "-vv", containing="version", root=root),
        ),
        ("nginx", "nginx stream TLS 1.3", partial(_nginx_missing, root), _nginx, _first_line("nginx", "-v", root=root)),
        (
            "stunnel",
            "stunnel TLS 1.3",
            _needs(*stunnel, root=root),
            _stunnel,
            _first_line("stunnel4", "-version", containing="stunnel", root=root),
        ),
    )
    where = f", {tag.strip('-')}" if tag else ""
    full = [
        Peer(name + tag, title + where, Role.TLS, lack, make, version, root=root) for name, title, lack, make, version in programs
    ]
    resumed = [
        Peer(
            f"{name}-resume{tag}",
            f"{title}{where}, sessions resumed",
            Role.TLS,
            lack,
            partial(make, resume=True),
            version,
            kinds=OPENING,
            resumes=True,
            root=root,
        )
        for name, title, lack, make, version in programs
    ]
    in_kernel = Peer(
        f"haproxy-ktls{tag}",
        f"HAProxy TLS 1.3{where}, encrypted by the kernel",
        Role.TLS,
        partial(_ktls_missing, root),
        partial(_haproxy, name="haproxy-ktls", tls=True, splice=True, ktls=True),
        _first_line("haproxy", "-vv", containing="version", root=root),
        on_request=True,
        root=root,
    )
    return (*full, *resumed, in_kernel)


def in_root(tag: str, root: Path) -> tuple[Peer, ...]:
    """The TLS peers of another root file system.

    Args:
        tag: ends their names, as in `haproxy-13`.
        root: the root file system. Only root can run programs in it.
    """
    return _tls_peers(root, f"-{tag}")


_HAPROXY_VERSION = _first_line("haproxy", "-vv", containing="version")
OTHERS: Final = (
    *_tls_peers(),
    Peer("spiped", "spiped", Role.PEER, _needs("spiped"), _spiped, _first_line("spiped", "-v")),
    Peer(
        "plain",
        "HAProxy without TLS",
        Role.YARDSTICK,
        _needs("haproxy"),
        lambda place: _haproxy(place, name="plain"),
        _HAPROXY_VERSION,
    ),
    Peer(
        "splice",
        "HAProxy without TLS, splicing in the kernel",
        Role.YARDSTICK,
        _needs("haproxy"),
        lambda place: _haproxy(place, name="splice", splice=True),
        _HAPROXY_VERSION,
        on_request=True,
    ),
    Peer("direct", "no proxy", Role.YARDSTICK, lambda: None, None, lambda: ""),
)
