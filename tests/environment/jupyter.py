"""The images of examples/open.yaml for tests: a Jupyter image with the user jovyan and Python in /opt/conda, and a build root.

The Jupyter image is the base of the environment with another user, home, prefix, entry point and config, in one layer. Both
images lie in one OCI layout, by the names that examples/open.yaml and the recipe `base` have for them.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from . import oci
from .base import PREFIX, WORKDIR
from .environment import Environment
from .parts import alone, part

CONDA = "/opt/conda"
HOME = "/home/jovyan"
NAMED = "org.cregraph.image"
_START = '#!/bin/bash\n# Stand-in of the start script of Jupyter images.\nexec "$@"\n'


def jupyter_images(environment: Environment, image: str, build_root: str) -> Path:
    """Return an OCI layout with both images under these names (`HOST REPOSITORY:TAG`). It is made once, as root."""
    with alone(environment.root):
        made = part(environment.root, "jupyter", lambda into: _image(into, environment.base), lambda said: None)
        return part(environment.root, "open", lambda into: _named(into, {image: made, build_root: environment.build_root}), print)


def _image(into: Path, base: Path) -> None:
    root = into / "root"
    oci.unpack(base, root)
    _python(root)
    _user(root)
    shutil.rmtree(root / WORKDIR[1:])
    (root / "usr/local/bin/entrypoint.sh").unlink()
    start = root / "usr/local/bin/start.sh"
    start.write_text(_START)
    start.chmod(0o755)
    layers = [oci.layer(root, into, before={}, created_by="Debian 12 with a notebook in /opt/conda")]
    shutil.rmtree(root)
    config: dict[str, object] = {
        "Env": [
            f"PATH={CONDA}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            f"CONDA_DIR={CONDA}",
            f"HOME={HOME}",
            "NB_USER=jovyan",
            "LANG=C.UTF-8",
        ],
        "Entrypoint": ["start.sh"],
        "Cmd": ["jupyter", "server", "--ip=0.0.0.0"],
        "WorkingDir": HOME,
        "ExposedPorts": {"8888/tcp": {}},
        "User": "1000",
    }
    oci.finish(into, layers, tag="jupyter", config=config, labels={"maintainer": "cregraph's tests"})


def _python(root: Path) -> None:
    """Move Python to `CONDA`, and change the old prefix in every text below it. Programs are found by PATH alone."""
    (root / PREFIX[1:]).rename(root / CONDA[1:])
    shutil.rmtree(root / "opt/python")
    for link in (root / "usr/local/bin").iterdir():
        if link.is_symlink() and str(link.readlink()).startswith("/opt/python/"):
            link.unlink()
    for file in (root / CONDA[1:]).rglob("*"):
        if file.is_file() and not file.is_symlink() and PREFIX.encode() in (data := file.read_bytes()) and b"\0" not in data:
            file.write_bytes(data.replace(PREFIX.encode(), CONDA.encode()))


def _user(root: Path) -> None:
    """Rename the user, whose group is `users` as in Jupyter images."""
    for name in ("passwd", "group", "shadow"):
        file = root / "etc" / name
        text = file.read_text().replace("jupyter:x:1000:1000:Jupyter", "jovyan:x:1000:100:")
        file.write_text(text.replace("/home/jupyter", HOME).replace("jupyter:", "jovyan:"))
    (root / "home/jupyter").rename(root / HOME[1:])
    for path in [root / HOME[1:], *(root / HOME[1:]).rglob("*")]:
        os.lchown(path, 1000, 100)


def _named(into: Path, images: dict[str, Path]) -> None:
    entries = []
    for name, layout in images.items():
        shutil.copytree(layout / "blobs", into / "blobs", dirs_exist_ok=True, copy_function=os.link)
        (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
        entries.append({**entry, "annotations": {**entry["annotations"], NAMED: name}})
    (into / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (into / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
