"""Install pinned conda packages: `python install.py CHANNEL PINS PREFIX`, in a RUN of the Dockerfile, with rattler at hand.

rattler is the installer of pixi, does the work of micromamba and is as fast. The test environment does not have micromamba.
PINS has a line `name version build` for each package. Packages that were unpacked before lie in /pkgs, a cache of the builder.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import rattler


async def main(channel: str, pins: str, prefix: str) -> None:
    wanted = {tuple(line.split()) for line in Path(pins).read_text(encoding="utf-8").splitlines() if line[0] != "#"}
    gateway = rattler.Gateway(cache_dir="/pkgs/repodata")
    found = await gateway.query(
        [rattler.Channel(f"file://{channel}")],
        ["linux-64", "noarch"],
        [rattler.MatchSpec(name) for name, *_ in wanted],
        recursive=False,
    )
    records = [
        record
        for listed in found
        for record in listed
        if (record.name.normalized, str(record.version), str(record.build)) in wanted
    ]
    assert len(records) == len(wanted), f"{len(wanted)} packages are pinned, {len(records)} are there"
    await rattler.install(records, prefix, cache_dir="/pkgs/packages", show_progress=False)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    os._exit(0)  # rattler can crash at exit
