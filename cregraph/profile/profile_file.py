"""A profile, a team's YAML file for one image, merged with the files that it extends.

    extends: my_team.yaml             another profile; its path is relative to this file
    with: [duckdb]                    stages in addition to the standard ones
    without: [tarballs]               stages to leave out
    cre: {name: …, image: …, tag: …}  read here and by the recipes
    extras: {conda_r: [r-sf]}         read by the recipes
    duckdb: {version: "1.4.1"}        a section per stage, for its parameters

Merging, from the farthest parent down: a field replaces the parent's, a list under `extras` is added to the parent's, and
`null` takes the parent's field away. A file that states `cre.tag` or `cre.version_label` drops both of the parent's, so that
no image carries another image's label. Stages are switched on and off in the same order; `cre.adbc: false` is `without: [adbc]`.

Pure: files come from `read`, which is given a path and returns the text, or raises CregraphError or OSError.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cregraph.errors import CregraphError
from cregraph.profile.stated import Problem, Stated, refuse, shown
from cregraph.profile.switches import Switch, Switches
from cregraph.profile.values import read_value
from cregraph.profile.yaml_reader import read_yaml

__all__ = ["CORE", "IDENTITY", "LABEL", "Profile", "load_profile"]

#: The fields that are read whatever the recipes are: type and what they are for.
CORE: Mapping[str, tuple[str, str]] = {
    "cre.name": ("text", "name of the custom runtime environment in the account; the file's name unless stated"),
    "cre.image": ("text", "name of the image in its repository; the file's name unless stated"),
    "cre.tag": ("text", "the label that the image's tag begins with, unless `cre.version_label` states one"),
    "cre.version_label": ("text", "the label that the image's tag begins with"),
    "cre.adbc": ("boolean", "false leaves the stage `adbc` out"),
    "cre.base_image_type": ("choice", "the base's type, for registration and for the stage `snowbooks`"),
    "snowflake.registry_url": ("text", "host of the account's image registry"),
    "snowflake.image_repo_path": ("text", "database/schema/repository that images are pushed to"),
}
BASE_TYPES = ("CPU", "GPU")
#: Fields of `cre` that a file states for its own image only.
IDENTITY = ("tag", "version_label")
#: The characters that a label may have: a tag has 128 (distribution/reference), and the label's ends in `-` and twelve digits.
LABEL = 128 - 13

_MAX_PARENTS = 20
_KEYS = ("extends", "with", "without")
# Docker's grammar (distribution/reference): lower-case path components
_IMAGE = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_LABEL = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LABEL - 1}}}")
# an unquoted identifier of Snowflake: the statement takes no quoted one
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,254}")
_REPOSITORY = re.compile(r"/?[A-Za-z_][A-Za-z0-9_$]*(?:/[A-Za-z_][A-Za-z0-9_$]*){2}/?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One image, as its profile and the profile's parents describe it.

    Attributes:
        file: The path as given. `name` is its stem.
        files: The whole chain, farthest parent first.
        label: `cre.version_label`, else `cre.tag`.
        sections: Everything stated, merged.
        levels: For each field (`extras.cran`) and section the index in `files` of the file that stated it last.
        stages: What switched on each stage of the image; None for a standard stage. `off` are the stages left out.
    """

    name: str
    file: str
    files: tuple[str, ...]
    image: str
    tag: str
    label: str
    cre_name: str
    base_type: str
    registry_url: str | None
    image_repo_path: str | None
    sections: Mapping[str, Stated]
    levels: Mapping[str, int]
    stages: Mapping[str, Switch | None]
    off: Mapping[str, Switch]

    def field(self, name: str) -> Stated | None:
        """Return what is stated for `section.field` or a whole `section`, also null; None if it is not stated."""
        section, dot, key = name.partition(".")
        node = self.sections.get(section)
        if node is not None and dot:
            node = node.fields.get(key)
        return node

    def fields(self) -> Iterator[tuple[str, str | None, Stated]]:
        """Return every stated field: section, name in it (None if the section is not a mapping), value."""
        for section, node in self.sections.items():
            if node.is_mapping:
                yield from ((section, key, item) for key, item in node.fields.items())
            else:
                yield section, None, node


def load_profile(path: str, *, read: Callable[[str], str]) -> tuple[Profile, list[Problem]]:
    """Return the profile at `path`, merged with its parents, and what is wrong with the fields that are read here.

    The problems are returned so that they can be shown with those of the recipes.

    Raises:
        CregraphError: A file cannot be read, is not YAML or not a mapping, or `extends` comes back to a file.
    """
    chain = _chain(path, read)
    problems: list[Problem] = []
    sections: dict[str, Stated] = {}
    levels: dict[str, int] = {}
    switches = Switches(problems)
    for level, top in enumerate(chain):
        switches.take(top, level)
        own = top.fields["cre"].fields if "cre" in top.fields else {}
        if "cre" in sections and any(name in own and own[name].value is not None for name in IDENTITY):
            kept = {key: item for key, item in sections["cre"].fields.items() if key not in IDENTITY}
            sections["cre"] = Stated(value=kept, place=sections["cre"].place)
        for section, node in top.fields.items():
            if section not in _KEYS:
                levels[section] = level
                levels |= {f"{section}.{key}": level for key in node.fields}
                sections[section] = _merged(section, sections.get(section), node)
    name = posixpath.splitext(posixpath.basename(path))[0]
    return _checked(name, path, chain, sections, levels, switches, problems), problems


def _chain(path: str, read: Callable[[str], str]) -> list[Stated]:
    """The trees of the files, farthest parent first."""
    found: list[Stated] = []
    files: list[str] = []
    stated: Stated | None = None
    while True:
        if path in files:
            loop = " extends ".join(f"`{f}`" for f in [*files[files.index(path) :], path])
            assert stated is not None
            refuse([stated.problem(f"profiles extend each other: {loop}", "leave out one `extends`")])
        if len(files) >= _MAX_PARENTS:
            assert stated is not None
            refuse([stated.problem(f"more than {_MAX_PARENTS} profiles that extend each other")])
        top = read_yaml(_text(path, read, stated), file=path)
        if top.value is None:
            raise CregraphError(
                f"{path}: the file is empty", "begin with `cre: {tag: v1}`; `cregraph demo` writes one that works"
            )
        if not top.is_mapping:
            raise CregraphError(f"{path}:{top.place.line}: a profile must be a mapping, not {top.what}", "begin with `cre:`")
        files.append(path)
        found.append(top)
        stated = top.fields.get("extends")
        if stated is None or stated.value is None:
            return found[::-1]
        if not isinstance(stated.value, str) or stated.value.startswith("/") or not stated.value:
            refuse([stated.problem("expected the path of a profile relative to this file", "write `extends: other.yaml`")])
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), stated.text))


def _text(path: str, read: Callable[[str], str], stated: Stated | None) -> str:
    try:
        return read(path)
    except CregraphError as error:
        if stated is None:
            raise
        raise CregraphError(str(stated.problem(error.message)), error.hint) from None
    except UnicodeError:
        text = f"`{shown(path)}` is not UTF-8"
    except (OSError, ValueError) as error:  # ValueError: a path that holds NUL
        text = f"`{shown(path)}` cannot be read: {getattr(error, 'strerror', None) or 'no such path'}"
    raise CregraphError(str(stated.problem(text)) if stated else text)


def _merged(section: str, parent: Stated | None, node: Stated) -> Stated:
    if parent is None or not node.is_mapping or not parent.is_mapping:
        return node
    fields = dict(parent.fields)
    for key, item in node.fields.items():
        above = fields.get(key)
        if section == "extras" and above is not None and above.is_list and item.is_list:
            item = Stated(value=[*above.items, *item.items], place=item.place)
        fields[key] = item
    return Stated(value=fields, place=node.place)


def _checked(
    name: str,
    path: str,
    chain: list[Stated],
    sections: Mapping[str, Stated],
    levels: Mapping[str, int],
    switches: Switches,
    problems: list[Problem],
) -> Profile:
    """The profile with the core's own fields read and checked."""

    def core(field: str, pattern: re.Pattern[str] | None = None, needed: str = "") -> Stated | None:
        section, _, key = field.partition(".")
        node = sections[section].fields.get(key) if section in sections else None
        if node is None or node.value is None:
            return None
        value = read_value(node, CORE[field][0], problems=problems, choices=BASE_TYPES)
        if pattern and isinstance(value.value, str) and not pattern.fullmatch(value.value):
            problems.append(node.problem(f"`{shown(value.value)}` cannot be used here", needed))
        return value

    def text(value: Stated | None, otherwise: str) -> str:
        return value.value if value is not None and isinstance(value.value, str) else otherwise

    label = f"letters, digits, `_`, `.` and `-`, at most {LABEL} of them, and not `.` or `-` first"
    tag = core("cre.tag", _LABEL, label)
    version = core("cre.version_label", _LABEL, label)
    if tag is None and version is None:
        last = chain[-1].fields.get("cre") or chain[-1]
        problems.append(last.problem("`cre.tag` or `cre.version_label` is missing", "write `tag: v1`", field="cre.tag"))
    core("cre.adbc")
    image = text(core("cre.image", _IMAGE, "use lower-case letters and digits, with `.`, `_` or `-` between them"), "")
    if not image:
        image = name
        if not _IMAGE.fullmatch(name):
            text_ = f"no image can be called `{shown(name)}`, as the file is; `cre.image` is missing"
            problems.append(chain[-1].problem(text_, "write `cre: {image: …}`", field="cre.image"))
    host = core("snowflake.registry_url", _HOST, "write only the host, such as myorg-acct.registry.snowflakecomputing.com")
    repository = core("snowflake.image_repo_path", _REPOSITORY, "database/schema/repository")
    return Profile(
        name=name,
        file=path,
        files=tuple(top.place.file for top in chain),
        image=image,
        tag=text(tag, text(version, "")),
        label=text(version, text(tag, "")),
        cre_name=text(
            core("cre.name", _IDENTIFIER, "use a letter or `_`, then letters, digits and `_`"),
            re.sub(r"[^A-Za-z0-9_]|^(?=[0-9])", "_", name),
        ),
        base_type=text(core("cre.base_image_type"), BASE_TYPES[0]),
        registry_url=text(host, "") or None,
        image_repo_path=text(repository, "").strip("/").lower() or None,
        sections=sections,
        levels=levels,
        stages=switches.stages,
        off=switches.off,
    )
