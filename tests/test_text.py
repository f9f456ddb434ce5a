"""Text for messages: printable, and without credentials."""

from __future__ import annotations

import pytest

from cregraph.text import printable, redacted, redacted_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 你好", "Zoë 你好"),
        ("a\x1b[2J\x9b\r\n\tb", r"a\x1b[2J\x9b\r\n\tb"),
        ("\u202eb\ud800", r"\u202eb\ud800"),
        ("a\udcff", r"a\xff"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_obey_becomes_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_characters_can_be_kept() -> None:
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


@pytest.mark.parametrize(
    ("text", "shown"), [("abcde", "abcde"), ("abcdef", "abcd…"), ("\0" * 9, "\\x00…"), ("abc\0\0", "abc\\…")]
)
def test_a_limit_counts_characters_of_the_result(text: str, shown: str) -> None:
    assert printable(text, 5) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host.example/a/b", "https://host.example/a/b"),
        ("https://user:pa@ss@host.example/a?token=x#y", "https://…@host.example/a"),
        ("user:secret@host/a@b", "…@host/a@b"),
        ("http://[::1", "http://[::1"),
        ("https://user:my pass@host.example/a", "https://…@host.example/a"),
        ("https://host.example/t/to-ken/channel?x", "https://host.example/t/…/channel"),
        ("file:///a/b@c", "file:///a/b@c"),
        ("", ""),
    ],
)
def test_what_is_printed_of_an_address_holds_no_credential(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot get `https://u:p@h.example/a?token=x`: no (foo @ b)", "cannot get `https://…@h.example/a`: no (foo @ b)"),
        ("'http://u:p')w@h/t/secret/x' and https://h/#f", "'http://…@h/t/…/x' and https://h/"),
        ("no address: a@b, what?", "no address: a@b, what?"),
    ],
)
def test_addresses_within_a_text_are_redacted(text: str, shown: str) -> None:
    assert redacted_text(text) == shown
