"""Proxies that run from a file which the test can change."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import yaml

from harness.proxies import Proxy


class FileProxy(Proxy):
    """`stcp-proxy run` of a YAML file that the test writes.

    Args:
        folder: the folder of the file and the log.
        name: the name of both.
        config: the file's content.
        env: variables that are added to the environment.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any], *, env: dict[str, str] | None = None) -> None:
        self.file = folder / f"{name}.yaml"
        self.config = config
        self.write(config)
        super().__init__(["run", str(self.file)], log=folder / f"{name}.log", env=env)
        self.wait_log("ready", count=config.get("workers", 1))

    def write(self, config: dict[str, Any]) -> None:
        """Replace the file without a reload."""
        self.config = config
        self.file.write_text(yaml.safe_dump(config, sort_keys=False, explicit_end=True))

    def reload(self, config: dict[str, Any] | None = None) -> dict[str, Any]:
        """Replace the file and send SIGHUP. Returns the log line of the applied reload."""
        before = len(self.log("reloaded"))
        if config is not None:
            self.write(config)
        self.signal(signal.SIGHUP)
        return self.wait_log("reloaded", count=before + 1)[before]

    def reload_refused(self, config: dict[str, Any] | None = None) -> dict[str, Any]:
        """Replace the file by one that must be refused, and send SIGHUP. Returns the log line of the refusal."""
        event = "reload refused: everything goes on as before"
        before = len(self.log(event))
        if config is not None:
            self.write(config)
        self.signal(signal.SIGHUP)
        return self.wait_log(event, count=before + 1)[before]

    def address_of(self, tunnel: str) -> tuple[str, int]:
        """The last listening address of a tunnel."""
        host, _, port = self.wait_log("listening", tunnel=tunnel)[-1]["address"].rpartition(":")
        return host.strip("[]"), int(port)
