"""A root to run commands in, made of this machine's own shell and tools with their libraries, as the tar of one layer."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

_TOOLS = """
bash cat chmod chown comm cp dd env find head hostname id ln ls mkdir mkfifo mv nproc readlink rm setpriv setsid sh sleep sort
stat taskset tee touch tr uname wc
"""
TOOLS = _TOOLS.split()


def missing(*more: str) -> str | None:
    """Why no such root, with `more` tools, can be made here, or None."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    absent = [name for name in (*TOOLS, *more, "ldd") if not shutil.which(name)]
    return f"this machine lacks {', '.join(absent)}" if absent else None


def layer(*more: str) -> bytes:
    """The layer: folders of odd modes, the tools and `more` in /usr/bin, /bin leading there, their libraries, a user database."""
    files: dict[str, Path] = {}
    for name in (*TOOLS, *more):
        tool = Path(shutil.which(name) or "").resolve()
        files[f"usr/bin/{name}"] = tool
        listed = subprocess.run(["ldd", tool], capture_output=True, text=True).stdout
        for library in re.findall(r"(?:=> )?(/\S+) \(0x", listed):
            files["usr" * library.startswith("/lib") + library.removeprefix("/" * (not library.startswith("/lib")))] = Path(
                library
            )
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def put(name: str, kind: bytes, *, mode: int = 0o644, data: bytes = b"", link: str = "", uid: int = 0) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size, info.mtime, info.uid = kind, mode, link, len(data), 1_000_000_000, uid
            tar.addfile(info, io.BytesIO(data))

        for folder, mode in (
            ("tmp", 0o1777),
            ("usr", 0o755),
            ("usr/bin", 0o755),
            ("etc", 0o755),
            ("opt/locked", 0o555),
            ("root", 0o700),
        ):
            put(folder, tarfile.DIRTYPE, mode=mode)
        for link in ("bin", "lib", "lib64", "sbin"):
            put(link, tarfile.SYMTYPE, link=f"usr/{link}")
        put("etc/passwd", tarfile.REGTYPE, data=b"root:x:0:0:root:/root:/bin/sh\n")
        put("etc/group", tarfile.REGTYPE, data=b"root:x:0:\n")
        put("etc/hostname", tarfile.REGTYPE, data=b"the-builder-of-this-image\n")
        put("opt/locked/secret", tarfile.REGTYPE, data=b"of the root\n", mode=0o400, uid=1000)
        put("opt/setid", tarfile.REGTYPE, data=b"x", mode=0o4755)
        put("opt/null", tarfile.CHRTYPE, mode=0o666)
        for name, path in sorted(files.items()):
            put(name, tarfile.REGTYPE, mode=0o755, data=path.read_bytes())
    return out.getvalue()
