"""A bare py-rattler solve: the environments of a lock, from the channel, and nothing else.

`python floor_solve.py REQUEST` with a file of JSON: `channel`, `cache`, and a list `solves` of `specs`, `virtual` and `names`,
the packages that the lock has. All are solved with one gateway, one after the other. Leaves by os._exit as rattler can crash
at exit.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import rattler


async def main(request: dict[str, Any]) -> int:
    gateway = rattler.Gateway(cache_dir=request["cache"])
    channel = rattler.Channel(request["channel"])
    for one in request["solves"]:
        records = await rattler.solve(
            [channel],
            [rattler.MatchSpec(spec) for spec in one["specs"]],
            gateway=gateway,
            platforms=["linux-64", "noarch"],
            virtual_packages=[
                rattler.GenericVirtualPackage(rattler.PackageName(n), rattler.Version(v), rattler.BuildString(b))
                for n, v, b in one["virtual"]
            ],
            channel_priority=rattler.ChannelPriority.Strict,
        )
        if sorted(record.name.normalized for record in records) != one["names"]:
            print("the bare solve has other packages than the lock", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    code = asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    sys.stderr.flush()
    os._exit(code)
