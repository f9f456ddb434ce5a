"""A destination that cannot take the image is refused before anything is downloaded."""

from __future__ import annotations

import pytest

from tests.environment.serving import Server
from tests.faults import Demo


def test_a_docker_engine_that_does_not_answer_is_reported_before_the_first_download(cold: Demo, server: Server) -> None:
    server.clear()
    cold.env["DOCKER_HOST"] = "tcp://127.0.0.1:1"
    done = cold.run("build", "demo.yaml", "-o", "docker")
    assert (done.code, done.out) == (2, ""), done.err
    assert "error: the Docker engine does not answer" in done.err
    assert server.paths() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "demo.yaml", "-o", "oci:bases"], "error: `bases` exists and is not an OCI layout"),
        (["build", "demo.yaml", "-o", "oci:demo.yaml"], "error: `demo.yaml` exists and is not an OCI layout"),
        (["build", "demo.yaml", "-o", "docker:Bad:NAME"], "error: --output docker: the repository `library/Bad` has upper-case"),
        (["build", "demo.yaml", "-o", "docker:name"], "error: `--output docker:name` has no tag"),
        (["build", "demo.yaml", "-o", "registry:127.0.0.1:1/db"], "error: 127.0.0.1:1: the registry: "),
        (
            ["build", "demo.yaml", "--cache-write", "127.0.0.1:1/db"],
            "error: `--cache-write 127.0.0.1:1/db`: 127.0.0.1:1: the registry: ",
        ),
        (["push", "demo.yaml", "127.0.0.1:1/db"], "error: 127.0.0.1:1: the registry: "),
        (["push", "demo.yaml", "127.0.0.1:1/d b"], "error: the destination of the push: "),
        (["export", "dockerfile", "demo.yaml", "-o", "bases"], "error: `bases` exists and `cregraph export` did not write it"),
        (["build", "demo.yaml", "-o", "oci:/proc/x"], "error: `/proc/x` cannot be written: "),
        (["build", "demo.yaml", "-o", "oci:demo.yaml/x/y"], "error: `demo.yaml/x/y` cannot be written: "),
        (["export", "dockerfile", "demo.yaml", "-o", "/proc/x"], "error: `/proc/x` cannot be written: "),
        (["export", "bake", "demo.yaml", "-o", "demo.yaml/x"], "error: `demo.yaml/x` cannot be written: "),
        (["vendor", "/proc/x", "demo.yaml"], "error: `/proc/x` cannot be written: "),
        (["vendor", "demo.yaml/x", "demo.yaml"], "error: `demo.yaml/x` cannot be written: "),
        (["vendor", "bases", "demo.yaml"], "which `cregraph vendor` did not write"),
        (["vendor", "demo.yaml", "demo.yaml"], "error: `demo.yaml` cannot be written: "),
    ],
)
def test_a_bad_destination_is_refused_before_the_first_download(cold: Demo, server: Server, words: list[str], said: str) -> None:
    server.clear()
    done = cold.run(*words)
    assert (done.code, done.out) == (2, ""), done.err
    assert said in done.err
    assert server.paths() == []
    assert not list((cold.folder / "cache" / "sha256").rglob("*.*"))
