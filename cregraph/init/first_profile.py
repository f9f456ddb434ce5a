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

__all__ = ["GIT_FILES", "SOURCES", "convert", "profile_text"]

#: Files for git: name to lines.
GIT_FILES = {".gitattributes": "locks/** -text\nbases/** -text\n", ".gitignore": "cache/\n"}
SOURCES = """\
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
#: Field, value without `--from`, and comment. An empty value must be filled in; None leaves the field out.
_ROWS: tuple[tuple[str, str | None, str], ...] = (
    ("cre.name", "my_team_r", "name of the custom runtime environment in the account"),
    ("cre.image", "my-team-r", "name of the image"),
    ("cre.tag", "v1", "the label that the image's tag begins with"),
    ("cre.version_label", None, "the label that the image's tag begins with"),
    ("cre.r_version", "4.5.2", "version of R"),
    ("cre.snowbooks_tag", "2.5.0", "tag of Snowflake's base image"),
    ("cre.base_image_type", "CPU", "CPU or GPU"),
    ("cre.adbc", None, "false leaves the ADBC driver out"),
    ("snowflake.registry_url", "", "host of the account's image registry"),
    ("snowflake.image_repo_path", None, "database/schema/repository that images are pushed to"),
    ("micromamba.channels", None, "conda channels; the first that has a package wins"),
    ("tarballs", None, "R packages from source tarballs"),
    ("extras.conda_r", "[]", "more conda packages, such as r-lme4=1.1-35"),
    ("extras.cran", "[]", "R packages from CRAN, such as survival==3.5-8"),
    ("extras.cran_snapshot", None, "the day whose CRAN is asked"),
    ("extras.cran_binaries", None, "a Linux distribution whose built R packages are used where they fit"),
    ("extras.pip", "[]", "more Python packages, such as scikit-learn>=1.3,<2"),
)


def convert(path: Path, text: str, into: Carried) -> None:
    """Read a file of another tool into `into`. The content decides what it is; a name ends in `.txt` for pip's.

    Raises:
        CregraphError: The file is none of the formats, or cannot be read.
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
            f"`{into.file}`: unknown format (expected a toolkit's profile or runtime file, environment.yml, conda-lock.yml "
            "or requirements.txt)",
            hint="name one of these files, or leave `--from` out",
        )


def profile_text(carried: Carried | None) -> str:
    """Return the profile with the values of `carried`. Texts are quoted, so that none of them can state another field."""
    fields = carried.fields if carried else {}
    lines = [_HEAD + (f"# Made from {shown(carried.file)}.\n" if carried else "")]
    section = ""
    for name, default, about in _ROWS:
        value = fields.get(name)
        if value is None and (default is None or (name == "cre.tag" and "cre.version_label" in fields)):
            continue
        head, dot, key = name.partition(".")
        if head != section:
            section = head
            lines.append(f"\n{head}:" if dot else f"\n# {about}\n{head}:")
        if dot:
            lines.append(f"  # {about}\n  {key}:{_value(value, default)}")
        elif isinstance(value, Mapping):
            lines += [f"  {_quoted(one)}: {_quoted(address)}" for one, address in value.items()]
    return "\n".join(lines) + "\n"


def _value(value: object, default: str | None) -> str:
    if isinstance(value, list):
        return "".join(f"\n    - {_quoted(item)}" for item in value)
    if isinstance(value, bool):
        return f" {str(value).lower()}"
    if isinstance(value, str):
        return f" {_quoted(value)}"
    if not default:
        return "   # such as myorg-myaccount.registry.snowflakecomputing.com"
    return f" {default}" if default == "[]" else f" {_quoted(default)}"


def _quoted(text: str) -> str:
    import yaml

    dumped: str = yaml.safe_dump(text, default_style='"', width=1 << 30, allow_unicode=True)
    return dumped.strip()
