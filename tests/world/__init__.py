"""The real world for tests: real R, real packages, a base image, made on demand from Debian's packages and the index.

world = make(print)                       # minutes the first time, kept afterwards
with world.serve() as server:
    sources = world.sources(server.address)
"""

from __future__ import annotations

from .parts import WorldUnavailable
from .serving import Asked, Server, serve
from .world import World, make, place

__all__ = ["Asked", "Server", "World", "WorldUnavailable", "make", "place", "serve"]
