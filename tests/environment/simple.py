"""A package index: PEP 503 pages, their JSON form (PEP 691, with PEP 700's times) and the wheels' metadata (PEP 658).

Folders and files only, so that it is served by any server and from `file://`.
"""

from __future__ import annotations

import hashlib
import html
import json
import tomllib
import urllib.request
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from urllib.parse import unquote

from packaging.utils import canonicalize_name

from .command import run
from .parts import EnvironmentUnavailable, words
from .wheels import uv

# What rpy2 and tabulate need on CPython 3.11, and what building their source distributions needs. rpy2-rinterface from 3.6.6
# on asks R for symbols that came with 4.5.
WANTED = words(
    "rpy2==3.6.4 rpy2-robjects==3.6.4 rpy2-rinterface==3.6.5 cffi==2.1.1 pycparser==3.0 tzlocal==5.4.4 jinja2==3.1.6"
    " markupsafe==3.0.3 tabulate==0.10.0 setuptools==84.0.0 wheel==0.48.0 packaging==26.3"
)
OLDER = words("tabulate==0.9.0 setuptools==80.9.0 tzlocal==5.3.1")
_SOURCES = ("rpy2-rinterface", "tabulate")  # whose source distribution is offered
_TIME = "2024-02-01T00:00:00Z"  # when this index got its files


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One file of the index that this machine uses."""

    url: str
    name: str
    sha256: str
    project: str


def fetch(into: Path) -> None:
    """Fetch the files of `WANTED` and `OLDER` into `into/<project>/`, their hashes as uv tells them."""
    for remote in [*_remotes(WANTED), *_remotes(OLDER)]:
        path = into / remote.project / remote.name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(remote.url, timeout=120) as answer:
                data = answer.read()
        except OSError as failed:
            raise EnvironmentUnavailable(f"the package index did not give {remote.name}: {failed}") from failed
        if hashlib.sha256(data).hexdigest() != remote.sha256:
            raise EnvironmentUnavailable(f"the package index gave another {remote.name} than it promised")
        path.write_bytes(data)


def _remotes(requirements: list[str]) -> list[Remote]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "asked.in"
        asked.write_text("\n".join(requirements) + "\n")
        options = ("--no-deps", "--quiet", "--no-header", "--no-python-downloads", "--python-version", "3.11")
        target = ("--python-platform", "x86_64-manylinux_2_28", "--format", "pylock.toml")
        run(uv(), "pip", "compile", *options, *target, asked, "-o", Path(folder) / "pylock.toml")
        lock = tomllib.loads((Path(folder) / "pylock.toml").read_text())
    found = []
    for package in lock["packages"]:
        wheels = package.get("wheels", [])
        sources = [package["sdist"]] if package["name"] in _SOURCES or not wheels else []
        for file in [*wheels, *sources]:
            name = unquote(file["url"].split("#")[0].rsplit("/", 1)[-1])
            found.append(Remote(url=file["url"], name=name, sha256=file["hashes"]["sha256"], project=package["name"]))
    return found


def index(files: Path, into: Path) -> None:
    """Write the index over the fetched files into `into`; files are hard links."""
    projects = sorted(path.name for path in files.iterdir())
    for project in projects:
        folder = into / str(canonicalize_name(project))
        folder.mkdir(parents=True)
        entries = [_entry(path, folder) for path in sorted((files / project).iterdir())]
        page = {
            "meta": {"api-version": "1.1"},
            "name": project,
            "versions": sorted({str(entry.pop("version")) for entry in entries}),
            "files": entries,
        }
        (folder / "index.json").write_text(json.dumps(page, indent=1) + "\n")
        (folder / "index.html").write_text(_page(f"Links for {project}", [_anchor(entry) for entry in entries]))
    listing = {"meta": {"api-version": "1.1"}, "projects": [{"name": project} for project in projects]}
    (into / "index.json").write_text(json.dumps(listing, indent=1) + "\n")
    (into / "index.html").write_text(_page("Simple index", [f'<a href="{project}/">{project}</a>' for project in projects]))


def _entry(path: Path, folder: Path) -> dict[str, object]:
    data = path.read_bytes()
    (folder / path.name).hardlink_to(path)
    entry: dict[str, object] = {
        "filename": path.name,
        "url": path.name,
        "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
        "size": len(data),
        "upload-time": _TIME,
        "yanked": False,
    }
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            (name,) = [name for name in wheel.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
            metadata = wheel.read(name)
        (folder / f"{path.name}.metadata").write_bytes(metadata)
        entry["core-metadata"] = {"sha256": hashlib.sha256(metadata).hexdigest()}
        fields = Parser().parsestr(metadata.decode())
        if fields["Requires-Python"]:
            entry["requires-python"] = fields["Requires-Python"]
        entry["version"] = fields["Version"]
    else:
        entry["version"] = path.name.removesuffix(".tar.gz").rsplit("-", 1)[1]
    return entry


def _anchor(entry: dict[str, object]) -> str:
    hashes = entry["hashes"]
    assert isinstance(hashes, dict)
    extra = ""
    if "requires-python" in entry:
        extra += f' data-requires-python="{html.escape(str(entry["requires-python"]))}"'
    if isinstance(core := entry.get("core-metadata"), dict):
        extra += f' data-core-metadata="sha256={core["sha256"]}"'
    return f'<a href="{entry["url"]}#sha256={hashes["sha256"]}"{extra}>{entry["filename"]}</a>'


def _page(title: str, links: list[str]) -> str:
    head = f'<meta name="pypi:repository-version" content="1.1"><title>{html.escape(title)}</title>'
    body = "<br>\n".join(links)
    return f"<!DOCTYPE html>\n<html><head>{head}</head>\n<body>\n{body}\n</body></html>\n"
