"""Names of certificates, and the patterns that match them.

    dns:db.prod.internal          the DNS name of a certificate, in small letters
    spiffe://prod/ns/web/sa/app   a URI of a certificate; scheme and host in small letters

A pattern is a name with wildcards. `*` matches one or more characters within a label or a path segment. `**` stands for a whole
segment of a path and matches one or more segments. The subject's common name means nothing.

This module imports nothing of `cryptography`: a process without certificates may import it.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import Final

DNS: Final = "dns:"
MAX_NAMES_LEN: Final = 768
"""Most characters that the names of one certificate have together. It bounds the memory of a verified credential."""
_LABEL: Final = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
DNS_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_SEGMENT: Final = r"(?!\.\.?(?:/|$))(?:[A-Za-z0-9._~!$&'()+,;=:@-]|%(?!2[EeFf]|00)[0-9A-Fa-f]{2})+"
URI_NAME: Final = re.compile(rf"(?!dns:)[a-z][a-z0-9+.-]*://[a-z0-9_-]+(?:\.[a-z0-9_-]+)*(/{_SEGMENT})*")
"""A URI of the scheme `dns` would look like a DNS name here, and a reader may resolve segments of dots: both are no names. Nor is
a URI with an encoded dot, slash or zero byte, which such a reader would decode first."""
_SMALL: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_DNS_PATTERN: Final = re.compile(r"[a-z0-9_*-]+(\.[a-z0-9_*-]+)*")
_URI_PATTERN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._*-]+(/[A-Za-z0-9._~!$&'()+,;=:@%*-]+)*")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A pattern for names of certificates.

    Args:
        text: `dns:` and a DNS name, or a URI, with wildcards.

    Raises:
        ValueError: the text is no pattern.
    """

    text: str
    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_regex", re.compile(_regex(self.text), re.DOTALL))

    def matches(self, name: str) -> bool:
        """Whether the pattern matches a whole name."""
        return self._regex.fullmatch(name) is not None


def parse_name(text: str) -> str:
    """A name as `names_of` returns it: `dns:` and a DNS name, or a URI. Letters of host and scheme become small.

    Raises:
        ValueError: the text is no name that a certificate can have here.
    """
    name = lower(text) if lower(text).startswith(DNS) else lower_host(text)
    form = DNS_NAME if name.startswith(DNS) else URI_NAME
    if not form.fullmatch(name.removeprefix(DNS)) or len(name) > MAX_NAMES_LEN:
        raise ValueError(f"{text!r} is no name of a certificate: write 'dns:NAME' or a URI such as 'spiffe://domain/path'")
    return name


def lower_host(uri: str) -> str:
    """A URI with its scheme and host in small letters."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return lower(scheme) + separator + lower(host) + slash + path


def lower(text: str) -> str:
    """A text with the small letters of ASCII. Others stay: `str.lower` makes a k of the Kelvin sign, and so another name."""
    return text.translate(_SMALL)


def _regex(text: str) -> str:
    """The regular expression of a pattern."""
    if text.startswith(DNS):
        if not _DNS_PATTERN.fullmatch(text.removeprefix(DNS)) or "**" in text:
            raise ValueError(f"{text!r} is no pattern for DNS names: write 'dns:' and small letters, '*' within a label")
        return _wildcards(text, r"[^.\s]+")
    if not _URI_PATTERN.fullmatch(text):
        raise ValueError(f"{text!r} is no pattern for names: write 'dns:NAME' or a URI such as 'spiffe://domain/path'")
    scheme, rest = text.split("://")
    host, *segments = rest.split("/")
    if "**" in host or any("**" in segment and segment != "**" for segment in segments):
        raise ValueError(f"{text!r} is no pattern for names: '**' stands for whole segments of a path")
    parts = [r"[^/\s]+(?:/[^/\s]+)*" if segment == "**" else _wildcards(segment, r"[^/\s]+") for segment in segments]
    return "/".join([re.escape(scheme) + "://" + _wildcards(host, r"[^/.\s]+"), *parts])


def _wildcards(text: str, wildcard: str) -> str:
    return wildcard.join(map(re.escape, text.split("*")))
