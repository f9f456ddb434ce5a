"""Two results that should be equal: which file differs, where in it, why, and what helps."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import marshal
import math
import shutil
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cregraph.build.compare import rdata
from cregraph.build.compare.file_contents import compare_file
from cregraph.build.compare.finding import Finding, cures
from cregraph.build.compare.leaves import compare_bytes, word_cause
from cregraph.build.compare.task_results import compare_tars

T1, T2 = 1_780_000_000, 1_780_000_034


def a_tar(**files: bytes | str | tuple[int, bytes]) -> io.BytesIO:
    """Files by name (`__` for a slash), a link as text, or (mode, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
                continue
            info.mode, data = content if isinstance(content, tuple) else (0o644, content)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def alone(path: str, one: bytes, two: bytes) -> list[Finding]:
    return compare_file(path, one, two, lambda _: (None, None))


def the(path: str, one: bytes, two: bytes) -> Finding:
    found = alone(path, one, two)
    assert len(found) == 1, found
    return found[0]


def test_equal_results_have_no_findings() -> None:
    assert compare_tars(a_tar(a=b"x", b="a"), a_tar(a=b"x", b="a")) == []


def test_files_that_come_and_go_links_and_modes_are_named() -> None:
    found = compare_tars(a_tar(a=b"x", gone=b"1", l="a", m=(0o644, b"")), a_tar(a=b"x", l="b", m=(0o755, b""), new=b"1"))
    assert [(f.path, f.cause) for f in found] == [("gone", "listing"), ("l", "mode"), ("m", "mode"), ("new", "listing")]


@pytest.mark.parametrize(
    ("one", "two", "cause"),
    [
        ("built 2026-05-29 12:00:01", "built 2026-05-29 12:00:35", "time"),
        ("Sun Nov 22 19:27:31 UTC 2026", "Sun Nov 22 19:27:42 UTC 2026", "time"),
        ("on May 29 2026", "on May 30 2026", "time"),
        ("stamp=1780000000", "stamp=1780000034", "time"),
        ("v20260529T120000Z", "v20260530T120000Z", "time"),
        ("in /tmp/RtmpVBuuo5/file1f", "in /tmp/RtmpBGL0NK/file2a", "path"),
        ("from /home/a/src/x.c", "from /home/b/src/x.c", "path"),
        ("id 6f1c2f4e-8f43-4f0b-9a59-6c1f8a3f5a10", "id 0b9d6c1e-1f43-4f0b-9a59-6c1f8a3f5a11", "random"),
        ("seed 12345", "seed 54321", "random"),
        ("b, a, c", "a, b, c", "order"),
        ("hello", "world", "unknown"),
    ],
)
def test_words_are_judged_by_their_form(one: str, two: str, cause: str) -> None:
    assert word_cause(one, two) == cause


def test_a_text_names_the_line_and_each_cause_once() -> None:
    found = alone("a.txt", b"x\nat 12:00:01\nat 12:00:03\n/tmp/abcdef1/x\n", b"x\nat 12:00:02\nat 12:00:04\n/tmp/zzzzzz9/x\n")
    assert [(f.cause, f.inside) for f in found] == [("time", "line 2"), ("path", "line 4")]


def test_lines_in_another_order_are_an_order() -> None:
    assert the("NAMESPACE", b"export(a)\nexport(b)\n", b"export(b)\nexport(a)\n").cause == "order"


def test_a_gzip_that_differs_in_its_header_only_is_said_to() -> None:
    finding = the("help.gz", gzip.compress(b"same", mtime=T1), gzip.compress(b"same", mtime=T2))
    assert (finding.cause, finding.inside) == ("archive", "gzip's header")
    assert "gzip -n" in finding.cure
    assert finding.one == "2026-05-28 20:26:40 UTC"


def test_what_is_in_a_gzip_is_what_counts() -> None:
    assert the("a.gz", gzip.compress(b"at 12:00:01", mtime=0), gzip.compress(b"at 12:00:02", mtime=0)).cause == "time"


def a_zip(when: tuple[int, int, int, int, int, int], text: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("pkg/a.py", when), text)
    return out.getvalue()


def test_a_wheel_is_opened_and_its_times_are_told_from_its_contents() -> None:
    times = the("p.whl", a_zip((2026, 1, 1, 0, 0, 0), b"x"), a_zip((2026, 1, 2, 0, 0, 0), b"x"))
    assert (times.cause, times.inside) == ("archive", "pkg/a.py")
    inner = the("p.whl", a_zip((2026, 1, 1, 0, 0, 0), b"t='12:00:01'"), a_zip((2026, 1, 1, 0, 0, 0), b"t='12:00:02'"))
    assert (inner.path, inner.cause, inner.inside) == ("p.whl", "time", "pkg/a.py: line 1")


def test_bytecode_that_states_its_sources_time_is_told_from_other_code() -> None:
    code = marshal.dumps(compile("1", "x", "exec"))
    head = b"\xa7\r\r\n" + struct.pack("<I", 0)
    one, two = (head + struct.pack("<II", when, 9) + code for when in (T1, T2))
    finding = the("a.pyc", one, two)
    assert (finding.cause, finding.inside) == ("bytecode", "its header")
    assert "unchecked-hash" in finding.cure


def ar(when: int, content: bytes) -> bytes:
    head = f"{'a.o/':<16}{when:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return b"!<arch>\n" + head + content + b"\n" * (len(content) % 2)


def test_a_static_library_with_times_of_its_members_is_an_archive() -> None:
    finding = the("libx.a", ar(T1, b"code"), ar(T2, b"code"))
    assert (finding.cause, finding.inside) == ("archive", "a.o/")
    assert "ar D" in finding.cure


@pytest.mark.parametrize("form", [">d", "<d", ">q", "<q"])
def test_a_number_in_bytes_that_is_a_time_in_both_is_found(form: str) -> None:
    one, two = (b"\x00" * 13 + struct.pack(form, when) + b"\x01" * 5 for when in (T1, T2))
    finding = compare_bytes("x.bin", one, two)[0]
    assert (finding.cause, finding.one, finding.two) == ("time", "2026-05-28 20:26:40 UTC", "2026-05-28 20:27:14 UTC")


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=300))
def test_whatever_the_bytes_a_difference_is_a_finding_and_never_an_error(one: bytes, two: bytes) -> None:
    for name in ("a.rdb", "a.rds", "a.so", "a.pyc", "a.gz", "a.txt"):
        found = alone(name, one, two)
        assert bool(found) == (one != two)
        assert all(f.cause in cures() and f.cure for f in found)


@pytest.mark.parametrize("head", [b"\x7fELF\2\1", b"\x1f\x8b\x08", b"X\n", b"RDX3\nX\n", b"!<arch>\n", b"PK\x03\x04", b"BZh9"])
@given(one=st.binary(max_size=200), two=st.binary(max_size=200))
def test_what_only_begins_like_a_format_is_compared_as_bytes(head: bytes, one: bytes, two: bytes) -> None:
    assert bool(alone("x", head + one, head + two)) == (one != two)


@pytest.mark.parametrize(("at", "value"), [(8, 1), (10, 97), (10, 14)], ids=["encrypted", "unknown method", "damaged"])
def test_a_zip_that_cannot_be_read_is_compared_as_bytes(at: int, value: int) -> None:
    both = []
    for content in (b"one", b"two"):
        data = bytearray(a_zip((2026, 1, 1, 0, 0, 0), content))
        data[data.find(b"PK\1\2") + at] = data[at - 2] = value
        both.append(bytes(data))
    assert the("p.whl", *both).path == "p.whl"


@pytest.mark.parametrize("when", ["1e30", "inf"])
def test_a_time_that_no_calendar_has_is_no_error(when: str) -> None:
    both = []
    for stated in (when, "1"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo("x")
            info.pax_headers = {"mtime": stated}
            tar.addfile(info)
        both.append(out.getvalue())
    assert the("inner.tar", *both).path == "inner.tar"


def test_what_is_no_tar_is_a_finding() -> None:
    (found,) = compare_tars(io.BytesIO(b"no tar at all"), a_tar(a=b"x"))
    assert "cannot be read as a tar" in found.inside


def test_a_name_that_commands_a_terminal_is_printable_in_a_finding() -> None:
    (found,) = compare_tars(a_tar(**{"a\x1b[2J\udcff": b"x"}), a_tar(**{"a\x1b[2J\udcff": b"y"}))
    assert found.path.isprintable() and found.path.startswith("a")


def test_a_member_that_inflates_to_more_than_it_says_is_read_no_further() -> None:
    def lying(byte: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("big", (2026, 1, 1, 0, 0, 0)), byte * (64 << 20), zipfile.ZIP_DEFLATED)
        data = bytearray(out.getvalue())
        struct.pack_into("<I", data, data.find(b"PK\1\2") + 24, 10)
        return bytes(data)

    both = lying(b"a"), lying(b"b")
    tracemalloc.start()
    assert alone("p.whl", *both)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_bomb_is_not_inflated() -> None:
    bomb = gzip.compress(gzip.compress(bytes(300 << 20), 9), 9)
    assert alone("x.gz", bomb, gzip.compress(b"y"))


# -- R


def r_int(value: int) -> bytes:
    return struct.pack(">i", value)


def r_text(text: str) -> bytes:
    return r_int(0x00040009) + r_int(len(text)) + text.encode()


def r_object(kind: int, body: bytes, **attributes: bytes) -> bytes:
    data = r_int(kind | (0x200 if attributes else 0)) + body
    for name, value in attributes.items():
        data += r_int(0x402) + r_int(1) + r_text(name) + value
    return data + (r_int(254) if attributes else b"")


def r_texts(*texts: str) -> bytes:
    return r_int(16) + r_int(len(texts)) + b"".join(map(r_text, texts))


def r_file(body: bytes) -> bytes:
    return b"X\n" + r_int(3) + r_int(0x40202) + r_int(0x30500) + r_int(5) + b"UTF-8" + body


def r_numbers(*values: float, **attributes: bytes) -> bytes:
    return r_object(14, r_int(len(values)) + struct.pack(f">{len(values)}d", *values), **attributes)


def r_list(**values: bytes) -> bytes:
    return r_object(19, r_int(len(values)) + b"".join(values.values()), names=r_texts(*values))


def test_a_time_in_a_serialized_list_is_read_as_one() -> None:
    one, two = (r_file(r_list(a=r_numbers(1.0), when=r_numbers(float(t), **{"class": r_texts("POSIXct")}))) for t in (T1, T2))
    finding = the("Meta/x.rds", gzip.compress(one), gzip.compress(two))
    assert (finding.cause, finding.inside, finding.one) == ("time", "", "2026-05-28 20:26:40 UTC")


def test_a_date_is_days_and_a_drawn_number_is_random() -> None:
    days = [r_file(r_numbers(day, **{"class": r_texts("Date")})) for day in (20600.0, 20601.0)]
    assert the("x.rds", *days).one == "2026-05-27 00:00:00 UTC"
    assert the("x.rds", r_file(r_numbers(0.43)), r_file(r_numbers(0.85))).cause == "random"
    assert the("x.rds", r_file(r_numbers(1.0, 2.0)), r_file(r_numbers(2.0, 1.0))).cause == "order"
    assert alone("x.rds", r_file(r_numbers(math.nan)), r_file(r_numbers(math.nan))) == []


def database(**objects: bytes) -> tuple[bytes, bytes]:
    data, places = b"", {}
    for name, content in objects.items():
        chunk = struct.pack(">I", len(content)) + zlib.compress(content)
        places[name] = r_object(13, r_int(2) + r_int(len(data)) + r_int(len(chunk)))
        data += chunk
    index = r_file(r_list(variables=r_list(**places), references=r_object(19, r_int(0)), compressed=r_object(10, r_int(1) * 2)))
    symbol = r_int(1) + r_text("names")
    first, _, others = index.partition(symbol)
    return data, gzip.compress(first + symbol + others.replace(symbol, r_int(0x1FF)))  # later ones refer to the first


def test_a_lazy_load_database_names_the_variable() -> None:
    one, two = (database(names=r_file(r_numbers(1.0)), where=r_file(r_texts(f"/tmp/Rtmp{x}/f"))) for x in ("VBuuo5", "BGL0NK"))
    found = compare_tars(a_tar(R__p_dot_rdb=one[0], R__p_dot_rdx=one[1]), a_tar(R__p_dot_rdb=two[0], R__p_dot_rdx=two[1]))
    assert [(f.path, f.inside, f.cause) for f in found] == [("R/p.rdb", "where", "path")]


@pytest.mark.parametrize("letter", [b"2", b"Z", b""])
def test_an_object_that_unpacks_to_more_than_it_says_is_not_unpacked_further(letter: bytes) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    bomb = bytes(8 << 20)
    packed = {b"2": bz2.compress(bomb), b"Z": lzma.compress(bomb, lzma.FORMAT_RAW, filters=filters), b"": zlib.compress(bomb)}
    assert len(rdata._chunk(struct.pack(">I", 10) + letter + packed[letter], 1 << 20)) == 10
    with pytest.raises(ValueError, match="too large"):
        rdata._chunk(struct.pack(">I", 2 << 20) + letter + packed[letter], 1 << 20)


def test_texts_of_an_object_are_compared_one_by_one() -> None:
    one, two = (r_file(r_texts("steady", text, "x" * 300)) for text in ("built 12:00:01", "built 12:00:35"))
    assert [(f.cause, f.one, f.two) for f in alone("x.rds", one, two)] == [("time", "built 12:00:01", "built 12:00:35")]
    assert the("x.rds", r_file(r_texts("b", "a")), r_file(r_texts("a", "b"))).cause == "order"
    assert the("x.rds", r_file(r_texts("hello")), r_file(r_texts("world"))).cause == "unknown"
    assert alone("x.rds", r_file(r_texts("a")), r_file(r_texts("a", "b")))


@pytest.mark.parametrize("cut", [9, 20, 40, 90])
def test_a_damaged_index_is_a_value_error(cut: int) -> None:
    data, index = database(a=r_file(r_numbers(1.0)))
    assert list(rdata.objects(data, index)) == ["a"]
    with pytest.raises(ValueError):
        rdata.objects(data, gzip.decompress(index)[:-cut])


# -- programs


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_a_time_in_a_program_is_found_in_its_section_and_the_build_id_is_no_cause(tmp_path: Path) -> None:
    made = []
    for number, text in enumerate(("12:00:01", "12:00:35")):
        source = tmp_path / "a.c"
        source.write_text(f'const char *stamp(void) {{ return "built at {text}"; }}\n')
        target = tmp_path / f"{number}.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-Wl,--build-id", "-o", target, source], check=True)
        made.append(target.read_bytes())
    finding = the("libs/p.so", *made)
    assert (finding.cause, finding.inside, finding.one) == ("time", "section .rodata", "built at 12:00:01")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_other_code_is_said_to_be_other_code(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        source = tmp_path / "a.c"
        source.write_text(f"int f(int x) {{ return x * {number * 7} + {number}; }}\n")
        target = tmp_path / f"{number}.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-Wl,--build-id=none", "-o", target, source], check=True)
        made.append(target.read_bytes())
    assert "compiled" in {f.cause for f in alone("libs/p.so", *made)}
