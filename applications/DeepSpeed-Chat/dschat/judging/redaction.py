"""Keys and passwords kept out of every message and file, whatever a server repeats."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit

HIDDEN = "•••"
"""In place of a secret; not ASCII, as no key is, so that it makes no part of one with what stands beside it."""
WINDOW = 4
"""Consecutive characters of a secret that are shown nowhere: a server may cut what it repeats at either end."""
_BASE64_WINDOW = 6
"""Digits of base64 that hold four characters; five hold less."""
_PUBLIC_QUERY = {"api-version"}

_ESCAPE = re.compile(
    r"%(?:25)*([0-9A-Fa-f]{2})"  # as in an address, perhaps several times over
    r"|\\+u00([0-9A-Fa-f]{2})|\\+x([0-9A-Fa-f]{2})|\\+(.)"  # as in JSON or source text
    r"|&#?\w{1,8};",  # as in HTML
    re.DOTALL,
)


class Secrets:
    """The texts that nobody may see."""

    def __init__(self, *secrets: str) -> None:
        """`secrets`: those of fewer than four characters cannot be told from ordinary text and are not hidden."""
        self._parts = frozenset(part for secret in secrets for part in _parts(secret))

    def without_secrets(self, text: str) -> str:
        """The text with `•••` for each run of four or more characters of a secret.

        Found plain and as JSON, addresses, HTML and base64 write it. Call it before a text is cut, logged, raised or
        written: what has been cut keeps too little of a secret to be found, and enough to be used.
        """
        secret = bytearray(len(text))  # 1 where a character belongs to one
        # as it is too: what looks like an escape may be a part of the secret
        for reading, edges in ((text, range(len(text) + 1)), _decoded(text)):
            for part in self._parts:
                at = reading.find(part)
                while at >= 0:
                    start, end = edges[at], edges[at + len(part)]
                    secret[start:end] = b"\1" * (end - start)
                    at = reading.find(part, at + 1)
        pieces: list[str] = []
        done = 0
        for run in re.finditer(b"\1+", secret):
            pieces += [text[done : run.start()], HIDDEN]
            done = run.end()
        return "".join(pieces) + text[done:]


def url_secrets(url: str) -> list[str]:
    """What of an address is secret: its password and the values of its query."""
    parts = urlsplit(url)
    values = [value for name, value in parse_qsl(parts.query) if name not in _PUBLIC_QUERY]
    return [*([parts.password] if parts.password else []), *values]


def shown_url(url: str) -> str:
    """An address without user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is none"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def printable(text: str) -> str:
    """A text on one line, with what would move the cursor, colour a terminal or turn the direction as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def _parts(secret: str) -> set[str]:
    """Every short piece of a secret, in the forms that are looked for."""
    readings = secret, _decoded(secret)[0]
    parts = {text[at : at + WINDOW] for text in readings for at in range(len(text) - WINDOW + 1)}
    if not parts:
        return parts
    raw = secret.encode()
    for before in range(3):  # bytes of something else in the same group of three
        whole = base64.b64encode(bytes(before) + raw).decode()
        digits = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        for form in (digits, digits.translate(str.maketrans("+/", "-_"))):
            width = min(_BASE64_WINDOW, len(form))
            parts |= {form[at : at + width] for at in range(len(form) - width + 1)}
    return parts


def _decoded(text: str) -> tuple[str, Sequence[int]]:
    """A text with its escapes read, and where in the text each of its characters begins, and the last one ends."""
    pieces: list[str] = []
    edges, done = [0], 0
    for match in _ESCAPE.finditer(text):
        number = match[1] or match[2] or match[3]
        letter = chr(int(number, 16)) if number else match[4] or html.unescape(match[0])
        pieces += [text[done : match.start()], letter if len(letter) == 1 else "\ufffd"]  # an entity that is none
        edges += [*range(done + 1, match.start() + 1), match.end()]
        done = match.end()
    return "".join([*pieces, text[done:]]), [*edges, *range(done + 1, len(text) + 1)]
