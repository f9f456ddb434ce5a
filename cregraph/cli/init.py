"""`cregraph init`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.terminal_output import result, talk
from cregraph.errors import CregraphError
from cregraph.init.carried import Carried
from cregraph.init.first_profile import TEMPLATES, convert, profile_text, sources_text
from cregraph.session.project import Project
from cregraph.session.recipe_sets import ATTRIBUTES
from cregraph.store.atomic_file import write_file

_LIMIT = 16 << 20
#: Files for git: name to lines.
_GIT_FILES = {".gitattributes": ATTRIBUTES, ".gitignore": "cache/\n"}
_TEMPLATE = "Kind of image: snowflake (Snowflake's base) or open (a public base). [default: snowflake]"
_FROM = "Start from environment.yml, conda-lock.yml, requirements.txt or a profile of the reference toolkit."


def init(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of the project. [default: the current folder]")] = ".",
    template: Annotated[str, typer.Option("--template", metavar="NAME", help=_TEMPLATE)] = TEMPLATES[0],
    source: Annotated[str | None, typer.Option("--from", metavar="FILE", help=_FROM)] = None,
) -> None:
    """Write a first profile, sources.yaml and the files for git."""
    if template not in TEMPLATES:
        raise CregraphError(f"unknown template `{template}` (expected {' or '.join(TEMPLATES)})")
    at = Path(folder)
    carried = _carried(Path(source)) if source is not None else None
    files = {"cregraph.yaml": profile_text(template, carried), "sources.yaml": sources_text(carried), **_GIT_FILES}
    files = {name: text for name, text in files.items() if not _is_kept(at / name, text)}
    _check(files["cregraph.yaml"], source)
    for name, text in files.items():
        write_file(at / name, text.encode())
    if carried is not None and carried.left:
        talk("not carried over:")
        for line in carried.left:
            talk(f"  {line}")
    result((at / "cregraph.yaml").as_posix())


def _carried(path: Path) -> Carried:
    carried = Carried(file=path.as_posix())
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise CregraphError(f"`{path}` cannot be read: {why}", hint="name a file: cregraph init --from FILE") from None
    if len(data) > _LIMIT:
        raise CregraphError(f"`{path}` is too large (expected at most {_LIMIT >> 20} MiB)")
    convert(path, text, carried)
    return carried


def _is_kept(path: Path, text: str) -> bool:
    """Return whether a file for git has the lines already. Raise CregraphError for any other file that exists."""
    if not path.exists() and not path.is_symlink():
        return False
    if path.name in _GIT_FILES and path.is_file():
        if set(text.splitlines()) <= set(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            return True
        hint = f"add these lines to it and run the command again: {', '.join(f'`{one}`' for one in text.splitlines())}"
    else:
        hint = "move the file away, or name another folder: cregraph init DIR"
    raise CregraphError(f"`{path.as_posix()}` exists already; nothing was written", hint=hint)


def _check(text: str, source: str | None) -> None:
    """Raise CregraphError if `text` is not a valid profile."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "cregraph.yaml"
        profile.write_text(text, encoding="utf-8")
        try:
            Project(profile=profile).asked()
        except CregraphError as error:
            message = error.message.replace(f"{folder}/", "")
            raise CregraphError(
                f"`{source}` cannot be carried over; nothing was written:\n{message}",
                hint=f"repair these fields in `{source}`, and run the command again",
            ) from None
