"""The registry client: against a registry that misbehaves, and against a real one."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cregraph.errors import CregraphError, Refused
from cregraph.http import Retries
from cregraph.image.bases.base_image import ask, find
from cregraph.image.media.push import own_blobs, push, target_of
from cregraph.image.media.registry import Registry
from cregraph.image.media.registry_credentials import ANONYMOUS, Credentials, docker_credentials
from cregraph.image.media.registry_http import Exchange, NotInRegistry, Unauthorized
from cregraph.image.model.config import Image
from cregraph.image.model.manifest import Descriptor, read_manifest
from cregraph.image.model.reference import DOCKER_HUB, LayoutName, parse_reference
from cregraph.lock.pins import Artifact
from cregraph.store import Store
from tests.engine_names import image_name, repository
from tests.made_images import Made, digest, entry, index, layout, tar
from tests.small_registry import PASSWORD, TOKEN, USER, SmallRegistry

BIG = secrets.token_bytes(7 << 20)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))


@pytest.fixture
def small() -> Iterator[SmallRegistry]:
    with SmallRegistry() as registry:
        yield registry


def client(small: SmallRegistry, who: Credentials = ANONYMOUS) -> Registry:
    return Registry(Exchange(small.host, credentials=lambda _host: who, retries=Retries(sleep=lambda _s: None)))


def described(data: bytes) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=digest(data), size=len(data))


def image(*extra: bytes, architecture: str = "amd64") -> Made:
    return Made(tar(entry("a", b"x" * 5000)), *extra, architecture=architecture)


# downloads


def test_a_registry_that_answers_500_twice_is_waited_for(small: SmallRegistry) -> None:
    made = image()
    small.hold("a/b", "1", made)
    small.fail["GET"] = 2

    assert client(small).image("a/b", "1").raw == made.manifest


def test_a_registry_that_only_fails_is_named_with_what_was_asked(small: SmallRegistry) -> None:
    small.fail["GET"] = 100

    with pytest.raises(CregraphError) as caught:
        client(small).image("a/b", "1")

    assert str(caught.value) == f"{small.host}: a/b:1: HTTP 500"


def test_a_truncated_blob_goes_on_where_it_broke(small: SmallRegistry) -> None:
    small.blobs["a/b", digest(BIG)] = BIG
    small.cut = 2

    assert b"".join(client(small).blob("a/b", described(BIG))) == BIG
    assert [h["Range"] for h in small.headers if "Range" in h] == [f"bytes={len(BIG) // 2}-", f"bytes={len(BIG) * 3 // 4}-"]


def test_a_server_without_ranges_is_read_again_and_the_known_part_dropped(small: SmallRegistry) -> None:
    small.blobs["a/b", digest(BIG)] = BIG
    small.cut, small.ranges = 1, False

    assert b"".join(client(small).blob("a/b", described(BIG))) == BIG


def test_a_flipped_byte_in_a_blob_is_found(small: SmallRegistry) -> None:
    small.blobs["a/b", digest(BIG)] = BIG[:-1] + bytes([BIG[-1] ^ 1])

    with pytest.raises(CregraphError, match=r"a blob of a/b has sha256:[0-9a-f]{64}, but its manifest says sha256:"):
        list(client(small).blob("a/b", described(BIG)))


def test_a_blob_longer_than_stated_is_cut_off(small: SmallRegistry) -> None:
    small.blobs["a/b", digest(b"short")] = b"short" + BIG

    with pytest.raises(CregraphError, match="has more than the 5 bytes"):
        list(client(small).blob("a/b", described(b"short")))


def test_a_manifest_of_another_digest_is_refused(small: SmallRegistry) -> None:
    asked, other = image(), image(tar(entry("b")))
    small.hold("a/b", "1", asked)
    small.manifests["a/b", asked.digest] = other.manifest

    with pytest.raises(CregraphError) as caught:
        client(small).manifest("a/b", asked.digest)

    assert f"has {other.digest}, but {asked.digest} was asked for" in str(caught.value)


def test_a_manifest_larger_than_the_limit_is_not_read(small: SmallRegistry) -> None:
    small.manifests["a/b", "1"] = b" " * (5 << 20)

    with pytest.raises(CregraphError, match="is larger than the 4 MiB"):
        client(small).manifest("a/b", "1")


def test_an_index_leads_to_linux_amd64(small: SmallRegistry) -> None:
    arm, amd = image(architecture="arm64"), image()
    small.hold("a/b", "1", arm, amd, index=index(arm, amd))

    assert client(small).image("a/b", "1").digest == amd.digest


def test_an_index_without_amd64_is_refused_with_the_platforms_there_are(small: SmallRegistry) -> None:
    arm, other = image(architecture="arm64"), image(tar(entry("b")), architecture="s390x")
    small.hold("a/b", "1", arm, other, index=index(arm, other))

    with pytest.raises(CregraphError) as caught:
        client(small).image("a/b", "1")

    assert str(caught.value) == f"{small.host}/a/b:1: has no image for linux/amd64; existing platforms: linux/arm64, linux/s390x"


def test_what_is_not_there_is_told_from_what_fails(small: SmallRegistry) -> None:
    registry = client(small)

    assert registry.digest_at("a/b", "1") is None
    with pytest.raises(NotInRegistry) as caught:
        registry.image("a/b", "1")
    assert str(caught.value) == f"{small.host}: a/b:1: does not exist (HTTP 404): MANIFEST_UNKNOWN manifest unknown"


def test_a_host_that_does_not_answer_is_named() -> None:
    registry = Registry(Exchange("127.0.0.1:9", retries=Retries(sleep=lambda _s: None)))

    with pytest.raises(CregraphError) as caught:
        registry.ping()

    assert str(caught.value) == "127.0.0.1:9: the registry: no connection"


# logins


@pytest.mark.parametrize("auth", ["bearer", "basic"])
def test_a_login_is_used_and_never_shown(auth: str) -> None:
    with SmallRegistry(auth) as small:
        made = image()
        small.hold("a/b", "1", made)
        who = Credentials(user=USER, password=PASSWORD)
        registry = client(small, who)

        assert registry.image("a/b", "1").digest == made.digest
        assert b"".join(registry.blob("a/b", described(made.blobs[made.layers[0]["digest"]])))  # type: ignore[index]
        assert PASSWORD not in repr(who) + repr(registry.exchange.__dict__["_known"])


def test_a_token_is_asked_for_once_and_for_the_scope_that_is_used() -> None:
    with SmallRegistry("bearer") as small:
        small.hold("a/b", "1", image())
        registry = client(small, Credentials(user=USER, password=PASSWORD))
        registry.image("a/b", "1")
        registry.image("a/b", "1")

        tokens = [line for line in small.asked if "/token" in line]
        assert tokens == ["GET /token?service=small&scope=repository%3Aa%2Fb%3Apull"]


@pytest.mark.parametrize("auth", ["bearer", "basic"])
@pytest.mark.parametrize("who", [ANONYMOUS, Credentials(user=USER, password="wrong-passw0rd")])
def test_a_missing_or_wrong_login_says_how_to_log_in(auth: str, who: Credentials) -> None:
    with SmallRegistry(auth) as small, pytest.raises(Unauthorized) as caught:
        client(small, who).image("a/b", "1")

    assert small.host in str(caught.value) and "a/b:1" in str(caught.value)
    assert caught.value.hint == f"run `docker login {small.host}`"
    assert "wrong-passw0rd" not in str(caught.value)


def test_a_redirect_to_a_storage_carries_no_login_and_its_questions_are_not_answered(small: SmallRegistry) -> None:
    with SmallRegistry("basic") as registry:
        small.blobs["a/b", digest(b"data")] = registry.blobs["a/b", digest(b"data")] = b"data"
        registry.storage = small.host
        asking = client(registry, Credentials(user=USER, password=PASSWORD))

        assert b"".join(asking.blob("a/b", described(b"data"))) == b"data"
        assert small.headers and not any("Authorization" in sent for sent in small.headers)
        small.auth = "bearer"
        with pytest.raises(Unauthorized):
            list(asking.blob("a/b", described(b"data")))
        assert not any("/token" in line or "Authorization" in sent for line, sent in zip(small.asked, small.headers, strict=True))


def write_config(folder: Path, value: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(value))
    return folder


def test_dockers_own_logins_are_found_in_each_of_its_forms(tmp_path: Path) -> None:
    auth = base64.b64encode(b"u:p:q").decode()
    folder = write_config(
        tmp_path,
        {
            "auths": {
                "reg.example": {"auth": auth},
                "https://old.example/v1/": {"auth": auth},
                "id.example": {"identitytoken": "t"},
            }
        },
    )

    assert docker_credentials("reg.example", folder=folder) == Credentials(user="u", password="p:q")
    assert docker_credentials("old.example", folder=folder) == Credentials(user="u", password="p:q")
    assert docker_credentials("id.example", folder=folder) == Credentials(identity="t")
    assert docker_credentials("none.example", folder=folder) is ANONYMOUS
    assert docker_credentials("reg.example", folder=tmp_path / "none") is ANONYMOUS


def test_docker_hub_is_found_under_the_address_that_docker_writes(tmp_path: Path) -> None:
    auth = base64.b64encode(b"u:p").decode()
    folder = write_config(tmp_path, {"auths": {f"https://index.{DOCKER_HUB}/v1/": {"auth": auth}}})

    assert docker_credentials(DOCKER_HUB, folder=folder) == Credentials(user="u", password="p")


def test_credential_helpers_are_spoken_to_as_docker_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread host\ncase $1:$host in\nget:a.example) echo \'{"Username": "u", "Secret": "p"}\';;\n'
        'get:t.example) echo \'{"Username": "<token>", "Secret": "p"}\';;\n'
        "get:bad.example) echo 'keychain of s3cret locked'; exit 1;;\n"
        "*) echo credentials not found in native keychain; exit 1;;\nesac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    folder = write_config(
        tmp_path / "d", {"credsStore": "test", "credHelpers": {"gone.example": "none-such", "x.example": "a/../b"}}
    )

    assert docker_credentials("a.example", folder=folder) == Credentials(user="u", password="p")
    assert docker_credentials("t.example", folder=folder) == Credentials(identity="p")
    assert docker_credentials("n.example", folder=folder) is ANONYMOUS
    with pytest.raises(CregraphError) as caught:
        docker_credentials("bad.example", folder=folder)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(CregraphError, match="`docker-credential-none-such`, which is not on PATH"):
        docker_credentials("gone.example", folder=folder)
    with pytest.raises(CregraphError, match="not the name of a program"):
        docker_credentials("x.example", folder=folder)


def test_a_damaged_docker_config_is_named_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auths": {"x": {"auth": "c2VjcmV0')

    with pytest.raises(CregraphError) as caught:
        docker_credentials("x", folder=tmp_path)

    assert "config.json" in str(caught.value) and "c2VjcmV0" not in str(caught.value)


# uploads


@pytest.mark.parametrize("data", [b"", b"small", BIG], ids=["empty", "small", "big"])
def test_a_blob_goes_up_whole_and_is_there(small: SmallRegistry, data: bytes) -> None:
    registry = client(small)
    registry.upload("a/b", described(data), lambda start: iter((data[start:],)))

    assert small.blobs["a/b", digest(data)] == data
    assert registry.has_blob("a/b", digest(data)) and not registry.has_blob("a/c", digest(data))


@pytest.mark.parametrize("data", [b"small", BIG], ids=["small", "big"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_an_upload_outlives_two_failures_of_each_kind(small: SmallRegistry, data: bytes, method: str) -> None:
    small.fail[method] = 2
    client(small).upload("a/b", described(data), lambda start: iter((data[start:],)))

    assert small.blobs["a/b", digest(data)] == data


def test_a_broken_upload_goes_on_from_what_the_registry_has(small: SmallRegistry) -> None:
    starts: list[int] = []

    def read(start: int) -> Iterator[bytes]:
        starts.append(start)
        yield from (BIG[at : at + (1 << 20)] for at in range(start, len(BIG), 1 << 20))

    small.break_uploads = 1
    client(small).upload("a/b", described(BIG), read)

    assert small.blobs["a/b", digest(BIG)] == BIG
    assert starts == [0, 3 << 20]


def test_an_upload_that_breaks_often_ends_well_while_each_try_brings_more(small: SmallRegistry) -> None:
    data = BIG * 4
    small.break_uploads = 9  # of 3 MiB each, and more than there are pauses
    client(small).upload("a/b", described(data), lambda start: iter((data[start:],)))

    assert small.blobs["a/b", digest(data)] == data


def test_a_digest_that_a_header_states_and_is_none_is_not_believed(small: SmallRegistry) -> None:
    data = b'{"schemaVersion":2}'
    small.manifests["a/b", "1"] = data
    small.stated = "sha256:../../x"

    with pytest.raises(CregraphError, match="was stated"):
        client(small).digest_at("a/b", "1")


def test_a_registry_that_refuses_long_requests_gets_pieces(small: SmallRegistry) -> None:
    data = BIG * 3
    small.longest_patch = 16 << 20
    client(small).upload("a/b", described(data), lambda start: iter((data[start:],)))

    assert small.blobs["a/b", digest(data)] == data


def test_bytes_that_changed_on_disk_are_not_sent(small: SmallRegistry) -> None:
    with pytest.raises(CregraphError, match="cregraph did not send them"):
        client(small).upload("a/b", described(b"right"), lambda start: iter((b"wrong",)))
    assert small.asked == []


# push


def pushed_to(small: SmallRegistry, tmp_path: Path, *, base_in: str = "oci") -> tuple[Made, object]:
    base = Made(tar(entry("base", BIG)))
    built = Made(tar(entry("base", BIG)), tar(entry("ours", b"x")))
    store = Store(tmp_path / "store")
    if base_in == "oci":
        layout(tmp_path / "base", base)
        origin = ask(LayoutName(folder="base"), project=tmp_path, store=store)
    else:
        small.hold(base_in, "1", base)
        origin = ask(parse_reference(f"{small.host}/{base_in}:1"), project=tmp_path, store=store)
    ours = str(built.layers[1]["digest"])
    (tmp_path / "ours").write_bytes(built.blobs[ours])
    own: dict[str, Path | bytes] = {
        ours: tmp_path / "ours",
        str(built.config["digest"]): built.blobs[str(built.config["digest"])],
    }
    to = target_of(f"{small.host}/MyDB/Schema/x:v1")
    return built, push(read_manifest(built.manifest, what="built"), own, origin, to, registry=client(small))


def sizes(made: Made) -> tuple[int, int]:
    base, ours = (int(str(layer["size"])) for layer in made.layers)
    return base, ours + int(str(made.config["size"]))


def test_base_layers_are_mounted_from_their_repository_in_the_same_registry(small: SmallRegistry, tmp_path: Path) -> None:
    built, report = pushed_to(small, tmp_path, base_in="snow/base")
    base, ours = sizes(built)

    assert (report.mounted, report.pushed, report.skipped) == (base, ours, 0)  # type: ignore[attr-defined]
    assert small.manifests["mydb/schema/x", "v1"] == built.manifest
    assert str(report.reference) == f"{small.host}/mydb/schema/x:v1@{built.digest}"  # type: ignore[attr-defined]


def test_base_layers_from_elsewhere_are_streamed(small: SmallRegistry, tmp_path: Path) -> None:
    built, report = pushed_to(small, tmp_path)

    assert (report.mounted, report.pushed) == (0, sum(sizes(built)))  # type: ignore[attr-defined]
    assert all(("mydb/schema/x", layer["digest"]) in small.blobs for layer in built.layers)


def test_a_second_push_moves_nothing(small: SmallRegistry, tmp_path: Path) -> None:
    pushed_to(small, tmp_path / "a")
    small.asked.clear()
    _, report = pushed_to(small, tmp_path / "b")

    assert report.unchanged and report.pushed == report.mounted == 0  # type: ignore[attr-defined]
    assert [line.partition(" ")[0] for line in small.asked] == ["HEAD"]


def test_a_push_that_broke_before_its_manifest_sends_only_what_is_missing(small: SmallRegistry, tmp_path: Path) -> None:
    built, _ = pushed_to(small, tmp_path / "a")
    small.manifests.clear()
    del small.blobs["mydb/schema/x", str(built.layers[1]["digest"])]
    _, report = pushed_to(small, tmp_path / "b")

    assert report.pushed == int(str(built.layers[1]["size"]))  # type: ignore[attr-defined]
    assert report.skipped == sum(sizes(built)) - report.pushed  # type: ignore[attr-defined]


def test_a_tag_with_another_digest_is_never_moved(small: SmallRegistry, tmp_path: Path) -> None:
    other = image()
    small.hold("mydb/schema/x", "v1", other)

    with pytest.raises(Refused) as caught:
        pushed_to(small, tmp_path)

    assert f"mydb/schema/x:v1 exists and leads to {other.digest}; this image is sha256:" in str(caught.value)
    assert small.manifests["mydb/schema/x", "v1"] == other.manifest


def test_a_built_image_is_pushed_from_the_store_and_its_base(small: SmallRegistry, tmp_path: Path) -> None:
    base, built = Made(tar(entry("base", BIG))), Made(tar(entry("base", BIG)), tar(entry("ours")))
    layout(tmp_path / "base", base)
    store = Store(tmp_path / "store")
    store.add(built.blobs[str(built.layers[1]["digest"])])
    manifest = read_manifest(built.manifest, what="built")
    image = Image(manifest=built.manifest, config=built.blobs[str(built.config["digest"])], layers=manifest.layers, own=1)
    origin = ask(LayoutName(folder="base"), project=tmp_path, store=store)

    report = push(manifest, own_blobs(image, store), origin, target_of(f"{small.host}/a/b:1"), registry=client(small))

    assert report.reference.digest == built.digest == client(small).image("a/b", "1").digest
    assert not store.has(str(base.layers[0]["digest"])[7:])  # streamed, not kept


@pytest.mark.parametrize("text", ["reg.example/a", f"reg.example/a:1@sha256:{'ab' * 32}"])
def test_a_push_needs_a_tag_and_no_digest(text: str) -> None:
    with pytest.raises(CregraphError, match="must have a tag and must not have a digest"):
        target_of(text)


# a real registry


@pytest.fixture
def real() -> str:
    host = os.environ.get("CREGRAPH_TEST_REGISTRY")
    if not host:
        pytest.fail("CREGRAPH_REQUIRE_DOCKER=1, but CREGRAPH_TEST_REGISTRY is not set")
    return host


@pytest.mark.docker
def test_an_image_pushed_to_a_real_registry_is_found_there_by_its_digest(real: str, tmp_path: Path) -> None:
    mark = repository("t")
    base = Made(tar(entry("base", secrets.token_bytes(6 << 20))))
    built = Made(tar(entry("ours", mark.encode())), tar(entry("more", secrets.token_bytes(5 << 20))))
    registry = Registry.at(real)
    registry.ping()
    own = {name: data for name, data in base.blobs.items() if name != base.digest}
    first = push(read_manifest(base.manifest, what="base"), own, None, target_of(f"{real}/{mark}/base:1"), registry=registry)
    assert first.pushed == sum(len(data) for data in own.values())

    store = Store(tmp_path / "store")
    origin = ask(parse_reference(f"{real}/{mark}/base:1"), project=tmp_path, store=store)
    assert origin.manifest.digest == base.digest
    layers = [*base.layers, *built.layers]
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": built.config, "layers": layers}
    ).encode()
    own = {name: data for name, data in built.blobs.items() if name != built.digest}
    to = target_of(f"{real}/{mark}/x:1")
    report = push(read_manifest(manifest, what="built"), own, origin, to, registry=registry)

    assert report.mounted == base.layers[0]["size"]
    assert registry.digest_at(f"{mark}/x", "1") == digest(manifest) == report.reference.digest
    assert push(read_manifest(manifest, what="built"), own, origin, to, registry=registry).unchanged
    pin = Artifact(kind="image", source=real, file=f"{mark}/x:1", sha256=digest(manifest)[7:], size=len(manifest))
    found = find(pin, routes=lambda _s, _n: (), project=tmp_path, store=Store(tmp_path / "cold"))
    assert [b"".join(found.open_layer(layer)) for layer in found.manifest.layers] == [
        base.blobs[str(base.layers[0]["digest"])],
        *(built.blobs[str(layer["digest"])] for layer in built.layers),
    ]


@pytest.mark.docker
def test_a_real_registry_resumes_a_broken_upload(real: str) -> None:
    data = secrets.token_bytes(9 << 20)
    broken = [True]

    class Broken(Exception):
        pass

    def read(start: int) -> Iterator[bytes]:
        for at in range(start, len(data), 1 << 20):
            if at >= 6 << 20 and broken.pop() if broken else False:
                raise ConnectionResetError("for the test")
            yield data[at : at + (1 << 20)]

    registry = Registry.at(real)
    path = repository("broken")
    registry.upload(path, described(data), read)

    assert not broken
    assert b"".join(registry.blob(path, described(data))) == data


@pytest.mark.docker
def test_an_image_of_a_docker_engine_is_taken_out_once_and_found_by_its_digest(real: str, tmp_path: Path) -> None:
    from cregraph.image.bases.facts_from_layers import facts_of
    from cregraph.image.model.reference import parse
    from tests.made_images import base_tars

    name = image_name("saved")
    made = Made(*base_tars())
    where = layout(tmp_path / "image", made)
    (where / "manifest.json").write_text(
        json.dumps(
            [
                {
                    "Config": f"blobs/sha256/{str(made.config['digest'])[7:]}",
                    "RepoTags": [name],
                    "Layers": [f"blobs/sha256/{str(layer['digest'])[7:]}" for layer in made.layers],
                }
            ]
        )
    )
    listed = json.loads((where / "index.json").read_text())
    listed["manifests"][0]["annotations"] = {"io.containerd.image.name": f"{DOCKER_HUB}/{name}"}
    (where / "index.json").write_text(json.dumps(listed))
    subprocess.run(["tar", "-C", where, "-cf", tmp_path / "image.tar", "."], check=True)
    subprocess.run(["docker", "load", "-q", "-i", tmp_path / "image.tar"], check=True, capture_output=True)
    try:
        store = Store(tmp_path / "store")
        image = ask(parse(f"docker:{name}"), project=tmp_path, store=store)
        facts = facts_of(image)
        assert facts.python is not None and facts.python.version == "3.11.9"
        assert facts.glibc == "2.36"
        pin = Artifact(kind="image", source=f"docker:{name}", file="", sha256=image.manifest.digest[7:], size=1)
        again = find(pin, routes=lambda _s, _n: (), project=tmp_path, store=Store(tmp_path / "cold"))
        assert facts_of(again) == facts
    finally:
        subprocess.run(["docker", "image", "rm", name], check=True, capture_output=True)
    with pytest.raises(CregraphError) as caught:
        ask(parse(f"docker:{name}"), project=tmp_path, store=Store(tmp_path / "other"))
    assert f"docker:{name}: the Docker engine does not give this image:" in str(caught.value)
    assert caught.value.hint == f"pull or load it first: `docker pull --platform linux/amd64 {name}`"


def test_no_message_holds_a_token() -> None:
    with SmallRegistry("bearer") as small, pytest.raises(NotInRegistry) as caught:
        client(small, Credentials(user=USER, password=PASSWORD)).image("a/b", "1")

    assert TOKEN not in str(caught.value) and PASSWORD not in str(caught.value)
