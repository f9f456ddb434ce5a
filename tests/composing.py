"""A project in a dict: what the tests of profiles and recipes compose."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path

import pytest

from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.profile.compose import Composition, compose
from cregraph.profile.recipe import Found

ROOT = Path(__file__).parent.parent

#: The least that the standard recipes want to know.
MINIMAL = 'cre: {tag: v1, r_version: "4.5.2", snowbooks_tag: "2.5.0"}\n'


def standard(name: str) -> Found | None:
    path = ROOT / "recipes" / f"{name}.yaml"
    if not path.is_file():
        return None
    return Found(text=path.read_text(encoding="utf-8"), file=f"recipes/{name}.yaml", folder="standard:")


def composed(files: Mapping[str, str] | str, path: str = "p.yaml") -> Composition:
    """Compose `path` of a project that holds `files` (a text: `p.yaml` alone) and the standard recipes."""
    project = {"p.yaml": files} if isinstance(files, str) else files
    folder = posixpath.dirname(path)
    own = posixpath.join(folder, "recipes")

    def read(name: str) -> str:
        if name not in project:
            raise FileNotFoundError(2, "No such file or directory", name)
        return project[name]

    def find(name: str) -> Found | None:
        file = f"{own}/{name}.yaml"
        return Found(text=project[file], file=file, folder=own) if file in project else standard(name)

    names = [posixpath.splitext(posixpath.basename(name))[0] for name in project if name.startswith(own)]
    return compose(path, read=read, find=find, kinds=KINDS, names=names)


def example(name: str) -> Composition:
    """Compose one of the committed examples."""
    files = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in (ROOT / "examples").rglob("*.yaml")}
    return composed(files, f"examples/{name}.yaml")


def refusal(files: Mapping[str, str] | str, path: str = "p.yaml") -> tuple[str, str | None]:
    """Message and hint of what composing is refused with."""
    with pytest.raises(CregraphError) as caught:
        composed(files, path)
    return caught.value.message, caught.value.hint


def with_recipe(text: str, *, profile: str = "") -> dict[str, str]:
    """A project whose profile adds the team's recipe `mine`, which is `text` below its name."""
    return {"p.yaml": MINIMAL + "with: [mine]\n" + profile, "recipes/mine.yaml": "recipe: mine\n" + text}
