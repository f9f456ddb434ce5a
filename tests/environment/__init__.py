"""The test environment for tests: real R, real packages, a base image, made on demand from Debian's packages and the index.

environment = make(print)                       # minutes the first time, kept afterwards
with environment.serve() as server:
    sources = environment.sources(server.address)
"""

from __future__ import annotations

from .environment import Environment, make, place
from .parts import EnvironmentUnavailable
from .serving import Asked, Server, serve

__all__ = ["Asked", "Environment", "EnvironmentUnavailable", "Server", "make", "place", "serve"]
