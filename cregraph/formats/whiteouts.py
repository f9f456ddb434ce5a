"""Names in a layer that hide files of the layers below (OCI image specification 1.1, layer.md, "Whiteouts")."""

from __future__ import annotations

__all__ = ["OPAQUE", "whiteout"]

#: Result of `whiteout` for the name that hides everything of the lower layers in its folder.
OPAQUE = "/"


def whiteout(name: str) -> str | None:
    """Return the name that a layer's member `name` (without folder) hides in its folder, or None if it is not a whiteout.

    The result is OPAQUE for everything in the folder. It is empty for a name that hides nothing (`.wh.`, aufs' `.wh..wh.…`).
    """
    if not name.startswith(".wh."):
        return None
    if name == ".wh..wh..opq":
        return OPAQUE
    return "" if name.startswith(".wh..wh.") else name.removeprefix(".wh.")
