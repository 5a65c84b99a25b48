"""Prepare a release; nothing changes unless `--apply` is given.

    python tools/release.py VERSION [--apply] [--no-checks] [--no-dist]

Everything happens in a second work tree. There the version is written into its places, the changelog's [Unreleased] becomes the
section of the release, and `packaging/dist` makes the artefacts, which end up in dist/. With `--apply` the branch then gets the
commit and the tag. Publishing is a step of its own: docs/RELEASE.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
CHECKS = (("lint",), ("test", "ARGS=--reruns 1 --reruns-delay 5"))
"""Targets of the Makefile that a release passes, with their arguments: those of CI."""
PROGRAMS = {
    "buildah": "buildah",
    "dpkg-deb": "dpkg",
    "gcc": "gcc",
    "gzip": "gzip",
    "mmdebstrap": "mmdebstrap",
    "strip": "binutils",
}
"""What makes the artefacts, and the Debian package that has it."""
NOWHERE_IN_DEBIAN = "3.12"
"""The version of CPython that no Debian release has: packaging/wheels makes no root with it."""
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_PACKAGE = Path("stcp_proxy/__init__.py")
_IMAGES = Path("configs/kubernetes")
_CHART = Path("configs/helm/stcp-proxy/Chart.yaml")
_CHANGELOG = Path("CHANGELOG.md")


class Refused(Exception):
    """The release cannot be made; the text says why and what to do."""


def main(arguments: list[str]) -> None:
    """Prepare the release that the command line names."""
    parser = argparse.ArgumentParser(description="Prepare a release.")
    parser.add_argument("version")
    parser.add_argument("--apply", action="store_true", help="commit and tag")
    parser.add_argument("--no-checks", action="store_true", help="without lint and tests; not together with --apply")
    parser.add_argument("--no-dist", action="store_true", help="without the artefacts; not together with --apply")
    wanted = parser.parse_args(arguments)
    try:
        if wanted.apply and (wanted.no_checks or wanted.no_dist):
            raise Refused("a release has its checks and its artefacts: leave --no-checks and --no-dist out")
        refuse_unclean(wanted.version)
        refuse_incomplete(checks=not wanted.no_checks, dist=not wanted.no_dist)
        for check in () if wanted.no_checks else CHECKS:
            run("make", *check, cwd=ROOT)
        release(wanted.version, apply=wanted.apply, dist=not wanted.no_dist)
    except Refused as why:
        sys.exit(f"release: {why}")
    except subprocess.CalledProcessError as exc:
        sys.exit(f"release: {' '.join(map(str, exc.cmd))} failed; nothing was committed or tagged")


def refuse_unclean(version: str) -> None:
    """Refuse a version or a work tree that cannot be released.

    Raises:
        Refused: with the reason.
    """
    if not _VERSION.fullmatch(version):
        raise Refused(f"{version!r} is no version; write it as 1.2.3")
    current = current_version((ROOT / _PACKAGE).read_text(encoding="utf-8"))
    if numbers(version) <= numbers(current):
        raise Refused(f"{version} is not later than {current}")
    if told("git", "status", "--porcelain"):
        raise Refused("the work tree has changes; commit them or take them back")
    if told("git", "branch", "--show-current") != BRANCH:
        raise Refused(f"releases are made of {BRANCH}: git switch {BRANCH}")
    if told("git", "tag", "--list", f"v{version}"):
        raise Refused(f"the tag v{version} exists; choose a later version")


def refuse_incomplete(*, checks: bool, dist: bool) -> None:
    """Refuse a machine that could not finish the release: the checks take long, and the artefacts come after them.

    Raises:
        Refused: with everything that is missing.
    """
    missing = []
    if subprocess.run(("git", "var", "GIT_COMMITTER_IDENT"), cwd=ROOT, capture_output=True).returncode:
        missing.append("git's user.name and user.email")
    if checks and not shutil.which("npm"):
        missing.append("npm (apt-get install npm)")
    if dist:
        missing += [f"{name} (apt-get install {package})" for name, package in PROGRAMS.items() if not shutil.which(name)]
        if os.geteuid() != 0:
            missing.append("root's rights")
        interpreter = f". packaging/common.sh; interpreter {NOWHERE_IN_DEBIAN}"
        if subprocess.run(("bash", "-c", interpreter), cwd=ROOT, capture_output=True).returncode:
            missing.append(f"CPython {NOWHERE_IN_DEBIAN} with its headers, in PATH or of pyenv")
    if missing:
        raise Refused(f"this machine lacks {', '.join(missing)}")


def release(version: str, *, apply: bool, dist: bool) -> None:
    """Make the commit and the artefacts in a second work tree; keep them when `apply` is set."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        run("git", "worktree", "add", "--quiet", "--detach", tree, "HEAD", cwd=ROOT)
        try:
            prepare(tree, version, datetime.datetime.now(datetime.UTC).date())
            run("git", "diff", "--stat", cwd=tree)
            run("git", "commit", "--quiet", "--all", "--message", f"Version {version}", cwd=tree)
            if dist:
                (tree / ".venv").symlink_to(ROOT / ".venv")
                run("packaging/dist", ROOT / "dist", cwd=tree, env={"STCP_EVERY_WHEEL": "1"})
            if apply:
                commit = told("git", "rev-parse", "HEAD", cwd=tree)
                signed = "--sign" if told("git", "config", "--default", "", "--get", "user.signingkey") else "--annotate"
                run("git", "merge", "--quiet", "--ff-only", commit, cwd=ROOT)
                run("git", "tag", signed, f"v{version}", "--message", f"stcp-proxy {version}", commit, cwd=ROOT)
        finally:
            run("git", "worktree", "remove", "--force", tree, cwd=ROOT)
    if apply:
        print(f"{BRANCH} has version {version} and the tag v{version}; docs/RELEASE.md tells how to sign and publish dist/")
    else:
        print("a dry run: neither committed nor tagged; add --apply (make release VERSION=… APPLY=yes) to do it")


def prepare(tree: Path, version: str, date: datetime.date) -> None:
    """Write the version into every place of a work tree, and move the changelog."""
    old = current_version((tree / _PACKAGE).read_text(encoding="utf-8"))
    rewrite(tree / _PACKAGE, f'__version__ = "{old}"', f'__version__ = "{version}"')
    for manifest in sorted((tree / _IMAGES).rglob("*.yaml")):
        text = manifest.read_text(encoding="utf-8")
        manifest.write_text(
            re.sub(rf'(image: "?stcp-proxy[a-z-]*:){re.escape(old)}\b', rf"\g<1>{version}", text), encoding="utf-8"
        )
    rewrite(tree / _CHART, f"\nversion: {old}\n", f"\nversion: {version}\n")
    rewrite(tree / _CHART, f'appVersion: "{old}"', f'appVersion: "{version}"')
    changelog = tree / _CHANGELOG
    changelog.write_text(released(changelog.read_text(encoding="utf-8"), version, date), encoding="utf-8")


def released(changelog: str, version: str, date: datetime.date) -> str:
    """The changelog with the contents of [Unreleased] as the section of `version`.

    Raises:
        Refused: there is no such section, or nothing in it.
    """
    head, mark, rest = changelog.partition("## [Unreleased]\n")
    if not mark:
        raise Refused("CHANGELOG.md has no section [Unreleased]")
    if not rest.partition("\n## [")[0].strip():
        raise Refused("CHANGELOG.md has nothing under [Unreleased]: nothing to release")
    return f"{head}{mark}\n## [{version}] - {date.isoformat()}\n{rest}"


def current_version(module: str) -> str:
    """The version in the text of the package's `__init__.py`."""
    found = re.search(r'^__version__ = "(.+)"$', module, re.MULTILINE)
    if found is None:
        raise Refused(f"{_PACKAGE} has no __version__")
    return found[1]


def numbers(version: str) -> tuple[int, ...]:
    """A version, for comparison."""
    return tuple(map(int, version.split(".")))


def rewrite(file: Path, old: str, new: str) -> None:
    """Replace a text that the file has once."""
    text = file.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise Refused(f"{file.name} does not have {old!r} once")
    file.write_text(text.replace(old, new), encoding="utf-8")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> None:
    """Run a program; its output is this program's.

    `make release ARGS=…` hands its variables to every make below it, where ARGS would be pytest's: they are taken away.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "ARGS")}
    subprocess.run(command, check=True, cwd=cwd, env=kept | (env or {}))


def told(*command: str, cwd: Path = ROOT) -> str:
    """What a program prints."""
    return subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])
