"""The tiny project under tests/golden/tiny: one of every kind of artifact that can be put into an image without a task.

It is committed with its lock, its sources and the digests that assembly 1 makes of it. This program writes it anew:

    python -m tests.tiny

which is wanted only when it is to hold something more; then `pytest --update-golden tests/test_golden.py`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from cregraph.demo.demo_base import TAG, write_base
from tests.test_conda_kind import Made, Part, write_channel
from tests.test_r_binary import built, shared
from tests.test_r_kind import description
from tests.test_wheels import wheel

FOLDER = Path(__file__).parent / "golden" / "tiny"
DATE = "2025-06-01"
HOLDER = "/build/" + "placehold_" * 20

PROFILE = """\
# One of every kind of artifact that needs no task; see tests/tiny.py.
with: [base, tiny]
without: [snowbooks, micromamba, r, cran, tarballs, adbc, python, hook]
cre: {name: tiny, image: tiny, tag: v1}
"""

BASE = f"""\
recipe: base
about: A stand-in for a base image.
steps:
  - image: {{reference: "oci:world/base", tag: {TAG}}}
"""

TINY = f"""\
recipe: tiny
about: One of every kind.
needs: [base]
steps:
  - conda: {{prefix: /opt/tiny/env, specs: [r-base, tiny-odd, tiny-noarch, tiny-old], channels: [tiny]}}
  - r: {{library: /opt/tiny/env/lib/R/library, from: cran, packages: [tinybuilt], snapshot: "{DATE}", binaries: bookworm}}
  - python: {{into: $(base.python), requirements: [my-tool]}}
  - archive: {{url: "https://tiny.invalid/tree.tar.gz", at: [/opt/tiny/tree], owner: jupyter}}
  - archive: {{url: "https://tiny.invalid/one.gz", at: [/opt/tiny/one], mode: "0755"}}
  - file: {{at: [/home/jupyter/.tiny/text, /root/text], text: "tiny\\n", owner: jupyter}}
  - file: {{at: /opt/tiny/link, link: tree/deep}}
  - file: {{at: /opt/tiny/recipe, from: ./tiny.yaml}}
env: {{TINY: "1"}}
"""

SOURCES = """\
conda: {tiny: ./world/channel}
cran: ./world/cran/{date}
cran_binary: "./world/shelf/{distribution}/{r}/{date}"
pypi: ./world/simple
url: {"https://tiny.invalid/": "./world/files/"}
"""


def lines(count: int, salt: str) -> bytes:
    """Text that compresses as text does, the same on every machine."""
    words = [hashlib.sha256(f"{salt}{i}".encode()).hexdigest()[: i % 40].encode() for i in range(97)]
    return b"".join(b"%06d %s\n" % (i, words[i * i % 97]) for i in range(count))


def channel(folder: Path) -> None:
    prefix = HOLDER.encode()
    deep = "share/" + "/".join(["a-folder-with-a-long-name"] * 11) + "/file"
    assert len(deep) >= 290
    write_channel(
        folder,
        [
            Made(
                name="r-base",
                version="4.4.1",
                parts=[
                    Part(path="bin/R", data=b"#!" + prefix + b"/bin/sh\n", executable=True, placeholder=HOLDER),
                    Part(
                        path="lib/R/lib/libR.so",
                        data=b"\x7fELF" + prefix + b"\0tail\0" + prefix + b"/x\0",
                        placeholder=HOLDER,
                        mode="binary",
                    ),
                    Part(path="lib/R/big", data=lines(60_000, "big")),
                ],
            ),
            Made(name="python", version="3.11.9", parts=[Part(path="bin/python3.11", data=b"ELF", executable=True)]),
            Made(
                name="tiny-odd",
                depends=["r-base"],
                parts=[
                    Part(path="share/Name", data=b"upper\n"),
                    Part(path="share/name", data=b"lower\n"),
                    Part(path="share/ünd", data=b"utf-8\n"),
                    Part(path="share/empty"),
                    Part(path=deep, data=b"deep\n"),
                    Part(path="share/first", data=lines(3_000, "linked")),
                    Part(path="share/a-second", type=tarfile.LNKTYPE, link="share/first"),
                    Part(path="share/soft", type=tarfile.SYMTYPE, link="first"),
                    Part(path="bin/.tiny-odd-post-link.sh", data=b"#!/bin/sh\nexit 1\n", executable=True),
                ],
            ),
            Made(
                name="tiny-noarch",
                subdir="noarch",
                noarch="python",
                depends=["python"],
                parts=[Part(path="site-packages/tiny/__init__.py", data=b"def main(): pass\n")],
                info={"info/link.json": b'{"noarch": {"type": "python", "entry_points": ["tiny = tiny:main"]}}'},
            ),
            Made(
                name="tiny-old",
                ending=".tar.bz2",
                parts=[Part(path="etc/old.conf", data=b"root=" + prefix + b"\n", placeholder=HOLDER)],
            ),
        ],
    )


def packages(world: Path) -> None:
    text = description("tinybuilt", "1.0-2", NeedsCompilation="yes", Depends="R (>= 4.1)")
    contrib = world / "cran" / DATE / "src/contrib"
    contrib.mkdir(parents=True)
    (contrib / "PACKAGES").write_text(text)
    shelf = world / "shelf/bookworm/4.4" / DATE / "src/contrib"
    shelf.mkdir(parents=True)
    made = built(
        text + "Built: R 4.4.1; x86_64-pc-linux-gnu; 2025-06-01 00:00:00 UTC; unix\n",
        {"libs/tinybuilt.so": shared("libR.so"), "R/tinybuilt": lines(200, "r")},
    )
    (shelf / "tinybuilt_1.0-2.tar.gz").write_bytes(made)
    page = world / "simple/my-tool"
    page.mkdir(parents=True)
    name = "My_Tool-1.0-py3-none-any.whl"
    data = wheel(
        {
            "my_tool/__init__.py": "def main(): pass\n",
            "my_tool/data.txt": lines(2_000, "wheel"),
            "My_Tool-1.0.dist-info/entry_points.txt": "[console_scripts]\nmy-tool = my_tool:main\n",
            "My_Tool-1.0.data/scripts/run": "#!python\nprint()\n",
        }
    ).getvalue()
    (page / name).write_bytes(data)
    (page / "index.html").write_text(
        f'<!DOCTYPE html>\n<html><body><a href="{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a></body></html>\n'
    )


def files(folder: Path) -> None:
    folder.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("tree/deep", b"deep\n"), ("tree/run.sh", b"#!/bin/sh\n")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o775 if name.endswith(".sh") else 0o600
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("tree/to")
        info.type, info.linkname = tarfile.SYMTYPE, "deep"
        tar.addfile(info)
    (folder / "tree.tar.gz").write_bytes(gzip.compress(out.getvalue(), mtime=0))
    (folder / "one.gz").write_bytes(gzip.compress(lines(500, "one"), mtime=0))


def write(folder: Path) -> None:
    """Write the project and lock it."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in (
        ("tiny.yaml", PROFILE),
        ("sources.yaml", SOURCES),
        ("recipes/base.yaml", BASE),
        ("recipes/tiny.yaml", TINY),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    world = folder / "world"
    write_base(world / "base")
    channel(world / "channel")
    packages(world)
    files(world / "files")
    subprocess.run([sys.executable, "-m", "cregraph", "lock", "tiny.yaml"], cwd=folder, check=True)


if __name__ == "__main__":
    write(FOLDER)
