"""`cregraph export dockerfile --flavor image-builder`."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from cregraph.cli.terminal_output import as_json, counted, megabytes, result, talk
from cregraph.errors import CregraphError
from cregraph.export.builder import SUFFIX, Bases, export
from cregraph.export.folder import Content, write_folder
from cregraph.image.bases.base_image import registry_at
from cregraph.image.model.reference import check_repository, check_tag, parse_reference
from cregraph.lock.pins import Pin
from cregraph.session.session import Session
from cregraph.sources.routes import Routes

#: Inside an account Snowflake's registry answers under another name.
_SNOWFLAKE = re.compile(r"([a-z0-9_-]+)\.registry(\.[a-z0-9_-]+)*\.snowflakecomputing\.com")


def export_image_builder(session: Session, folder: Path, *, budget: int, json: bool) -> None:
    """Write the context into `folder`, unless it is larger than `budget` MB, and print the command to run."""
    lock, facts, plan, here = session.lock, session.facts, session.plan, session.routes
    # Without a file for it the builder is told the public addresses: this machine's mirrors may be nobody else's.
    there = here if session.options.sources is not None else dataclasses.replace(Routes(), registry=here.registry)
    root = lock.build_root
    bases = Bases(
        base=_reference(lock.base, here),
        root=None if root.artifact.sha256 == lock.base.artifact.sha256 else _reference(root, here),
    )
    artifacts = [s.artifact for s in plan.segments.values()] + [a for task in plan.tasks for a in task.artifacts]
    own = {a.sha256: session.sources.fetch(a).read_bytes() for a in artifacts if a is not None and a.kind == "path"}
    image = lock.identity.image.lower()
    check_repository(image, where="cre.image")
    tag = f"{plan.tag}{SUFFIX}"
    check_tag(tag, where="cre.version_label")
    snow = (
        "snow spcs service build-image --compute-pool POOL --image-repository REPOSITORY --eai-name INTEGRATION "
        f"--image-name {image} --image-tag {tag} --build-context-dir"
    )
    said = [
        f"{session.project.profile.name}: {image}:{plan.tag}, key {plan.key}",
        f"{snow} .",
        "Another builder assembles this image, so its digest differs. Never give it the tag of the lock.",
    ]
    made = export(plan, facts, routes=there, bases=bases, own=own, said=said)
    size = _within(made.files, budget)
    write_folder(folder, made.files, fixed=("Dockerfile",), store=session.store)
    talk(f"{counted(len(made.files), 'file')}, {megabytes(size)} of at most {budget} MB, in {folder}")
    talk(f"the build downloads from {', '.join(made.hosts)}")
    if made.needs_zstd and not any(path.endswith("/libzstd.so.1") for path in facts.links):
        talk("warning: the base facts list no libzstd.so.1, which the build needs to read .conda packages")
    command = f"{snow} {shlex.quote(str(folder))}"
    local = f"docker build -t {image}:{tag} {shlex.quote(str(folder))}"
    if json:
        answer = {"image": f"{image}:{tag}", "folder": str(folder), "files": sorted(made.files), "bytes": size}
        as_json({**answer, "hosts": list(made.hosts), "command": command, "local": local})
    else:
        talk(f"on this machine: {local}")
        result(command)


def _within(files: Mapping[str, Content], budget: int) -> int:
    sizes = {name: len(content) for name, content in files.items()}
    size = sum(sizes.values())
    if size > budget * 10**6:
        largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:3]
        told = ", ".join(f"{name} {megabytes(sizes[name])}" for name in largest)
        raise CregraphError(
            f"the build context has {megabytes(size)} (expected at most {budget} MB). Its largest files: {told}",
            hint="give large files a URL in the profile, or raise `--context-budget`",
        )
    return size


def _reference(pin: Pin, routes: Routes) -> str:
    """Return the reference of a pinned image by digest, under the name that its registry has inside an account."""
    source, file = pin.artifact.source, pin.artifact.file
    if source.startswith(("oci:", "docker:")):
        raise CregraphError(
            f"the {pin.name} is `{source}`, which another builder cannot pull",
            hint="push it to a registry that the builder reaches, name it there in the profile, and run `cregraph lock`",
        )
    host = source
    if source.startswith("registry:"):
        name = source.removeprefix("registry:")
        known = routes.registry.get(name)
        if known is None:
            raise CregraphError(
                f"unknown registry `{name}`",
                hint=f"add its host to sources.yaml: `registry: {{{name}: {{host: …}}}}`, or set snowflake.registry_url",
            )
        host = registry_at(known.host).host
    reference = parse_reference(f"{host}/{file}", where=f"the lock's {pin.name}")
    if _SNOWFLAKE.fullmatch(reference.host):
        reference = dataclasses.replace(reference, host=reference.host.replace(".registry.", ".registry-local.", 1))
    return str(reference.at(digest=f"sha256:{pin.artifact.sha256}"))
