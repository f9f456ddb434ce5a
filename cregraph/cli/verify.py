"""`cregraph verify`: compare an image with a lock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.options import AsJson, Profile, Sources
from cregraph.cli.terminal_output import as_json, counted, result, talk, working
from cregraph.errors import Refused
from cregraph.image.bases.base_image import ask, of_engine, registry_at
from cregraph.image.bases.image_files import of_image
from cregraph.image.media.docker_engine import inspect
from cregraph.image.model.reference import DockerName, LayoutName, parse, parse_reference
from cregraph.session.session import BuildOptions, Session
from cregraph.store import Store
from cregraph.text import printable
from cregraph.verify.image_check import Finding, Verdict, is_exactly, is_record, known_layers
from cregraph.verify.image_check import verify as compare

_SHOWN = 40


def verify(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="NAME or docker:NAME, oci:DIR, or registry:HOST/PATH:TAG.")],
    profile: Profile = None,
    recompiled: Annotated[
        bool, typer.Option("--recompiled", help="Accept other bytes in compiled files. Use it for images of other builders.")
    ] = False,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Check that an image holds what the lock says."""
    session = Session.of(profile, BuildOptions(sources=sources), take_stale=True)
    _ = session.plan  # a broken lock is reported before the image is looked for
    with working(f"reading {image}"):
        verdict, digest = _verdict(image, session, recompiled=recompiled)
    findings = verdict.findings
    if json:
        listed = [{"what": f.what, "subject": f.subject, "name": f.name, "why": f.why or None} for f in findings]
        counts = {"packages": verdict.packages, "files": verdict.files, "unread": verdict.unread, "recompiled": verdict.other}
        answer = {"image": image, "digest": digest, "lock": session.project.shown_lock, "ok": not findings, "by": verdict.by}
        as_json({**answer, **counts, "findings": listed})
        if findings:
            raise SystemExit(1)
        return
    for finding in findings[:_SHOWN]:
        result(_line(finding))
    if findings:
        more = f" ({len(findings) - _SHOWN} more: --json lists all)" if len(findings) > _SHOWN else ""
        raise Refused(
            f"{image} does not hold what `{session.project.shown_lock}` says: {counted(len(findings), 'difference')}{more}"
        )
    result(f"{image} holds what {session.project.shown_lock} says: {_how(verdict)}")
    if verdict.unread:
        talk(
            f"the store does not have the files of {counted(verdict.unread, 'package')}, so cregraph compared only the image's "
            "records. Run `cregraph build` first to compare every file"
        )


def _verdict(image: str, session: Session, *, recompiled: bool) -> tuple[Verdict, str | None]:
    plan, facts, store = session.plan, session.facts, session.store
    known = known_layers(facts)
    if image.startswith("registry:"):
        name = parse_reference(image.removeprefix("registry:"), where="IMAGE")
        table = session.project.routes(session.options.sources).registry.values()
        plain = any(r.host == name.host and r.plain_http for r in table)
        found = ask(name, project=Path(), store=store, registry=registry_at(f"http://{name.host}" if plain else name.host))
    elif image.startswith("oci:"):
        layout = parse(image, where="IMAGE")
        assert isinstance(layout, LayoutName)
        found = ask(layout, project=Path(), store=store)
    else:
        engine = parse(image if image.startswith("docker:") else f"docker:{image}", where="IMAGE")
        assert isinstance(engine, DockerName)
        told = inspect(engine.name).get("Id")
        if is_exactly(plan, store, str(told)):
            return Verdict(by="digest"), str(told)
        with store.scratch_folder() as folder:
            found = of_engine(engine, Store(folder), known)
            contents = of_image(found, known=known, wanted=is_record)
        return compare(plan, facts, contents, store, recompiled=recompiled), found.manifest.digest
    digest = found.manifest.digest
    if is_exactly(plan, store, digest):
        for layer in found.manifest.layers if image.startswith("oci:") else ():
            for _ in found.origin.blob(layer):
                pass  # a file on disk can be damaged: this compares each with its digest
        return Verdict(by="digest"), digest
    contents = of_image(found, known=known, wanted=is_record)
    return compare(plan, facts, contents, store, recompiled=recompiled), digest


def _how(verdict: Verdict) -> str:
    if verdict.by == "digest":
        return "it has the same digest as the build in this store"
    other = f", {counted(verdict.other, 'compiled file')} with other bytes" if verdict.other else ""
    return f"{counted(verdict.packages, 'package')}, {counted(verdict.files, 'file')} equal to the byte{other}"


def _line(finding: Finding) -> str:
    words = {"missing": "missing", "extra": "extra", "version": "other version", "changed": "changed"}[finding.what]
    text = f"{words:<14}{finding.subject} {finding.name}" + (f": {finding.why}" if finding.why else "")
    return printable(text)  # an image's names may hold anything
