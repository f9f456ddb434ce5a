"""cregraph: a declarative build graph with lockfiles for container images."""

__version__ = "0.1.0"
