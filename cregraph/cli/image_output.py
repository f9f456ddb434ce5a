"""The destinations of a built image: `--output` of `cregraph build`, and the transfer of `cregraph push`."""

from __future__ import annotations

from pathlib import Path

from cregraph.build.image_build import Built
from cregraph.cli.push_progress import Transfer
from cregraph.cli.terminal_output import megabytes, talk
from cregraph.errors import CregraphError
from cregraph.image.media.push import Pushed
from cregraph.image.model.reference import parse_reference
from cregraph.session.publication import Destination, publish, push_place
from cregraph.session.session import Session

__all__ = ["check_output", "check_place", "push_built", "send"]

_TYPED = "--output registry:"


def check_output(output: str) -> None:
    """Raise CregraphError unless `output` has one of the forms of `--output`."""
    form, colon, rest = output.partition(":")
    if form not in ("oci", "docker", "registry") or (form == "oci" and not rest) or (colon and not rest):
        raise CregraphError(f"unknown output `{output}` (expected oci:DIR, docker[:NAME:TAG] or registry[:HOST/PATH])")


def check_place(session: Session, output: str) -> None:
    """Raise CregraphError if `output` cannot take the image. Call it before the first download."""
    form, _, rest = output.partition(":")
    if form == "registry":
        push_place(session, rest, typed=_TYPED)[1].ping()
    elif form == "oci":
        from cregraph.image.media.oci_layout import is_fresh

        is_fresh(Path(rest))
    else:
        if rest and not parse_reference(rest, where="--output docker").tag:
            raise CregraphError(f"`--output {output}` has no tag", hint=f"write --output {output}:TAG")
        from cregraph.image.media.docker_engine import reachable

        reachable()


def send(session: Session, built: Built, output: str) -> str:
    """Write the image to `output`. Return where it is, as `--json` shows it."""
    form, _, rest = output.partition(":")
    if form == "oci":
        from cregraph.image.media import oci_layout as layout

        layout.write(Path(rest), built.image, reference=session.image_name, store=session.store, base=session.base.open_layer)
        return output
    if form == "docker":
        from cregraph.image.media.docker_load import load

        name = rest or session.image_name
        load(built.image, reference=name, store=session.store, base=session.base.open_layer)
        return f"docker:{name}"
    return str(push_built(session, built, push_place(session, rest, typed=_TYPED)).reference)


def push_built(session: Session, built: Built, to: Destination) -> Pushed:
    """Push the image and report what moved."""
    place = to[0]
    with Transfer(f"pushing {place}", whole=sum(layer.size for layer in built.image.layers)) as transfer:
        pushed = publish(session, built, to, progress=transfer)
    if pushed.unchanged:
        talk(f"{place} exists already with this digest: nothing to push")
        return pushed
    streamed = f" ({megabytes(pushed.streamed)} of it streamed from the base)" if pushed.streamed else ""
    mounted = f", {megabytes(pushed.mounted)} mounted from other repositories" if pushed.mounted else ""
    before = f", {megabytes(pushed.skipped)} existed already" if pushed.skipped else ""
    talk(f"{place}: {megabytes(pushed.pushed)} pushed{streamed}{mounted}{before}")
    return pushed
