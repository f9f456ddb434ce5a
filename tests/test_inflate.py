"""Compressed files and streams: several members are one content, and a cut or damaged one is an error."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from cregraph.errors import CregraphError
from cregraph.formats.inflate import inflated, inflated_file

ONE, TWO = bytes(range(256)) * 9000, b"the second member" * 100
FORMS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.compress}


def pieces(data: bytes, size: int = 1000) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def of_file(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    return b"".join(inflated_file(path, what="x"))


@pytest.mark.parametrize("form", FORMS)
def test_several_members_are_one_content(tmp_path: Path, form: str) -> None:
    data = FORMS[form](ONE) + FORMS[form](TWO)

    assert b"".join(inflated(pieces(data), what="x")) == ONE + TWO
    assert of_file(tmp_path / "file", data) == ONE + TWO


@pytest.mark.parametrize("left", [7, 20, -1], ids=["in-the-header", "in-the-middle", "before-the-last-byte"])
@pytest.mark.parametrize("form", FORMS)
def test_a_cut_member_is_an_error(tmp_path: Path, form: str, left: int) -> None:
    data = FORMS[form](ONE) + FORMS[form](TWO)[:left]

    with pytest.raises(CregraphError, match=r"^x: ends in the middle of its compressed bytes$"):
        list(inflated(pieces(data), what="x"))
    with pytest.raises(CregraphError, match=r"^x: ends in the middle of its compressed bytes$"):
        of_file(tmp_path / "file", data)


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_member_is_an_error(tmp_path: Path, form: str) -> None:
    data = bytearray(FORMS[form](ONE))
    data[12:40] = bytes(28)

    with pytest.raises(CregraphError, match=r"^x: (is damaged|ends in the middle)"):
        of_file(tmp_path / "file", bytes(data))


@pytest.mark.parametrize("data", [b"", b"B", b"plain bytes", TWO], ids=["empty", "one-byte", "short", "long"])
def test_other_bytes_pass_unchanged(tmp_path: Path, data: bytes) -> None:
    assert b"".join(inflated(pieces(data), what="x")) == data
    assert of_file(tmp_path / "file", data) == data
