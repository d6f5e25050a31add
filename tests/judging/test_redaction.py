"""Secrets, in whatever form and however cut, against a search of our own."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dschat.judging.redaction import HIDDEN, WINDOW, Secrets, printable, shown_url, url_secrets

KEY = "sk-proj-Zx8/q+9_Wq7~Tt.5Rr=3Yy"


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


FORMS = {
    "plain": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with slashes": lambda text: text.replace("/", "\\/"),
    "JSON, every letter": escaped,
    "JSON in JSON": lambda text: escaped(text).replace("\\", "\\\\"),
    "JSON, capitals": lambda text: "".join(f"\\u{ord(letter):04X}" for letter in text),
    "bytes": lambda text: repr(text.encode())[2:-1],
    "bytes, every letter": lambda text: "".join(f"\\x{ord(letter):02x}" for letter in text),
    "address": lambda text: quote(text, safe=""),
    "address, every letter": lambda text: "".join(f"%{ord(letter):02X}" for letter in text),
    "address, lower case": lambda text: "".join(f"%{ord(letter):02x}" for letter in text),
    "address, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "HTML": html.escape,
    "HTML, every letter": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "HTML, in hexadecimal": lambda text: "".join(f"&#x{ord(letter):x};" for letter in text),
}


def leaks(text: str, form, key: str = KEY) -> list[str]:
    """The pieces of four characters of the key that a text shows in a form."""
    pieces = [key[at : at + WINDOW] for at in range(len(key) - WINDOW + 1)]
    return [piece for piece in pieces if form(piece) in text]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_piece_of_a_key_is_left_wherever_it_is_cut(form):
    hide = Secrets(KEY).without_secrets
    for start in range(len(KEY)):
        for end in range(start, len(KEY) + 1):
            found = hide(f"Incorrect key: {form(KEY[start:end])}. See the page.")
            assert not leaks(found, form) and not leaks(found, str)
            assert found.startswith("Incorrect key: ") and found.endswith("See the page.")
            assert HIDDEN in found or end - start < WINDOW


@given(st.text(), st.sampled_from(list(FORMS)), st.text())
def test_nothing_but_the_key_is_touched(before, form, after):
    hide = Secrets(KEY).without_secrets
    text = before + FORMS[form](KEY) + after
    found = hide(text)
    assert not leaks(found, FORMS[form]) and not leaks(found, str)
    assert HIDDEN in found
    if not set(before + after) & set(KEY + "%\\&"):
        assert found == before + HIDDEN + after


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "u", "us", "user:", "Bearer "])
def test_base64_tells_no_four_characters(encode, before):
    text = encode(f"{before}{KEY}{before}".encode()).decode()
    found = Secrets(KEY).without_secrets(f"Authorization: {text} was refused")
    assert HIDDEN in found
    for piece in found.removeprefix("Authorization: ").removesuffix(" was refused").split(HIDDEN):
        for cut in range(4):  # wherever a group of four digits may begin
            part = piece.rstrip("=").replace("-", "+").replace("_", "/")[cut:]
            decoded = base64.b64decode(part[: len(part) // 4 * 4])
            assert not leaks(decoded.decode("latin-1"), str)


def test_text_without_the_key_stays_as_it_is():
    text = 'Summary A: 100% of \\ and & "quotes", %41, \\u0041, &amp; and sk-1'
    assert Secrets(KEY).without_secrets(text) == text
    assert Secrets().without_secrets(text) == text
    assert Secrets("abc").without_secrets("abc abcabc") == "abc abcabc"  # too short to be told from other text


@pytest.mark.parametrize("key", ["Zx8L1234", "12345678", "ab12cd34", "a%41b&amp;c", "u0041u0042", "\\\\x41\\\\"])
@pytest.mark.parametrize("text", ["&{};", "&#{};", "%{}", "%25{}", "\\u00{}", "\\x{}", "\\{}", "{}"])
def test_a_key_that_looks_like_an_escape_is_hidden_too(key, text):
    for start in range(len(key)):
        for end in range(start + WINDOW, len(key) + 1):
            assert not leaks(Secrets(key).without_secrets(text.format(key[start:end])), str, key)


def test_several_keys_and_repeated_ones():
    assert Secrets("abcdef", "123456").without_secrets("x abcdef123456 y abcd z 56") == f"x {HIDDEN} y {HIDDEN} z 56"
    assert Secrets("aaaaaa").without_secrets("baaaaaaaaaab aaa") == f"b{HIDDEN}b aaa"


@pytest.mark.parametrize("text", ["%41" * 300_000, "\\" * 1_000_000, "&" * 1_000_000, KEY * 30_000])
def test_a_mebibyte_takes_a_moment(text):
    began = time.process_time()
    Secrets(KEY * 5).without_secrets(text)
    assert time.process_time() - began < 10


def test_addresses_are_shown_without_what_is_secret():
    url = "https://name:pass%40word@host.example:8443/v1?api-version=2024-10-21&token=tok-en-99"
    assert shown_url(url) == "https://host.example:8443/v1"
    assert url_secrets(url) == ["pass%40word", "tok-en-99"]
    assert url_secrets("http://localhost:8000/v1") == []


def test_printable_text_moves_no_cursor():
    assert printable("a\x1b[2J\nb\u202ec\x9b\x07\u2028 é🙂") == "a\\x1b[2J b\\u202ec\\x9b\\x07 é🙂"
