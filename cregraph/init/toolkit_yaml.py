"""Readers of the two YAML files of the reference toolkit: a profile, and the configuration that `setup_notebook()` reads."""

from __future__ import annotations

from cregraph.init.carried import Carried
from cregraph.init.environment_yml import add_conda
from cregraph.profile.package_texts import ADDRESS, is_r_name, r_package, r_tarball, requirement
from cregraph.profile.profile_file import CORE
from cregraph.profile.stated import Stated

__all__ = ["read_profile", "read_runtime"]

_TEXTS = {*CORE, "cre.r_version", "cre.snowbooks_tag", "extras.cran_snapshot", "extras.cran_binaries"}
_ELSEWHERE = "a profile has no such field"


def read_profile(top: Stated, into: Carried) -> None:
    """Carry over every field that a standard recipe reads."""
    for section, node in top.fields.items():
        if section == "tarballs":
            _tarballs(node, into)
        elif section not in ("cre", "extras", "snowflake"):
            into.leave(node.place.line, section, _ELSEWHERE)
        for key, item in node.fields.items() if section != "tarballs" else ():
            name = f"{section}.{key}"
            if name == "extras.conda_r":
                for one in item.items:
                    add_conda(one.text, one.place.line, into)
            elif name in ("extras.cran", "extras.pip"):
                _listed(name, item, into)
            elif name in _TEXTS and item.value is not None:
                into.fields[name] = item.value if isinstance(item.value, bool) else item.text
            elif name == "extras.cran_mirror":
                into.leave(item.place.line, name, "write the address as `cran` in sources.yaml")
            elif item.value is not None:
                into.leave(item.place.line, name, _ELSEWHERE)


def read_runtime(top: Stated, into: Carried) -> None:
    """Carry over the R of a runtime configuration. Other languages and the session's settings are left out."""
    for section, node in top.fields.items():
        if section != "languages":
            if node.fields or node.text:
                into.leave(node.place.line, section, "notebooks read it; put the file next to the profile as cre.runtime_config")
            continue
        for language, below in node.fields.items():
            if language != "r":
                into.leave(below.place.line, f"languages.{language}", "the standard recipes have R and Python only")
            for key, item in below.fields.items() if language == "r" else ():
                _of_r(key, item, into)


def _of_r(key: str, item: Stated, into: Carried) -> None:
    if key == "r_version":
        into.fields["cre.r_version"] = item.text
    elif key == "conda_packages":
        for one in item.items:
            add_conda(one.text, one.place.line, into)
    elif key in ("cran_packages", "pip_packages"):
        _listed(f"extras.{key.partition('_')[0]}", item, into)
    elif key == "tarballs":
        _tarballs(item, into)
    elif key == "addons":
        for name, one in item.fields.items():
            if name == "adbc" and isinstance(one.value, bool):
                into.fields["cre.adbc"] = one.value
            else:
                into.leave(one.place.line, name, "add a recipe for it (docs/recipes.md)")
    elif key != "enabled":
        into.leave(item.place.line, f"languages.r.{key}", _ELSEWHERE)


def _listed(name: str, node: Stated, into: Carried) -> None:
    for one in node.items:
        into.add(name, one.text, one.place.line, r_package if name == "extras.cran" else requirement)


def _tarballs(node: Stated, into: Carried) -> None:
    kept: dict[str, str] = {}
    for name, one in node.fields.items():
        if not is_r_name(name) or not one.text.isprintable():
            into.leave(one.place.line, name, "is not the name of an R package with an address")
        elif "@" in one.text:
            into.leave(one.place.line, name, "its address holds a user; write credentials to ~/.netrc")
        elif ADDRESS.match(one.text):
            r_tarball(one.text)
            kept[name] = one.text
        else:
            into.leave(one.place.line, name, "copy the file next to the profile and add it to `tarballs`")
    if kept:
        into.fields["tarballs"] = kept
