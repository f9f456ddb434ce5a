"""Names of this run in Docker engines and registries, which other runs and people may use at the same time.

Every image, repository and tag that a test makes carries RUN; what is removed at the end carries it too.
"""

from __future__ import annotations

import contextlib
import os
import secrets

#: The word of this run, the same in all its workers; it begins with letters and is allowed in every name.
RUN = os.environ.setdefault("CREGRAPH_TEST_RUN", f"cregraph-test-{secrets.token_hex(6)}")


def image_name(what: str) -> str:
    """A name and tag for an image in an engine, new with each call."""
    return f"{RUN}/{what}:{secrets.token_hex(4)}"


def repository(what: str) -> str:
    """A repository of a registry, new with each call."""
    return f"{RUN}/{what}-{secrets.token_hex(4)}"


def remove_ours() -> None:
    """Remove from the engines of the tests what carries RUN: containers of such images, then the images by their names."""
    from docker import APIClient
    from docker.errors import DockerException

    for host in (os.environ.get("DOCKER_HOST"), os.environ.get("CREGRAPH_TEST_CLASSIC_HOST")):
        if not host:
            continue
        with contextlib.suppress(DockerException), contextlib.closing(APIClient(host, version="auto")) as api:
            for one in api.containers(all=True):
                if RUN in str(one["Image"]):
                    with contextlib.suppress(DockerException):
                        api.remove_container(one["Id"], v=True, force=True)
            for name in [name for one in api.images() for name in one["RepoTags"] or () if RUN in name]:
                with contextlib.suppress(DockerException):
                    api.remove_image(name)
