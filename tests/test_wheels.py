"""A wheel's files at their places; hostile wheels; RECORD; scripts."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds.python import wheel_files
from cregraph.kinds.python.wheel_files import wheel_entries

NAME = "My_Tool-1.0-py3-none-any.whl"
INFO = "My_Tool-1.0.dist-info"
SITE = "opt/python/lib/python3.11/site-packages"
PLACES = {
    "site_packages": "/" + SITE,
    "scripts": "/opt/python/bin",
    "prefix": "/opt/python",
    "executable": "/opt/python/bin/python3.11",
    "python": "3.11",
}


def wheel(
    files: Mapping[str, bytes | str], *, record: Mapping[str, str] | None = None, modes: Mapping[str, int] | None = None
) -> io.BytesIO:
    """A wheel of these files with WHEEL, METADATA and a RECORD that is right, but for what `record` says (`""`: not listed)."""
    whole = {
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: My-Tool\nVersion: 1.0\n",
        **files,
    }
    lines = []
    for name, content in whole.items():
        data = content.encode() if isinstance(content, str) else content
        digest = (record or {}).get(
            name, "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        )
        if digest:
            lines.append(f'"{name}",{digest},{len(data)}\n')
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in {**whole, f"{INFO}/RECORD": "".join(lines) + f"{INFO}/RECORD,,\n"}.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(name, 0o100644) << 16
            made.writestr(info, content)
    return out


def installed(made: io.BytesIO | Path, *, places: Mapping[str, str] = PLACES) -> dict[str, Entry]:
    entries = list(wheel_entries(made, name=NAME, places=places))
    assert len({e.path for e in entries}) == len(entries)
    return {e.path: e for e in entries}


def content(entry: Entry) -> bytes:
    assert entry.chunks is not None
    data = b"".join(entry.chunks())
    assert len(data) == entry.size
    return data


def refused(made: io.BytesIO) -> str:
    with pytest.raises(CregraphError) as caught:
        for entry in installed(made).values():
            content(entry)
    return caught.value.message


def test_each_part_of_a_wheel_goes_to_its_place():
    found = installed(
        wheel(
            {
                "my_tool/__init__.py": "x = 1\n",
                "my_tool/run.sh": "#!/bin/sh\n",
                "My_Tool-1.0.data/platlib/my_tool/fast.so": b"ELF",
                "My_Tool-1.0.data/purelib/my_tool/slow.py": "",
                "My_Tool-1.0.data/data/share/doc/my_tool.txt": "text",
                "My_Tool-1.0.data/headers/my_tool.h": "int x;",
                "My_Tool-1.0.data/scripts/old-tool": "#!python\nprint()\n",
                "My_Tool-1.0.data/scripts/program": b"\x7fELF program",
            },
            modes={"my_tool/run.sh": 0o100755},
        )
    )

    assert {path: entry.mode for path, entry in found.items()} == {
        f"{SITE}/my_tool/__init__.py": 0o644,
        f"{SITE}/my_tool/run.sh": 0o755,
        f"{SITE}/my_tool/fast.so": 0o644,
        f"{SITE}/my_tool/slow.py": 0o644,
        "opt/python/share/doc/my_tool.txt": 0o644,
        "opt/python/include/python3.11/My_Tool/my_tool.h": 0o644,
        "opt/python/bin/old-tool": 0o755,
        "opt/python/bin/program": 0o755,
        **{f"{SITE}/{INFO}/{name}": 0o644 for name in ("WHEEL", "METADATA", "INSTALLER", "RECORD")},
    }
    assert content(found["opt/python/bin/old-tool"]) == b"#!/opt/python/bin/python3.11\nprint()\n"
    assert content(found["opt/python/bin/program"]) == b"\x7fELF program"
    assert content(found[f"{SITE}/{INFO}/INSTALLER"]) == b"cregraph\n"


def test_record_lists_what_stands_there_sorted_and_with_right_digests():
    found = installed(
        wheel(
            {
                "my_tool/é,.py": "x = 1\n",
                "My_Tool-1.0.data/scripts/tool": "#!python\n",
                f"{INFO}/entry_points.txt": "[console_scripts]\nt = my_tool:main\n",
                f"{INFO}/INSTALLER": "pip\n",
                f"{INFO}/RECORD.jws": "{}",
            }
        )
    )

    rows = list(csv.reader(io.StringIO(content(found[f"{SITE}/{INFO}/RECORD"]).decode())))
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    at = {"../../../bin/tool": "opt/python/bin/tool", "../../../bin/t": "opt/python/bin/t"}
    assert {at.get(row[0], f"{SITE}/{row[0]}") for row in rows} == set(found)
    for path, digest, size in rows:
        if not digest:
            assert path == f"{INFO}/RECORD"
            continue
        data = content(found[at.get(path, f"{SITE}/{path}")])
        assert digest == "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert int(size) == len(data)


def test_entry_points_become_scripts_as_pip_writes_them():
    found = installed(
        wheel({f"{INFO}/entry_points.txt": "[console_scripts]\nTool-x = my_tool.cli:App.run [extra]\n\n[other]\na = b\n"})
    )

    assert content(found["opt/python/bin/Tool-x"]).decode() == (
        "#!/opt/python/bin/python3.11\n"
        "import re\n"
        "import sys\n"
        "from my_tool.cli import App\n"
        "if __name__ == '__main__':\n"
        "    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n"
        "    sys.exit(App.run())\n"
    )


def test_an_interpreter_too_far_down_for_the_kernel_is_called_by_the_shell():
    places = {
        "site_packages": "/" + SITE,
        "scripts": "/opt/python/bin",
        "prefix": "/opt/python",
        "executable": "/" + "deep/" * 30 + "python",
        "python": "3.11",
    }

    found = installed(wheel({"My_Tool-1.0.data/scripts/tool": "#!pythonw\nprint()\n"}), places=places)

    assert content(found["opt/python/bin/tool"]).startswith(b"#!/bin/sh\n'''exec' \"/deep/")


@pytest.mark.parametrize("line", ["a/b = m:f", "../x = m:f", "x = m:f()", "x = os; import evil:f", "x = nothing"])
def test_an_entry_point_that_is_none_is_refused(line: str):
    assert "which is not an entry point" in refused(wheel({f"{INFO}/entry_points.txt": f"[console_scripts]\n{line}\n"}))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil.py", "leads out of the wheel"),
        ("my_tool/../../evil.py", "leads out of the wheel"),
        ("/etc/passwd", "leads out of the wheel"),
        ("my_tool\\evil.py", "leads out of the wheel"),
        ("a//b.py", "leads out of the wheel"),
        ("./a.py", "leads out of the wheel"),
        ("a\nb.py", "has a control character in its name"),
        ("My_Tool-1.0.data/scripts/a/b", "is a script in a folder"),
        ("My_Tool-1.0.data/elsewhere/b", "is in an unknown folder of the .data folder"),
        ("My_Tool-1.0.data/x", "is not in a subfolder of the .data folder"),
    ],
)
def test_a_path_that_no_wheel_may_hold_is_refused_by_name(name: str, why: str):
    message = refused(wheel({name: "x"}))

    assert message.startswith(f"{NAME}: `{name}` {why}")


def test_two_members_of_one_place_are_refused():
    message = refused(wheel({"my_tool/a.py": "1", "My_Tool-1.0.data/purelib/my_tool/a.py": "2"}))

    assert "and `my_tool/a.py` have the same path /opt/python/lib/python3.11/site-packages/my_tool/a.py" in message


def test_a_member_twice_is_refused():
    made = wheel({"a.py": "1"})
    with zipfile.ZipFile(made, "a") as more, pytest.warns(UserWarning, match="Duplicate name"):
        more.writestr("a.py", "2")

    assert refused(made) == f"{NAME}: `a.py` is contained twice"


def test_a_link_is_refused():
    made = wheel({"a.py": "/etc/passwd"}, modes={"a.py": 0o120777})

    assert refused(made) == f"{NAME}: `a.py` is a link or a special file, which is not allowed in a wheel"


def test_a_file_below_a_file_is_refused():
    assert refused(wheel({"a": "1", "a/b.py": "2"})) == f"{NAME}: `a` is a file, and `a/b.py` lies below it"


def test_a_bomb_is_refused_before_a_byte_is_inflated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wheel_files, "_UNPACKED", 1 << 20)

    assert "states an unpacked size of" in refused(wheel({"zeros.bin": b"\0" * (2 << 20)}))


def test_a_file_that_record_does_not_list_is_refused():
    assert refused(wheel({"a.py": "1"}, record={"a.py": ""})) == f"{NAME}: `a.py` is not listed in its RECORD"


def test_a_file_of_another_digest_is_refused_before_its_end_is_given():
    made = wheel({"a.py": "1"}, record={"a.py": "sha256=AAAA"})
    entry = installed(made)[f"{SITE}/a.py"]
    given = []
    with pytest.raises(CregraphError, match=r"`a\.py` has sha256=.*, but its RECORD says sha256=AAAA"):
        assert entry.chunks is not None
        for chunk in entry.chunks():
            given.append(chunk)
    assert given == []


def test_a_weak_digest_is_refused():
    assert "expected sha256 or better" in refused(wheel({"a.py": "1"}, record={"a.py": "md5=AAAA"}))


def test_another_wheels_dist_info_is_refused():
    made = wheel({"Other-2.0.dist-info/METADATA": ""})

    assert "expected one with its own name and version" in refused(made)


def test_a_later_wheel_version_is_refused():
    made = wheel({f"{INFO}/WHEEL": "Wheel-Version: 2.0\n"})

    assert refused(made) == f"{NAME} has Wheel-Version `2.0`; cregraph installs version 1"


@pytest.mark.parametrize("data", [b"", b"PK no zip", b"\x1f\x8b"])
def test_what_is_no_wheel_is_refused(data: bytes):
    assert "cannot be read as a wheel" in refused(io.BytesIO(data))


def test_a_flipped_byte_is_found():
    made = bytearray(wheel({"a.py": b"some text that is deflated " * 20}).getvalue())
    with zipfile.ZipFile(io.BytesIO(bytes(made))) as whole:
        info = whole.getinfo("a.py")
        made[info.header_offset + 30 + len("a.py") + 3] ^= 1

    assert refused(io.BytesIO(bytes(made))).startswith(f"{NAME}: `a.py` ")
