"""Files of the project (`./path`, from the profile's folder) and of the recipes in cregraph (`standard:path`)."""

from __future__ import annotations

from pathlib import Path

from cregraph.errors import CregraphError

__all__ = ["Local"]

_FILES = 10_000


class Local:
    """Local sources. `project` is the folder of `./…`, `shipped` the folder of `standard:…`."""

    def __init__(self, *, project: Path, shipped: Path) -> None:
        self._roots = {"./": project, "standard:": shipped}

    def path(self, source: str) -> Path:
        """Return the path of `source`. Raises CregraphError if it leaves its root, also by a link."""
        for prefix, root in self._roots.items():
            if source.startswith(prefix):
                rest = source.removeprefix(prefix)
                path = root / rest
                inside = not rest.startswith("/") and ".." not in rest.split("/") and "\0" not in rest
                if not inside or not path.resolve().is_relative_to(root.resolve()):
                    home = "the project" if prefix == "./" else "the recipes that ship with cregraph"
                    raise CregraphError(f"`{source}` leads out of {home}", hint="move the file into the project")
                return path
        raise CregraphError(f"`{source}` is not a path in the project", hint="write it as ./folder/file, relative to the profile")

    def files(self, source: str) -> tuple[str, ...]:
        """Return the sorted sources of the files below `source`, or a file itself. Skips caches and hidden files."""
        path = self.path(source)
        if path.is_file():
            return (source,)
        if not path.is_dir():
            raise CregraphError(
                f"`{source}` does not exist", hint="write the path relative to the profile (or recipe) that names it"
            )
        found = []
        for file in sorted(path.rglob("*")):
            inner = file.relative_to(path)
            if any(part.startswith(".") or part == "__pycache__" for part in inner.parts) or file.suffix == ".pyc":
                continue
            if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
                raise CregraphError(f"`{source}/{inner.as_posix()}` is a link that leads out of its folder")
            if file.is_file():
                found.append(f"{source.rstrip('/')}/{inner.as_posix()}")
            elif not file.is_dir():
                raise CregraphError(f"`{source}/{inner.as_posix()}` is neither a file nor a folder")
            if len(found) > _FILES:
                raise CregraphError(f"`{source}` holds more than {_FILES} files", hint="make an archive of it, or several")
        return tuple(found)

    def read(self, source: str) -> bytes:
        """Return the bytes that a pin of `source` names: the file's, or those of the packed R package folder."""
        path = self.path(source)
        try:
            if path.is_dir():
                from cregraph.formats.r_package import pack_folder

                return pack_folder(path)
            if path.exists() and not path.is_file():
                raise CregraphError(f"`{source}` is neither a file nor a folder")
            return path.read_bytes()
        except OSError as error:
            raise CregraphError(
                f"`{source}` cannot be read: {error.strerror or error}",
                hint="write the path relative to the profile (or recipe) that names it",
            ) from None
