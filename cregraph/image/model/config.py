"""An image's config and manifest: those of the base, with our layers, variables and labels added, and nothing else.

Both are canonical JSON, so equal input gives equal digests. Source: OCI image-spec 1.1, config.md and manifest.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cregraph.digest import Json, canonical
from cregraph.errors import CregraphError
from cregraph.image.model.layer import LayerRecord
from cregraph.image.model.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, digest_of
from cregraph.lock.base_facts import BaseFacts

__all__ = ["CREATED", "Image", "as_json", "compose"]

#: The time in configs and histories: that of all entries, see `tar.MTIME`.
CREATED = "1980-01-01T00:00:00Z"

_LAYER = "application/vnd.oci.image.layer.v1.tar"
#: What layers of a base may be, and what they are called in our manifest. The bytes are the same.
_LAYERS = {
    _LAYER: _LAYER,
    f"{_LAYER}+gzip": f"{_LAYER}+gzip",
    f"{_LAYER}+zstd": f"{_LAYER}+zstd",
    "application/vnd.docker.image.rootfs.diff.tar": _LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{_LAYER}+zstd",
}
#: Properties of a config that are kept from the base. Docker's own additions (`container`, `docker_version`) are dropped.
_KEPT = ("architecture", "os", "os.version", "os.features", "variant", "author", "config")


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image without its layers' bytes. `layers` are the base's, then ours, lowest first; `own` counts ours."""

    manifest: bytes
    config: bytes
    layers: tuple[Descriptor, ...]
    own: int

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=OCI_MANIFEST, digest=self.digest, size=len(self.manifest))

    @property
    def config_descriptor(self) -> Descriptor:
        return Descriptor(media_type=OCI_CONFIG, digest=digest_of(self.config), size=len(self.config))


def compose(
    facts: BaseFacts,
    layers: Sequence[tuple[str, LayerRecord]],
    *,
    env: Mapping[str, str],
    labels: Mapping[str, str],
) -> Image:
    """Return the image of a base and our `layers` (name and record, lowest first).

    Variables of the base keep their order; one that `env` names gets its value there, the others follow sorted by name.
    Labels are added to the base's. Entrypoint, command, user, folder and the rest of the base's config stay. The history gets
    one entry for each layer, with its name.

    Raises CregraphError for foreign layers of the base, a config that does not fit its layers, or an invalid variable.
    """
    below = tuple(_base_layer(layer.media_type, layer.digest, layer.size) for layer in facts.layers)
    above = tuple(Descriptor(media_type=r.media_type, digest=r.digest, size=r.size) for _, r in layers)
    config = canonical(_config(facts, layers, env, labels))
    manifest: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": as_json(Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config))),
        "layers": [as_json(d) for d in (*below, *above)],
    }
    return Image(manifest=canonical(manifest), config=config, layers=below + above, own=len(above))


def _config(
    facts: BaseFacts, layers: Sequence[tuple[str, LayerRecord]], env: Mapping[str, str], labels: Mapping[str, str]
) -> dict[str, Json]:
    base = facts.config
    config: dict[str, Json] = {name: base[name] for name in _KEPT if base.get(name) is not None}
    if not config.get("architecture") or not config.get("os"):
        raise CregraphError(f"the base {facts.digest} has a config without `architecture` or `os`", hint="choose another base")
    config["created"] = CREATED
    inner = dict(config.get("config") or {})
    if env:
        inner["Env"] = _env(inner.get("Env") or [], env)
    if labels:
        inner["Labels"] = {**(inner.get("Labels") or {}), **labels}
    config["config"] = inner
    config["rootfs"] = {
        "type": "layers",
        "diff_ids": [layer.diff_id for layer in facts.layers] + [record.diff_id for _, record in layers],
    }
    config["history"] = _history(base.get("history") or [], len(facts.layers), facts.digest) + [
        {"created": CREATED, "created_by": f"cregraph {name}"} for name, _ in layers
    ]
    return config


def as_json(blob: Descriptor) -> dict[str, Json]:
    """Return a descriptor as JSON. Source: OCI image-spec 1.1, descriptor.md."""
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def _base_layer(media_type: str, digest: str, size: int) -> Descriptor:
    known = _LAYERS.get(media_type)
    if known is None:
        raise CregraphError(
            f"layer {digest} of the base has the type `{media_type}`, which cregraph cannot copy",
            hint="choose a base without foreign layers, which must not be copied to another registry",
        )
    return Descriptor(media_type=known, digest=digest, size=size)


def _env(base: Sequence[str], ours: Mapping[str, str]) -> list[str]:
    for name, value in ours.items():
        if not name or "=" in name or "\0" in name + value:
            raise CregraphError(
                f"`{name}` is not a valid environment variable: its name or value contains `=`, NUL or a line break"
            )
    listed = [item.partition("=")[0] for item in base]
    kept = [f"{name}={ours[name]}" if name in ours else item for name, item in zip(listed, base, strict=True)]
    return kept + [f"{name}={ours[name]}" for name in sorted(ours) if name not in listed]


def _history(base: Sequence[Json], layers: int, digest: str) -> list[Json]:
    """Return the base's history with one entry for each layer.

    Docker refuses an image whose history has more entries, and shows wrong sizes for one that has fewer.
    """
    filled = sum(1 for entry in base if not entry.get("empty_layer"))
    if filled > layers:
        raise CregraphError(f"the base {digest} has {layers} layers and a history of {filled}", hint="choose another base")
    return [*base, *({"created": CREATED, "created_by": "base"} for _ in range(layers - filled))]
