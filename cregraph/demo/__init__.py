"""Sources of `cregraph demo`: a base image, a conda channel, a CRAN and a package index, all in their real formats.

They hold small placeholder files instead of software. The bytes are equal on every machine, so every demo has the same
digest.
"""
