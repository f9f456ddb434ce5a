"""The world of `cregraph demo`: a base image, a conda channel, a CRAN and a package index, all in their real formats.

What is in them stands in for software: small files that say what they are. The same bytes come out on every machine,
so every demo has one digest.
"""
