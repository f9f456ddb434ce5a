"""The world of `cregraph demo`: a base image, a conda channel, a CRAN and a package index, all in their real formats.

The packages are small stand-ins that say what they are. Every machine makes the same bytes, so every demo has one digest.
"""
