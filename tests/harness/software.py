"""Real programs as targets of a pair. Each is started on its own port, and is ready when its constructor returns."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from harness.process import Process, wait_for
from harness.sockets import free_port


def require(*programs: str) -> None:
    """Skip the test when the machine lacks one of `programs`, which are commands of Debian packages."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed here")


def run(*command: str, timeout: float = 600, stdin: object = subprocess.DEVNULL) -> str:
    """Run a client program, and return its standard output and error. Raises AssertionError after an exit status other than 0."""
    done = subprocess.run(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, text=True, errors="replace"
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Server(Process):
    """A program that listens on `port` of 127.0.0.1."""

    def __init__(self, command: list[str], *, port: int, output: Path) -> None:
        super().__init__(command, output=output)
        self.port = port
        self.to = f"127.0.0.1:{port}"

        def answers() -> bool:
            assert self.status is None, f"{command[0]} did not start:\n{self.text()}"
            return _answers(port)

        try:
            wait_for(answers, words=f"{command[0]} answers")
        except BaseException:
            self.stop()
            raise


def redis(folder: Path) -> Server:
    """A Redis without persistence."""
    require("redis-server")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    return Server([*command, "--dir", str(folder), "--daemonize", "no"], port=port, output=folder / "redis.log")


def nginx(folder: Path, root: Path) -> Server:
    """A web server for the files in `root`."""
    require("nginx")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            server {{ listen 127.0.0.1:{port}; root {root}; }}
        }}
        """
    )
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)]
    return Server(command, port=port, output=folder / "nginx.log")


def iperf3(folder: Path) -> Server:
    """An iperf3 server."""
    require("iperf3")
    port = free_port()
    return Server(["iperf3", "-s", "-B", "127.0.0.1", "-p", str(port)], port=port, output=folder / "iperf3.log")
