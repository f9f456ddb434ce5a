"""A strict reader of OCI image layouts, for what cregraph writes: every byte is verified."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cregraph.image.model.manifest import Descriptor, Manifest, choose, read_manifest


@dataclass(frozen=True)
class Layout:
    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Layout:
        assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
        return cls(folder)

    def manifest(self, tag: str = "") -> Manifest:
        """The image tagged `tag`, or the only one."""
        index = json.loads((self.folder / "index.json").read_bytes())
        names = [str(entry["annotations"]["org.opencontainers.image.ref.name"]) for entry in index["manifests"]]
        fitting = [
            e for e, name in zip(index["manifests"], names, strict=True) if not tag or tag in (name, name.rpartition(":")[2])
        ]
        found = choose({"manifests": fitting}, what="index.json")
        return read_manifest(self.blob(found).read_bytes(), what=found.digest)

    def config(self, manifest: Manifest) -> dict[str, Any]:
        return dict(json.loads(self.blob(manifest.config).read_bytes()))

    def blob(self, blob: Descriptor) -> Path:
        path = self.folder / "blobs" / "sha256" / blob.hex
        data = path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (blob.size, blob.hex)
        return path
