"""A placeholder for Snowflake's base image: an OCI layout with the relevant paths, users, links and modes of base.yaml.

Its programs do not run. As in a real base, /bin and /lib are links. The home belongs to `jupyter` and is closed to others.
The path of Python contains a link. Some distributions are installed and must not change.
"""

from __future__ import annotations

from pathlib import Path

from cregraph.demo.archives import folder, gz, link, tar, text
from cregraph.digest import Json, canonical, sha256

__all__ = ["TAG", "write_base"]

#: The tag of the only image in the layout.
TAG = "demo"

_SAID = "a stand-in made by `cregraph demo`: the files that cregraph reads of a base, and nothing that can be started"
_CREATED = "2024-01-01T00:00:00Z"


def write_base(layout: Path) -> str:
    """Write the base as the layout `layout`, a new folder. Return its manifest digest."""
    import yaml

    base = yaml.safe_load(Path(__file__).with_name("base.yaml").read_text(encoding="utf-8").replace("$SAID", _SAID))
    rows: list[Json] = []
    diff_ids: list[Json] = []
    for layer in base["layers"]:
        items = [folder(path, **about) for path, about in layer["folders"].items()]
        items += [link(path, to) for path, to in layer["links"].items()]
        items += [text(path, **about) for path, about in layer["texts"].items()]
        plain = tar(items)
        diff_ids.append("sha256:" + sha256(plain))
        rows.append(_blob(layout, gz(plain), "application/vnd.oci.image.layer.v1.tar+gzip"))
    config: Json = {
        "created": _CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": base["config"],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": _CREATED, "created_by": f"cregraph demo: {layer['name']}"} for layer in base["layers"]],
    }
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(layout, canonical(config), "application/vnd.oci.image.config.v1+json"),
        "layers": rows,
    }
    entry = _blob(layout, canonical(manifest), "application/vnd.oci.image.manifest.v1+json")
    digest = str(entry["digest"])
    entry |= {
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": TAG},
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    (layout / "index.json").write_bytes(canonical(index))
    (layout / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    return digest


def _blob(layout: Path, data: bytes, media_type: str) -> dict[str, Json]:
    digest = sha256(data)
    path = layout / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
