"""The tunnels of other projects, each tuned for this job as its manual says.

The same conditions for all: loopback, no pinning, access logs off, TCP_NODELAY, and mutual authentication. Each side has one
worker thread or process; stunnel can only use a thread for each connection. Each connection of an application has an encrypted
connection of its own. A TLS peer uses TLS 1.3, with ECDSA P-256 certificates of one authority on both sides and the library's
default suite (AES-256-GCM, as STCP). Every connection makes a full handshake: STCP/1 has no resumption, so sessions and tickets
are disabled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stcp_proxy.lab.bench.certs import SERVER_NAME
from stcp_proxy.lab.bench.peer import Commands, Peer, Place, Role
from stcp_proxy.lab.loadgen import LabError


def _program(*names: str) -> str | None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _needs(*names: str) -> Callable[[], str | None]:
    return lambda: None if _program(*names) else f"{names[0]} is not installed"


def _found(*names: str) -> str:
    program = _program(*names)
    if program is None:
        raise LabError(f"{names[0]} is not installed")
    return program


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout + done.stderr).strip()


def _first_line(*argv: str, containing: str = "") -> Callable[[], str]:
    def version() -> str:
        program = _program(argv[0])
        lines = _output(program, *argv[1:]).splitlines() if program else []
        return next((line.strip() for line in lines if containing in line), "")

    return version


# -- HAProxy ---------------------------------------------------------------------------------------------------------------

_HAPROXY = """\
global
    nbthread 1
    maxconn 7000
    tune.ssl.cachesize 0
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets
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


def _haproxy(place: Place, *, name: str, tls: bool = False, splice: bool = False) -> Commands:
    """The plain pair has the TLS pair's configuration without TLS, so that they differ only by encryption. Buffers have the
    default of 16 KiB, which measured no worse than larger ones."""
    ca = place.folder / "ca.pem"
    serve = f" ssl crt {place.folder / 'listen.pem'} ca-file {ca} verify required"
    dial = (
        f" ssl crt {place.folder / 'connect.pem'} ca-file {ca} verify required"
        f" verifyhost {SERVER_NAME} sni str({SERVER_NAME}) no-ssl-reuse"
    )
    option = "option" if splice else "no option"
    listen = _HAPROXY.format(bind=place.wire, to=place.target, bind_tls=serve if tls else "", server_tls="", splice=option)
    connect = _HAPROXY.format(bind=place.entry, to=place.wire, bind_tls="", server_tls=dial if tls else "", splice=option)
    program = _found("haproxy")
    return {
        "listen": [program, "-db", "-f", place.write(f"{name}-listen.cfg", listen)],
        "connect": [program, "-db", "-f", place.write(f"{name}-connect.cfg", connect)],
    }


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
        ssl_client_certificate {folder}/ca.pem; ssl_verify_client on; ssl_session_tickets off; ssl_session_cache off;"""
_NGINX_CONNECT = """proxy_ssl on; proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {folder}/connect.pem;
        proxy_ssl_certificate_key {folder}/connect.pem; proxy_ssl_trusted_certificate {folder}/ca.pem;
        proxy_ssl_verify on; proxy_ssl_name {name}; proxy_ssl_session_reuse off;"""
_NGINX_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def _nginx_missing() -> str | None:
    program = _program("nginx")
    if program is None:
        return "nginx is not installed"
    built_in = "--with-stream " in _output(program, "-V") + " "
    return None if built_in or _NGINX_MODULE.exists() else "nginx has no stream module here"


def _nginx(place: Place) -> Commands:
    program, folder = _found("nginx"), place.folder
    common = {
        "module": f"load_module {_NGINX_MODULE};\n" if _NGINX_MODULE.exists() else "",
        "user": "user root;\n" if os.geteuid() == 0 else "",
        "folder": folder,
    }
    listen = _NGINX.format(
        side="listen", bind=place.wire, to=place.target, listen_options=" ssl", tls=_NGINX_LISTEN.format(folder=folder), **common
    )
    connect = _NGINX.format(
        side="connect",
        bind=place.entry,
        to=place.wire,
        listen_options="",
        tls=_NGINX_CONNECT.format(folder=folder, name=SERVER_NAME),
        **common,
    )
    return {
        side: [program, "-p", str(folder), "-e", "stderr", "-c", place.write(f"nginx-{side}.conf", text)]
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
sessionResume = no
options = NO_TICKET
TIMEOUTclose = 0
TIMEOUTidle = 3600
"""


def _stunnel(place: Place) -> Commands:
    program, folder = _found("stunnel4", "stunnel"), place.folder
    listen = _STUNNEL.format(client="no", bind=place.wire, to=place.target, side="listen", folder=folder)
    connect = _STUNNEL.format(client="yes", bind=place.entry, to=place.wire, side="connect", folder=folder)
    connect += f"checkHost = {SERVER_NAME}\nsni = {SERVER_NAME}\n"
    return {
        "listen": [program, place.write("stunnel-listen.conf", listen)],
        "connect": [program, place.write("stunnel-connect.conf", connect)],
    }


# -- spiped ----------------------------------------------------------------------------------------------------------------


def _spiped(place: Place) -> Commands:
    program, key = _found("spiped"), place.folder / "spiped.key"
    key.write_bytes(os.urandom(32))

    def side(flag: str, name: str, bind: int, to: int) -> list[str]:
        here, there, pid = f"[127.0.0.1]:{bind}", f"[127.0.0.1]:{to}", place.folder / f"spiped-{name}.pid"
        return [program, flag, "-F", "-g", "-n", "0", "-s", here, "-t", there, "-k", str(key), "-p", str(pid)]

    return {
        "listen": side("-d", "listen", place.wire, place.target),
        "connect": side("-e", "connect", place.entry, place.wire),
    }


# -- the list --------------------------------------------------------------------------------------------------------------

_HAPROXY_VERSION = _first_line("haproxy", "-vv", containing="version")
OTHERS: Final = (
    Peer(
        "haproxy",
        "HAProxy TLS 1.3",
        Role.TLS,
        _needs("haproxy"),
        lambda place: _haproxy(place, name="haproxy", tls=True),
        _HAPROXY_VERSION,
    ),
    Peer("nginx", "nginx stream TLS 1.3", Role.TLS, _nginx_missing, _nginx, _first_line("nginx", "-v")),
    Peer(
        "stunnel",
        "stunnel TLS 1.3",
        Role.TLS,
        _needs("stunnel4", "stunnel"),
        _stunnel,
        _first_line("stunnel4", "-version", containing="stunnel"),
    ),
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
