"""Config and manifest: the base's, with ours added, and nothing else."""

from __future__ import annotations

import json
import os
import time

import pytest

from cregraph.digest import canonical
from cregraph.errors import CregraphError
from cregraph.image.model.config import compose
from cregraph.image.model.layer import LayerRecord
from cregraph.lock.base_facts import BaseFacts, LayerFact

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def a_digest(digit: str) -> str:
    return "sha256:" + digit * 64


BASE_CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "author": "someone",
    "created": "2026-03-01T01:02:03Z",
    "container": "0123",
    "docker_version": "20.10",
    "container_config": {"Hostname": "builder"},
    "config": {
        "User": "jupyter",
        "Entrypoint": ["/usr/local/bin/start"],
        "Cmd": ["lab"],
        "WorkingDir": "/home/jupyter",
        "Env": ["PATH=/usr/bin:/bin", "B=base", "EMPTY="],
        "Labels": {"org.x": "base", "kept": "1"},
        "ExposedPorts": {"8888/tcp": {}},
    },
    "rootfs": {"type": "layers", "diff_ids": [a_digest("b")]},
    "history": [
        {"created": "2026-03-01T01:02:02Z", "created_by": "ADD rootfs"},
        {"created": "2026-03-01T01:02:03Z", "created_by": "CMD lab", "empty_layer": True},
    ],
}


def a_base(config: object = None, media_type: str = DOCKER_GZIP) -> BaseFacts:
    layer = LayerFact(digest=a_digest("a"), diff_id=a_digest("b"), size=123, media_type=media_type)
    return BaseFacts(
        digest=a_digest("0"),
        config=config or BASE_CONFIG,
        layers=(layer,),
        glibc=None,
        users={},
        python=None,  # type: ignore[arg-type]
    )


LAYERS = [
    ("conda:/p r-base", LayerRecord(key="k1", digest=a_digest("c"), diff_id=a_digest("d"), size=5, media_type=GZIP, segments=())),
    ("file:", LayerRecord(key="k2", digest=a_digest("e"), diff_id=a_digest("f"), size=6, media_type=GZIP, segments=())),
]


def config_of(image: object) -> dict[str, object]:
    return json.loads(image.config)  # type: ignore[attr-defined]


def test_the_config_is_the_bases_with_our_layers_variables_and_labels():
    image = compose(a_base(), LAYERS, env={"R_LIBS_SITE": "/x", "B": "ours", "A": "="}, labels={"org.x": "ours", "new": "2"})

    assert config_of(image) == {
        "architecture": "amd64",
        "os": "linux",
        "author": "someone",
        "created": "1980-01-01T00:00:00Z",
        "config": {
            "User": "jupyter",
            "Entrypoint": ["/usr/local/bin/start"],
            "Cmd": ["lab"],
            "WorkingDir": "/home/jupyter",
            "Env": ["PATH=/usr/bin:/bin", "B=ours", "EMPTY=", "A==", "R_LIBS_SITE=/x"],
            "Labels": {"org.x": "ours", "kept": "1", "new": "2"},
            "ExposedPorts": {"8888/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [a_digest("b"), a_digest("d"), a_digest("f")]},
        "history": [
            {"created": "2026-03-01T01:02:02Z", "created_by": "ADD rootfs"},
            {"created": "2026-03-01T01:02:03Z", "created_by": "CMD lab", "empty_layer": True},
            {"created": "1980-01-01T00:00:00Z", "created_by": "cregraph conda:/p r-base"},
            {"created": "1980-01-01T00:00:00Z", "created_by": "cregraph file:"},
        ],
    }


def test_the_manifest_names_the_bases_layers_by_their_digests_with_oci_types():
    image = compose(a_base(), LAYERS, env={}, labels={})

    assert json.loads(image.manifest) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": image.config_descriptor.digest,
            "size": len(image.config),
        },
        "layers": [
            {"mediaType": GZIP, "digest": a_digest("a"), "size": 123},
            {"mediaType": GZIP, "digest": a_digest("c"), "size": 5},
            {"mediaType": GZIP, "digest": a_digest("e"), "size": 6},
        ],
    }
    assert image.manifest == canonical(json.loads(image.manifest))
    assert image.config == canonical(json.loads(image.config))
    assert image.own == 2


def test_neither_the_clock_nor_the_order_of_mappings_reaches_the_digest(monkeypatch):
    one = compose(a_base(), LAYERS, env={"A": "1", "C": "2"}, labels={"x": "1", "y": "2"})
    monkeypatch.setattr(time, "time", lambda: 1.0)
    monkeypatch.setitem(os.environ, "TZ", "Asia/Tokyo")
    upside = {name: BASE_CONFIG[name] for name in reversed(list(BASE_CONFIG))}

    assert compose(a_base(upside), LAYERS, env={"C": "2", "A": "1"}, labels={"y": "2", "x": "1"}).digest == one.digest


def test_the_base_is_left_as_it_was_given():
    before = json.dumps(BASE_CONFIG)

    compose(a_base(), LAYERS, env={"B": "x"}, labels={"kept": "2"})

    assert json.dumps(BASE_CONFIG) == before


def test_a_base_without_history_gets_an_entry_for_each_of_its_layers():
    """Engines pair the entries with the layers; with fewer they show the wrong ones."""
    config = config_of(compose(a_base({**BASE_CONFIG, "history": None}), LAYERS, env={}, labels={}))

    assert [h["created_by"] for h in config["history"]] == ["base", "cregraph conda:/p r-base", "cregraph file:"]  # type: ignore[index,attr-defined]


def test_a_base_with_nothing_in_its_config_gets_what_is_added_only():
    image = compose(a_base({"architecture": "amd64", "os": "linux"}), LAYERS, env={"A": "1"}, labels={"x": "y"})

    assert config_of(image)["config"] == {"Env": ["A=1"], "Labels": {"x": "y"}}


@pytest.mark.parametrize("extra", ["foreign.diff.tar.gzip", "unknown"])
def test_layers_that_may_not_be_passed_on_are_refused(extra):
    kind = f"application/vnd.docker.image.rootfs.{extra}"

    with pytest.raises(CregraphError) as caught:
        compose(a_base(media_type=kind), LAYERS, env={}, labels={})

    assert str(caught.value) == f"layer {a_digest('a')} of the base has the type `{kind}`, which cregraph cannot copy"


def test_a_base_whose_history_does_not_fit_its_layers_is_refused():
    with pytest.raises(CregraphError, match="has 1 layers and a history of 2"):
        compose(a_base({**BASE_CONFIG, "history": [{}, {}]}), LAYERS, env={}, labels={})


def test_a_base_for_no_platform_is_refused():
    with pytest.raises(CregraphError, match="has a config without `architecture` or `os`"):
        compose(a_base({"config": {}}), LAYERS, env={}, labels={})


@pytest.mark.parametrize(("name", "value"), [("A=B", "x"), ("", "x"), ("A", "x\0y")])
def test_a_variable_that_cannot_be_written_is_refused(name, value):
    with pytest.raises(CregraphError, match="is not a valid environment variable"):
        compose(a_base(), LAYERS, env={name: value}, labels={})
