"""Small packages of our own: the shapes that real channels have and that go wrong, and two stand-ins that say so."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .command import run_in
from .conda import PLACEHOLDER, TIMESTAMP, Entry, Recipe, pack

_LATER = TIMESTAMP + 152 * 86_400_000  # 2024-06-15
_GLIBC = "__glibc >=2.34"

_DRIVER = r"""
/* Stand-in of the Snowflake driver of Arrow Database Connectivity, for tests: it loads, and connects to nothing. */
#include <stddef.h>
#include <stdint.h>
struct AdbcError { char* message; int32_t vendor_code; char sqlstate[5]; void (*release)(struct AdbcError*); };
static char said[] = "this driver is a stand-in for tests: it connects to nothing";
static void release(struct AdbcError* error) { error->message = NULL; error->release = NULL; }
uint8_t AdbcDriverInit(int version, void* driver, struct AdbcError* error) {
  (void)version; (void)driver;
  if (error) { error->message = said; error->vendor_code = 0; error->release = release; }
  return 2; /* ADBC_STATUS_NOT_IMPLEMENTED */
}
"""
_PROGRAM = r"""
#include <stdio.h>
int main(void) { puts(PREFIX "/share/odd-placeholder/data.txt"); puts(PREFIX); return 0; }
"""
_MICROMAMBA = """#!/bin/sh
# Stand-in of micromamba for tests: it knows its version and nothing else.
case "$1" in
  --version) echo "2.0.5" ;;
  *) echo "micromamba (stand-in for tests): only --version works" >&2; exit 1 ;;
esac
"""


def write(workshop: Path, channel: Path) -> None:
    """Write them all into `channel`; compiled are two, with the compiler of the build root unpacked at `workshop`."""
    text = "stand-in for the tests of cregraph: "
    _one(
        channel,
        Recipe(name="micromamba", version="2.0.5", depends=(_GLIBC,), summary=text + "prints its version only"),
        {"bin/micromamba": _script(_MICROMAMBA)},
    )
    library = "lib/libadbc_driver_snowflake.so"
    _one(
        channel,
        Recipe(name="libadbc-driver-snowflake", version="1.5.0", depends=(_GLIBC,), summary=text + "connects to nothing"),
        {
            f"{library}.105.0.0": Entry(data=_compiled(workshop, _DRIVER, "-shared", "-fPIC"), executable=True),
            f"{library}.105": Entry(link=f"{Path(library).name}.105.0.0"),
            library: Entry(link=f"{Path(library).name}.105"),
        },
    )
    for version, timestamp in (("1.0", TIMESTAMP), ("1.1", _LATER)):
        _noarch(channel, version, timestamp)
        old = Recipe(name="odd-bz2", version=version, build="0", timestamp=timestamp, suffix=".tar.bz2")
        _one(channel, old, {"share/odd-bz2/version.txt": Entry(data=f"{version}\n".encode())})
    shared = Entry(data=b"one file, three names\n")
    same = Entry(data=shared.data, same_as="share/odd-hardlink/a.txt")
    _one(
        channel,
        Recipe(name="odd-hardlink", version="1.0", build="0"),
        {
            "share/odd-hardlink/a.txt": shared,
            "share/odd-hardlink/b.txt": same,
            "share/odd-hardlink/deep/c.txt": same,
            "share/odd-hardlink/link.txt": Entry(link="a.txt"),
        },
    )
    folder = "share/odd-longpath/" + "/".join(["a-rather-long-name-of-a-folder-that-goes-on-and-on"] * 5)
    _one(
        channel,
        Recipe(name="odd-longpath", version="1.0", build="0"),
        {f"{folder}/{'x' * (300 - len(folder) - 5)}.txt": Entry(data=b"300 characters\n")},
    )
    _one(
        channel,
        Recipe(name="odd-case", version="1.0", build="0"),
        {
            "share/odd-case/README": Entry(data=b"upper\n"),
            "share/odd-case/readme": Entry(data=b"lower\n"),
            "share/odd-case/\u00e9t\u00e9 d'hiver.txt": Entry(data=b"a name with more than ASCII\n"),
        },
    )
    program = _compiled(workshop, _PROGRAM, f'-DPREFIX="{PLACEHOLDER}"')
    shell = f"#!{PLACEHOLDER}/bin/sh\necho {PLACEHOLDER}\n"
    _one(
        channel,
        Recipe(name="odd-placeholder", version="1.0", build="0", depends=(_GLIBC,)),
        {
            "bin/odd-placeholder": Entry(data=program, executable=True),
            "bin/odd-placeholder-script": _script(shell),
            "etc/odd-placeholder.conf": Entry(data=f"prefix = {PLACEHOLDER}\ntwice = {PLACEHOLDER}/a\n".encode()),
            "share/odd-placeholder/data.txt": Entry(data=b"data\n"),
        },
    )
    post = '#!/bin/sh\necho "linked at $PREFIX" > "$PREFIX/share/odd-postlink.txt"\n'
    _one(
        channel,
        Recipe(name="odd-postlink", version="1.0", build="0"),
        {"bin/.odd-postlink-post-link.sh": _script(post), "share/odd-postlink/a.txt": Entry(data=b"a\n")},
    )


def _noarch(channel: Path, version: str, timestamp: int) -> None:
    site, info = "site-packages/odd_noarch", f"site-packages/odd_noarch-{version}.dist-info"
    code = f'"""A package of the tests."""\n\n__version__ = "{version}"\n\n\ndef main() -> None:\n    print(__version__)\n'
    metadata = f"Metadata-Version: 2.1\nName: odd-noarch\nVersion: {version}\nSummary: a package of cregraph's tests\n"
    entries = "[console_scripts]\nodd-noarch = odd_noarch:main\n"
    files = {
        f"{site}/__init__.py": Entry(data=code.encode()),
        f"{site}/data/words.txt": Entry(data=b"one two\n"),
        f"{info}/METADATA": Entry(data=metadata.encode()),
        f"{info}/INSTALLER": Entry(data=b"conda\n"),
        f"{info}/entry_points.txt": Entry(data=entries.encode()),
        "python-scripts/odd-noarch-script": _script(f"#!{PLACEHOLDER}/bin/python\nprint('script')\n"),
        "share/odd-noarch/note.txt": Entry(data=b"beside the code\n"),
    }
    recipe = Recipe(
        name="odd-noarch",
        version=version,
        build="pyhd8ed1ab_0",
        depends=("python >=3.9",),
        noarch_python=True,
        entry_points=("odd-noarch = odd_noarch:main",),
        timestamp=timestamp,
    )
    _one(channel, recipe, files)


def _one(channel: Path, recipe: Recipe, files: dict[str, Entry]) -> None:
    pack(files, recipe, channel)


def _script(text: str) -> Entry:
    return Entry(data=text.encode(), executable=True)


def _compiled(workshop: Path, code: str, *flags: str) -> bytes:
    name = hashlib.sha256(code.encode()).hexdigest()[:8]
    source = workshop / f"src/{name}.c"
    source.parent.mkdir(exist_ok=True)
    source.write_text(code)
    run_in(workshop, "gcc", "-O1", "-s", "-Wl,--build-id=none", *flags, "-o", f"/src/{name}", f"/src/{name}.c")
    return (workshop / f"src/{name}").read_bytes()
