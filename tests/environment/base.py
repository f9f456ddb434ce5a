"""The base image: Debian with the contract of Snowflake's notebook images (fifteen distributions, entry point, port).

Python is Debian's, moved to /opt/python and reached through a symbolic link; the notebook software is real; the heavy
distributions are stand-ins that say so, unless $CREGRAPH_ENVIRONMENT_FULL_BASE asks for the real ones (1.9 GB).
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from pathlib import Path

from . import debtree, interpreter, oci
from .apt import Suite
from .command import run, run_in
from .parts import Progress, part, words
from .roots import debootstrap
from .wheels import fetch, uv

TAG = "2.5.0"
PREFIX = "/opt/python/cpython-3.11.2"
WORKDIR = "/opt/nbctl"
REAL = ["ipykernel", "sqlparse", "jinja2", "notebook", "ipython", "psutil", "jupyter-server"]
# name of the distribution -> version it claims, the module that can be imported
STAND_INS = {
    "snowflake-snowpark-python": ("1.32.0", "snowflake/snowpark"),
    "ray": ("2.46.0", "ray"),
    "lightgbm-ray": ("0.1.9", "lightgbm_ray"),
    "xgboost-ray": ("0.1.19", "xgboost_ray"),
    "snowflake": ("1.5.0", "snowflake/_stand_in"),
    "snowflake.core": ("1.5.0", "snowflake/core"),
    "snowflake-connector-python": ("3.15.0", "snowflake/connector"),
    "snowflake-ml-python": ("1.8.5", "snowflake/ml"),
}
_LIBRARIES = words(
    "ca-certificates libexpat1 libffi8 libsqlite3-0 libreadline8 libncursesw6 libnsl2 libtirpc3 libuuid1 libdb5.3 libssl3"
    " media-types netbase tzdata libbz2-1.0 liblzma5 zlib1g libstdc++6"
)

_ENTRY_POINT = '#!/bin/bash\n# Prints nothing: what it starts is asked for JSON.\nexec "$@"\n'
_START = '#!/bin/bash\n# Stand-in of the notebook controller, for tests: a plain Jupyter server on the dashboard\'s port.\nexec jupyter server --ip=0.0.0.0 --port="${DASHBOARD_PORT}" --no-browser --allow-root "$@"\n'  # noqa: E501


def base(root: Path, suite: Suite, address: str, progress: Progress) -> tuple[Path, str]:
    """The base as an OCI layout tagged `TAG`, and its digest; needs root."""
    full = os.environ.get("CREGRAPH_ENVIRONMENT_FULL_BASE") == "1"
    kind = "full" if full else "light"

    def debian(into: Path) -> None:
        debootstrap(into / "root", address, _LIBRARIES)

    def wheels(into: Path) -> None:
        names = [*REAL, *STAND_INS, "pip", "setuptools"] if full else None
        fetch(names or (Path(__file__).parent / "base-requirements.txt").read_text().split(), into, resolve=full)

    def image(into: Path) -> None:
        _image(into, suite, trees / "root", wheelhouse, full)

    layout = root / ("base-full" if full else "base")
    if not layout.exists():
        trees = part(root, "trees/base", debian, progress)
        wheelhouse = part(root, f"downloads/base-{kind}", wheels, progress)
        part(root, layout.name, image, progress)
    return layout, oci.digest(layout)


def _image(into: Path, suite: Suite, debian: Path, wheelhouse: Path, full: bool) -> None:
    root = into / "root"
    run("cp", "-a", debian, root)
    _people(root)
    layers = [oci.layer(root, into, before={}, created_by="Debian 12, minimal")]

    before = oci.state(root)
    prefix = root / PREFIX[1:]
    debtree.unpack(list(suite.debs(interpreter.RUNTIME).values()), prefix)
    shutil.rmtree(prefix / "info")
    interpreter.make_upstream(prefix, PREFIX)
    (prefix.parent / "cpython-3.11").symlink_to("cpython-3.11.2")
    for name in ("python", "python3", "python3.11"):
        (root / "usr/local/bin" / name).symlink_to(f"/opt/python/cpython-3.11/bin/{name}")
    layers.append(oci.layer(root, into, before=before, created_by="Python 3.11.2"))

    before = oci.state(root)
    (root / "etc/environment-base-unfinished").unlink()
    _notebook(root, wheelhouse, full)
    layers.append(oci.layer(root, into, before=before, created_by="notebook software"))
    shutil.rmtree(root)

    config: dict[str, object] = {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DASHBOARD_PORT=12003", "LANG=C.UTF-8"],
        "Entrypoint": ["/usr/local/bin/entrypoint.sh"],
        "Cmd": ["bash"],
        "WorkingDir": WORKDIR,
        "ExposedPorts": {"12003/tcp": {}},
        "User": "root",
    }
    labels = {
        "org.opencontainers.image.base.name": "debian:bookworm",
        "org.opencontainers.image.title": "stand-in of Snowflake's notebook base, for cregraph's tests",
    }
    oci.finish(into, layers, tag=TAG, config=config, labels=labels)


def _people(root: Path) -> None:
    """Users, homes and directory modes, odd ones among them: an image tool must leave them as they are."""
    for file, line in {
        "passwd": "jupyter:x:1000:1000:Jupyter:/home/jupyter:/bin/bash",
        "group": "jupyter:x:1000:",
        "shadow": "jupyter:!:19723:0:99999:7:::",
    }.items():
        with (root / "etc" / file).open("a") as out:
            out.write(line + "\n")
    home = root / "home/jupyter"
    home.mkdir()
    (home / ".bashrc").write_text("# of the base\n")
    for path in (home, home / ".bashrc"):
        os.chown(path, 1000, 1000)
    home.chmod(0o750)
    (root / "root").chmod(0o700)
    (root / "tmp").chmod(0o1777)
    os.chown(root / "var/mail", 0, 8)
    (root / "var/mail").chmod(0o2775)
    (root / "etc/environment-base-unfinished").write_text("a later layer removes this file\n")


def _notebook(root: Path, wheelhouse: Path, full: bool) -> None:
    # uv is one static program: it installs from inside, so that scripts and records name the paths they will live at.
    for source, name in ((uv(), "uv"), (wheelhouse, "wheels")):
        target = root / "tmp" / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    files = sorted(f"/tmp/wheels/{path.name}" for path in wheelhouse.iterdir())
    site = f"{PREFIX}/lib/python3.11/site-packages"
    run_in(
        root,
        *("/tmp/uv", "pip", "install", "--quiet", "--no-config", "--offline", "--no-index", "--no-deps", "--no-cache"),
        *("--python", f"{PREFIX}/bin/python3.11", "--link-mode", "copy", "--break-system-packages", *files),
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    for left in (root / "tmp").iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    for record in sorted((root / site[1:]).glob("*.dist-info/RECORD")):
        _forget(record)
    if not full:
        for name, (version, module) in STAND_INS.items():
            _stand_in(root / site[1:], name, version, module)
    for script in sorted((root / PREFIX[1:] / "bin").iterdir()):
        link = root / "usr/local/bin" / script.name
        if not link.exists() and not link.is_symlink():
            link.symlink_to(f"/opt/python/cpython-3.11/bin/{script.name}")
    for path, text in {"usr/local/bin/entrypoint.sh": _ENTRY_POINT, f"{WORKDIR[1:]}/start_nbctl.sh": _START}.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755)


def _forget(record: Path) -> None:
    """Remove what uv noted of where and when it found the wheel: for all that the image tells, it came from an index."""
    left = ("direct_url.json", "uv_cache.json")
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if not any(name in line for name in left)))
    for name in left:
        record.with_name(name).unlink(missing_ok=True)


def _stand_in(site: Path, name: str, version: str, module: str) -> None:
    summary = f"stand-in of {name} for the tests of cregraph: it can be imported and does nothing"
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n"
    files = {
        f"{module}/__init__.py": f'"""{summary[0].upper()}{summary[1:]}."""\n\n__version__ = "{version}"\n',
        f"{folder}/METADATA": metadata,
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: cregraph-tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{folder}/INSTALLER": "uv\n",
    }
    record = []
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text)}\n")
    (site / folder / "RECORD").write_text("".join(record) + f"{folder}/RECORD,,\n")
