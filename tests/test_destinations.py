"""A destination that cannot take the image is refused before anything is downloaded."""

from __future__ import annotations

import pytest

from tests.environment.serving import Server
from tests.faults import Demo


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "demo.yaml", "-o", "oci:bases"], "error: `bases` exists and is not an OCI layout"),
        (["build", "demo.yaml", "-o", "oci:demo.yaml"], "error: `demo.yaml` exists and is not an OCI layout"),
        (["build", "demo.yaml", "-o", "docker:Bad:NAME"], "error: --output docker: the repository `library/Bad` has upper-case"),
        (["build", "demo.yaml", "-o", "docker:name"], "error: `--output docker:name` has no tag"),
        (["build", "demo.yaml", "-o", "registry:127.0.0.1:1/db"], "error: 127.0.0.1:1: the registry: "),
        (["push", "demo.yaml", "127.0.0.1:1/db"], "error: 127.0.0.1:1: the registry: "),
        (["push", "demo.yaml", "127.0.0.1:1/d b"], "error: the place to push to: "),
        (["export", "dockerfile", "demo.yaml", "-o", "bases"], "error: `bases` is there and was not written by"),
    ],
)
def test_a_bad_destination_is_refused_before_the_first_download(cold: Demo, server: Server, words: list[str], said: str) -> None:
    server.clear()
    done = cold.run(*words)
    assert (done.code, done.out) == (2, ""), done.err
    assert said in done.err
    assert server.paths() == []
    assert not list((cold.folder / "cache" / "sha256").rglob("*.*"))
