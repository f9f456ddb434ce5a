"""The text of a project's first files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.init.carried import Carried
from cregraph.init.conda_lock_yml import read_conda_lock
from cregraph.init.environment_yml import read_environment
from cregraph.init.requirements_txt import read_requirements
from cregraph.init.toolkit_yaml import read_profile, read_runtime
from cregraph.profile.stated import shown
from cregraph.profile.yaml_reader import read_yaml

__all__ = ["TEMPLATES", "convert", "profile_text", "sources_text"]

#: Snowflake's base image; any image, from public sources only.
TEMPLATES = ("snowflake", "open")
_SOURCES = """\
# Addresses of sources on this machine. A lock holds names only, so this file changes no image.
# Without an entry, cregraph asks the public source. docs/sources.md lists all sections.
#
# conda: {conda-forge: "https://mirror.example/conda-forge"}
# cran: "https://mirror.example/cran/{date}"
# pypi: https://mirror.example/simple
"""
_HEAD = """\
# yaml-language-server: $schema=https://raw.githubusercontent.com/cregraph/cregraph/main/docs/profile.schema.json
# This profile describes one container image. docs/profile.md lists every field.
"""
_Value = str | bool | list[str] | dict[str, str] | None
#: Field, its value in each of `TEMPLATES`, and comment. An empty value must be filled in; None leaves the field out.
_ROWS: tuple[tuple[str, tuple[_Value, _Value], str], ...] = (
    ("without", (None, ["snowbooks"]), "stages to leave out: Snowflake's base image"),
    ("with", (None, ["base"]), "stages to add: a base image of your own choice"),
    ("cre.name", ("my_team_r", None), "name of the custom runtime environment in the account"),
    ("cre.image", ("my-team-r", "my-team-r"), "name of the image"),
    ("cre.tag", ("v1", "v1"), "the label that the image's tag begins with"),
    ("cre.version_label", (None, None), "the label that the image's tag begins with"),
    ("cre.r_version", ("4.5.2", "4.5.2"), "version of R"),
    ("cre.snowbooks_tag", ("2.5.0", None), "tag of Snowflake's base image"),
    ("cre.base_image_type", ("CPU", None), "CPU or GPU"),
    ("cre.adbc", (None, False), "false leaves the ADBC driver of Snowflake out"),
    ("base.image", (None, "quay.io/jupyter/minimal-notebook:2025-03-14"), "the base image"),
    ("base.user", (None, "jovyan"), "the user of the base image that notebooks run as"),
    ("base.home", (None, "/home/jovyan"), "the home folder of this user"),
    ("snowflake.registry_url", ("", None), "host of the account's image registry"),
    ("snowflake.image_repo_path", (None, None), "database/schema/repository that images are pushed to"),
    ("micromamba.channels", (None, None), "conda channels; the first that has a package wins"),
    ("tarballs", (None, None), "R packages from source tarballs"),
    ("extras.conda_r", ([], []), "more conda packages, such as r-lme4=1.1-35"),
    ("extras.cran", ([], []), "R packages from CRAN, such as survival==3.5-8"),
    ("extras.cran_snapshot", (None, None), "the day whose CRAN is asked"),
    ("extras.cran_binaries", (None, None), "a Linux distribution whose built R packages are used where they fit"),
    ("extras.pip", ([], []), "more Python packages, such as scikit-learn>=1.3,<2"),
)


def convert(path: Path, text: str, into: Carried) -> None:
    """Read a file of another tool into `into`. The content decides what it is; a name ends in `.txt` for pip's.

    Raises:
        CregraphError: The file has an unknown format, or cannot be read.
    """
    if path.suffix == ".txt":
        read_requirements(text, into)
        return
    if re.search(r"^package:", text, re.MULTILINE) and re.search(r"^metadata:", text, re.MULTILINE):
        read_conda_lock(path, into)
        return
    top = read_yaml(text, file=into.file)
    if "cre" in top.fields:
        read_profile(top, into)
    elif "dependencies" in top.fields:
        read_environment(top, into)
    elif top.fields.keys() & {"languages", "custom_runtime", "env_name"}:
        read_runtime(top, into)
    else:
        raise CregraphError(
            f"{into.file}: unknown format (expected a toolkit's profile or runtime file, environment.yml, conda-lock.yml "
            "or requirements.txt)",
            hint="name one of these files, or leave `--from` out",
        )


def profile_text(template: str, carried: Carried | None) -> str:
    """Return the profile of `template` with the values of `carried`.

    Texts are quoted, so that none of them can state another field. The tag of Snowflake's base is left out for another base.
    """
    fields: dict[str, _Value] = dict(carried.fields) if carried else {}
    if carried and template == "open" and fields.pop("cre.snowbooks_tag", None):
        carried.leave(0, "cre.snowbooks_tag", "the template `open` has another base image")
    lines = [_HEAD.rstrip() + (f"\n# Made from {shown(carried.file)}." if carried else "")]
    section = ""
    if "cre.version_label" in fields:
        fields.setdefault("cre.tag", None)
    for name, defaults, about in _ROWS:
        value = fields.get(name, defaults[TEMPLATES.index(template)])
        if value is None:
            continue
        head, dot, key = name.partition(".")
        if dot and head != section:
            section = head
            lines.append(f"\n{head}:")
        indent = "  " if dot else ""
        lines.append(f"{'' if dot else chr(10)}{indent}# {about}\n{indent}{key or head}:{_value(value, indent)}")
    return "\n".join(lines) + "\n"


def sources_text(carried: Carried | None) -> str:
    """Return sources.yaml, with the addresses of channels that `carried` has."""
    rows = [f"  {_quoted(name)}: {_quoted(address)}\n" for name, address in (carried.channels if carried else {}).items()]
    return _SOURCES + "".join(["\nconda:\n", *rows] if rows else [])


def _value(value: object, indent: str) -> str:
    if isinstance(value, list):
        return "".join(f"\n{indent}  - {_quoted(item)}" for item in value) or " []"
    if isinstance(value, Mapping):
        return "".join(f"\n{indent}  {_quoted(name)}: {_quoted(text)}" for name, text in value.items())
    if isinstance(value, bool):
        return f" {str(value).lower()}"
    return f" {_quoted(str(value))}" if value else "   # such as myorg-myaccount.registry.snowflakecomputing.com"


def _quoted(text: str) -> str:
    import yaml

    dumped: str = yaml.safe_dump(text, default_style='"', width=1 << 30, allow_unicode=True)
    return dumped.strip()
