"""Which Docker engine is asked, and what is said when it does not answer well."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cregraph.digest import sha256
from cregraph.errors import CregraphError
from cregraph.image.media.docker_client import NoImage
from cregraph.image.media.docker_config import Endpoint, endpoint
from cregraph.image.media.docker_engine import image_archive, inspect, load_stream, reachable
from tests.small_engine import Answer, SmallEngine

ENGINE = os.environ.get("DOCKER_HOST", "")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's settings: none but what a test makes."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker"


def a_context(config: Path, name: str, host: str, *, skips: bool = False, tls: dict[str, bytes] | None = None) -> Path:
    """A context as `docker context create` leaves it; returns the folder of its TLS files."""
    key = sha256(name.encode())
    meta = config / "contexts/meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skips}}}))
    folder = config / "contexts/tls" / key / "docker"
    for file, data in (tls or {}).items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    return folder


def test_without_any_setting_the_default_socket_is_meant() -> None:
    assert endpoint() == endpoint("default") == Endpoint(host="unix:///var/run/docker.sock")


def test_what_is_named_is_before_docker_host_before_docker_context_before_the_configs(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("named", "of-env", "current"):
        a_context(config, name, f"unix:///{name}")
    (config / "config.json").write_text('{"currentContext": "current"}')
    assert endpoint().host == "unix:///current"
    monkeypatch.setenv("DOCKER_CONTEXT", "of-env")
    assert endpoint().host == "unix:///of-env"
    monkeypatch.setenv("DOCKER_HOST", "tcp://host:1")
    assert endpoint().host == endpoint("default").host == "tcp://host:1"
    assert endpoint("named").host == "unix:///named"


def test_tls_is_taken_from_the_environment_and_from_contexts(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_context(config, "safe", "tcp://a:1", tls={"ca.pem": b"ca"})
    a_context(config, "unsafe", "tcp://b:1", skips=True)
    assert endpoint("safe") == Endpoint(host="tcp://a:1", tls=folder)
    assert endpoint("unsafe").tls is not None and not endpoint("unsafe").verify
    monkeypatch.setenv("DOCKER_HOST", "tcp://c:1")
    monkeypatch.setenv("DOCKER_CERT_PATH", "/certs")
    assert endpoint().tls is None
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert endpoint() == Endpoint(host="tcp://c:1", tls=Path("/certs"))


def test_a_context_that_is_not_there_or_damaged_is_refused_by_name(config: Path) -> None:
    with pytest.raises(CregraphError, match="the Docker context `gone` does not exist"):
        endpoint("gone")
    with pytest.raises(CregraphError, match="invalid name of a Docker context"):
        endpoint("--host=evil")
    path = a_context(config, "bad", "x").parents[2] / "meta" / sha256(b"bad") / "meta.json"
    for text in ("{", "[]", "{}", '{"Endpoints": {"docker": []}}'):
        path.write_text(text)
        with pytest.raises(CregraphError, match="is not readable as a Docker context"):
            endpoint("bad")
    (config / "config.json").write_text("{")
    with pytest.raises(CregraphError, match="is not readable as JSON"):
        endpoint()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A CA, and a certificate of 127.0.0.1 for a server and a client."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "extra").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")

    def openssl(*words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ("-newkey", "rsa:2048", "-nodes")
    usage = ("-addext", "keyUsage=critical,keyCertSign")  # Python 3.13 wants it (RFC 5280)
    try:
        openssl("req", "-x509", *new, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca", *usage)
    except FileNotFoundError:
        pytest.skip("needs the program openssl")
    openssl("req", *new, "-keyout", "key.pem", "-out", "request", "-subj", "/CN=127.0.0.1")
    signed = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "extra")
    openssl("x509", "-req", "-in", "request", "-out", "cert.pem", *signed)
    return folder


def test_an_engine_behind_tls_is_reached_by_its_context_and_no_other(
    certificates: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "cert.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    tls.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    files = {name: (certificates / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem")}
    with SmallEngine(lambda *_: Answer(), tls=tls) as engine:
        a_context(config, "whole", engine.host, tls=files)
        a_context(config, "stranger", engine.host, tls={"cert.pem": files["cert.pem"], "key.pem": files["key.pem"]})
        a_context(config, "nobody", engine.host, tls={"ca.pem": files["ca.pem"]})
        reachable("whole")
        for name in ("stranger", "nobody"):
            with pytest.raises(CregraphError, match="the Docker engine does not answer"):
                reachable(name)


@pytest.mark.docker
def test_an_engine_is_reached_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    """A program that stands for ssh notes its words, and forwards the socket of an engine here."""
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    script = 'echo "$@" >> "$0.log"\nwhile [ "$1" != -L ]; do shift; done\nln -s "${2#*:}" "${2%%:*}"\nexec sleep 600\n'
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    socket = ENGINE.removeprefix("unix://")
    a_context(config, "far", f"ssh://me@far.example:2222{socket}")
    with pytest.raises(NoImage):
        inspect("cregraph-test/never:made", "far")
    words = program.with_name("ssh.log").read_text()
    assert " -l me -p 2222 -L " in words and words.endswith(f":{socket} -- far.example\n")
    program.write_text("#!/bin/sh\necho 'Permission denied (publickey).' >&2; exit 255\n")
    with pytest.raises(CregraphError, match=r"ssh says: Permission denied \(publickey\)"):
        reachable("far")


# -- an engine that does not do as it is asked


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Answer]]:
    """What the engine answers to `POST /images/load` and the like."""
    answers: dict[str, Answer] = {}

    def answer(method: str, path: str) -> Answer:
        return answers.get(f"{method} {path.removeprefix('/v1.45')}", Answer())

    with SmallEngine(answer, path=tmp_path / "engine.sock") as small:
        monkeypatch.setenv("DOCKER_HOST", small.host)
        yield answers


def test_no_engine_and_no_permission_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(
        CregraphError, match=r"the Docker engine does not answer: cannot connect to .*nobody\.sock: No such"
    ) as caught:
        reachable()
    assert "start the engine, or name it" in (caught.value.hint or "")
    monkeypatch.setattr("socket.socket.connect", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(CregraphError, match="permission denied for unix://") as caught:
        reachable()
    assert "to the group `docker`" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("write /var/lib/x: no space left on device", "run `docker system df` to see the use of the engine's disk"),
        ("something \x1b[2Jelse", "run `docker info` to check the engine"),
    ],
)
def test_an_engine_that_refuses_is_quoted_with_a_way_out(engine: dict[str, Answer], words: str, hint: str) -> None:
    engine["GET /images/x/json"] = Answer(500, {"message": words})
    with pytest.raises(CregraphError) as caught:
        inspect("x")
    assert caught.value.message.startswith("image `x`: docker says: ") and caught.value.message.isprintable()
    assert hint in (caught.value.hint or "")


def test_an_engine_that_is_too_old_is_said_to_be(engine: dict[str, Answer]) -> None:
    engine["GET /version"] = Answer(body={"ApiVersion": "1.12", "Version": "1.0"})
    with pytest.raises(CregraphError, match="is too old"):
        reachable()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b'{"stream":"Loading"}\r\n{"errorDetail":{"message":"no space left"},"error":"no space left"}\r\n'),
        Answer(500, {"message": "no space left"}),
    ],
)
def test_an_error_of_a_load_is_an_error_wherever_the_engine_says_it(engine: dict[str, Answer], answer: Answer) -> None:
    """Also when it does not read what is sent: the connection is closed while there is much to send."""
    engine["POST /images/load"] = answer
    for pieces in ([b"x"], (b"x" * 100_000 for _ in range(200))):
        with pytest.raises(CregraphError, match="loading: docker says: no space left"):
            load_stream(pieces, about="loading")


def test_what_ends_the_sender_ends_the_load_and_is_raised(engine: dict[str, Answer]) -> None:
    def pieces(error: BaseException) -> Iterator[bytes]:
        yield b"x"
        raise error

    engine["POST /images/load"] = Answer(reads=True)
    for error in (OSError(5, "the disk"), CregraphError("damaged"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            load_stream(pieces(error), about="loading")
        assert caught.value is error


def test_an_archive_that_breaks_off_is_an_error_with_the_engines_words(engine: dict[str, Answer]) -> None:
    engine["GET /images/x/get"] = Answer(
        body=bytes(5000) + b'{"errorDetail":{"message":"layer is gone"},"error":"layer is gone"}'
    )
    with pytest.raises(CregraphError, match="docker says: layer is gone"), image_archive("x") as stream:
        stream.read(100)
    with pytest.raises(CregraphError, match="docker says: layer is gone"), image_archive("x"):
        raise CregraphError("this cannot be read")
    engine["GET /images/x/get"] = Answer(body=bytes(5000), cut=True)
    with pytest.raises(CregraphError, match="ended the connection"), image_archive("x") as stream:
        stream.read()
    engine["GET /images/x/get"] = Answer(404, {"message": "No such image: x"})
    with pytest.raises(NoImage) as caught, image_archive("x"):
        pass
    assert "docker pull --platform linux/amd64 x" in (caught.value.hint or "")
