"""The content-addressed store.

sha256/ab/<hex>            objects
<section>/ab/<key>.json    records: the result of a key
<section>/ab/<key>/        trees: unpacked folders
quarantine/                damaged objects
partial/                   interrupted downloads, which a later run resumes
users/                     one file for each process that uses the store
locks/, tmp/               advisory locks; files that are being written
"""

from cregraph.store.object_store import Store

__all__ = ["Store"]
