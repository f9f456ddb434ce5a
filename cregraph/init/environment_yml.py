"""Reader of conda's `environment.yml`."""

from __future__ import annotations

import re

from cregraph.init.carried import Carried
from cregraph.init.requirements_txt import read_requirements
from cregraph.kinds.conda.conda_specs import normal_spec, spec_name
from cregraph.profile.stated import Stated, shown

__all__ = ["add_channel", "add_conda", "read_environment"]


def read_environment(top: Stated, into: Carried) -> None:
    """Add channels, conda packages and the packages of `pip:`. Other fields are left out with their line."""
    for key, node in top.fields.items():
        if key == "channels":
            for item in node.items:
                if item.text != "nodefaults":
                    add_channel(item.text, item.place.line, into)
        elif key == "dependencies":
            for item in node.items:
                for name, below in item.fields.items():
                    for one in below.items if name == "pip" else ():
                        read_requirements("\n" * (one.place.line - 1) + one.text, into)
                    if name != "pip":
                        into.leave(below.place.line, name, "only `pip:` is supported here")
                if not item.is_mapping:
                    add_conda(item.text, item.place.line, into)
        elif key != "name":
            into.leave(node.place.line, key, "a profile has no such field")


def add_channel(text: str, line: int, into: Carried) -> None:
    """Add a channel to `micromamba.channels`. The address of one goes to sources.yaml, by the name that its last part gives."""
    name = text.rstrip("/").rpartition("/")[2] if "://" in text else text
    if re.search(r"://.*[@$]|/t/", text):
        into.leave(line, text, "its address has credentials; write it under `conda` in sources.yaml, and them into ~/.netrc")
    elif name != text and into.channels.setdefault(name, text) != text:
        into.leave(line, text, f"a second channel with the name {shown(name)}; write both under `conda` in sources.yaml")
    else:
        into.add("micromamba.channels", name, line, _channel)


def add_conda(text: str, line: int, into: Carried) -> None:
    """Add a conda package: R itself as `cre.r_version`, others as `extras.conda_r`."""
    try:
        spec = normal_spec(text)
    except ValueError as error:
        into.leave(line, text, str(error))
        return
    name = spec_name(spec)
    exact = re.fullmatch(r"r-base ={0,2}([0-9][0-9.]*?)(?:\.\*)?(?: .*)?", spec)
    if name in ("python", "pip"):
        into.leave(line, text, "the notebook's Python is that of the base image")
    elif name == "r-base" and exact:
        into.fields["cre.r_version"] = exact[1]
    elif name == "r-base":
        into.leave(line, text, "a profile states one version of R; see cre.r_version")
    else:
        into.add("extras.conda_r", text, line, normal_spec)


def _channel(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", text):
        raise ValueError("is not the name of a channel; write its address under `conda` in sources.yaml")
    if text == "defaults":
        raise ValueError("stands for several channels; name those that you need")
