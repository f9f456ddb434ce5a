"""Where a built image goes: Docker engines of both image stores, and registries."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cregraph.build.image_build import Built, build
from cregraph.cli.image_output import send
from cregraph.cli.terminal_output import megabytes
from cregraph.errors import CregraphError, Refused
from cregraph.image.bases.base_image import BaseImage, ask
from cregraph.image.bases.facts_from_layers import facts_of
from cregraph.image.media.docker_client import NoImage
from cregraph.image.media.docker_engine import container, inspect
from cregraph.image.media.docker_load import load
from cregraph.image.media.registry import Registry
from cregraph.image.model.manifest import Descriptor
from cregraph.image.model.reference import parse
from cregraph.lock.lock_file import Identity, Lock, StageRecord
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.plan.planner import make_plan
from cregraph.session.project import Project
from cregraph.session.session import Session
from cregraph.sources.routes import Registry as Named
from cregraph.sources.routes import Routes
from cregraph.store import Store
from tests.engine_names import RUN, image_name, repository
from tests.made_images import Made, entry, folder, layout, tar
from tests.small_registry import SmallRegistry

CLASSIC = os.environ.get("CREGRAPH_TEST_CLASSIC_HOST")
PROFILE = """\
cre: {image: team, tag: v1, r_version: "4.5.2", snowbooks_tag: "2.5.0"}
snowflake: {registry_url: acct.registry.example, image_repo_path: /Db/Schema/REPO/}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def a_base(store: Store, where: Path, *layers: bytes, **image: object) -> BaseImage:
    made = Made(*(layers or (tar(folder("opt"), entry("opt/of-the-base", b"base" * 4000)),)), image=dict(image) or None)
    return ask(parse(f"oci:{layout(where / 'base', made).name}"), project=where, store=store)


def a_build(base: BaseImage, store: Store, text: str = f"{RUN}\n") -> Built:
    """An image with one file of ours over `base`, really built."""
    digest = base.manifest.digest.removeprefix("sha256:")
    pin = Pin(
        name="base",
        version="1",
        artifact=Artifact(kind="image", source="oci:base", file="", sha256=digest, size=len(base.manifest.raw)),
    )
    ask_ = Ask(kind="file", place="", stage="hook", what={"at": ["/opt/sfnb/VERSION"], "text": text}, where="x:1")
    lock = Lock(
        identity=Identity(name="team", image="team", label="v1", tag="v1"),
        stages=(StageRecord(name="hook"),),
        targets=(Target(kind="image", place="base", pins=(pin,)), Target(kind="file", place="", asks=(ask_,))),
    )
    facts = facts_of(base)
    return build(make_plan(lock, facts), facts, store=store, fetch=no_fetch, engine=no_engine)


def no_fetch(_artifact: Artifact) -> Path:
    raise AssertionError("nothing is to be fetched")


def no_engine() -> object:
    raise AssertionError("no task is to run")


# -- Docker engines


@pytest.fixture(params=["containerd", "classic"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "classic":
        if not CLASSIC:
            pytest.skip("no engine with the classic image store: CREGRAPH_TEST_CLASSIC_HOST not set")
        monkeypatch.setenv("DOCKER_HOST", CLASSIC)
    return str(request.param)


@pytest.fixture
def name(engine: str) -> Iterator[str]:
    """A name of this test's own in the engine, removed afterwards."""
    made = image_name("outputs")
    yield made
    subprocess.run(["docker", "image", "rm", "-f", made], capture_output=True, check=False)


@pytest.mark.docker
def test_an_image_that_was_loaded_is_there_by_its_name_and_is_that_image(engine, name, store, tmp_path):
    base = a_base(store, tmp_path)
    built = a_build(base, store)

    load(built.image, reference=name, store=store, base=base.open_layer)

    found = inspect(name)
    assert found["Id"] == (built.image.digest if engine == "containerd" else built.image.config_descriptor.digest)
    assert found["Config"]["Labels"]["org.cregraph.key"] == built.plan.key


@pytest.mark.docker
def test_an_image_that_the_engine_has_by_that_name_is_not_sent_again(engine, name, store, tmp_path):
    base = a_base(store, tmp_path)
    built = a_build(base, store)
    load(built.image, reference=name, store=store, base=base.open_layer)

    def gone(_blob: Descriptor) -> Iterator[bytes]:
        raise AssertionError("the base is asked for again")

    load(built.image, reference=name, store=store, base=gone)


@pytest.mark.docker
def test_a_name_that_led_to_another_image_leads_to_this_one_afterwards(engine, name, store, tmp_path):
    base = a_base(store, tmp_path)
    first, second = a_build(base, store), a_build(base, store, f"{RUN} v2\n")
    load(first.image, reference=name, store=store, base=base.open_layer)

    load(second.image, reference=name, store=store, base=base.open_layer)
    for nameless in (first.image.digest, first.image.config_descriptor.digest):
        subprocess.run(["docker", "image", "rm", "-f", nameless], capture_output=True, check=False)

    assert inspect(name)["Config"]["Labels"]["org.cregraph.key"] == second.plan.key


@pytest.mark.docker
def test_a_damaged_layer_of_the_base_is_named_and_nothing_is_loaded(engine, name, store, tmp_path):
    base = a_base(store, tmp_path, tar(entry("opt/x", secrets.token_bytes(9000))))
    built = a_build(base, store)

    def damaged(blob: Descriptor) -> Iterator[bytes]:
        data = b"".join(base.open_layer(blob))
        yield data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]

    with pytest.raises(CregraphError, match="but the image names"):
        load(built.image, reference=name, store=store, base=damaged)
    with pytest.raises(NoImage):
        inspect(name)


@pytest.mark.docker
def test_an_image_is_streamed_in_little_memory(engine, name, tmp_path):
    """96 MiB of layer, and the process that loads it grows by less than a quarter of that."""
    script = tmp_path / "load.py"
    script.write_text(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from cregraph.store import Store\n"
        "from cregraph.image.media.docker_load import load\n"
        "from tests.test_outputs import a_base, a_build\n"
        "from tests.made_images import entry, tar\n"
        "where = Path(sys.argv[1]); store = Store(where / 'store')\n"
        "if sys.argv[3] == 'make':\n"
        "    import os; a_build(a_base(store, where, tar(entry('opt/x', os.urandom(96 << 20)))), store, 'v1'); sys.exit()\n"
        "from cregraph.image.bases.base_image import ask\n"
        "from cregraph.image.model.reference import parse\n"
        "base = ask(parse('oci:base'), project=where, store=store); built = a_build(base, store, 'v1')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load(built.image, reference=sys.argv[2], store=store, base=base.open_layer)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}

    subprocess.run([sys.executable, script, tmp_path, name, "make"], env=env, check=True)
    grown = subprocess.run([sys.executable, script, tmp_path, name, "load"], env=env, check=True, capture_output=True, text=True)

    assert int(grown.stdout) < 24


@pytest.mark.docker
def test_an_image_that_the_engine_lacks_is_not_pulled(engine):
    started = container(f"localhost/{image_name('never')}", ["x"], env={}, files={}, about="a container")
    with pytest.raises(NoImage, match="a container: the Docker engine has no such image"), started:
        pass


def programs(*names: str) -> bytes:
    """A layer with programs of this machine and the libraries that they load."""
    paths = {f"/bin/{name}" for name in names}
    for path in sorted(paths):
        for line in subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.splitlines():
            paths |= {word for word in line.split() if word.startswith("/")}
    return tar(*(entry(path.lstrip("/"), Path(path).read_bytes(), mode=0o755) for path in sorted(paths)))


@pytest.fixture
def shell(engine: str, name: str, store: Store, tmp_path: Path) -> str:
    """An image that can run sh, cat and sleep."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("this machine's programs do not run in a linux/amd64 container")
    base = a_base(store, tmp_path, programs("sh", "cat", "sleep"))
    load(a_build(base, store).image, reference=name, store=store, base=base.open_layer)
    return name


def containers() -> str:
    words = ["docker", "container", "ls", "--all", "--format", "{{.Names}} {{.Image}}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.docker
def test_files_are_copied_in_and_lines_come_out_without_network(shell):
    command = ["sh", "-c", "cat /in/a/b; echo $X; cat /proc/net/dev; echo bad >&2; exit 3"]
    with container(shell, command, env={"X": "y z"}, files={"/in/a/b": b"hello\n"}, about="x") as started:
        lines = list(started.lines())
        assert started.ended() == (3, "bad")

    assert lines[:2] == ["hello", "y z"]
    assert [row.split(":")[0].strip() for row in lines if ":" in row] == ["lo"]


@pytest.mark.docker
@pytest.mark.parametrize("failure", [KeyboardInterrupt, CregraphError, SystemExit])
def test_a_container_is_removed_whatever_ends_us(shell, failure):
    with pytest.raises(failure):
        with container(shell, ["sh", "-c", "echo up; sleep 300"], env={}, files={}, about="x") as started:
            assert next(started.lines()) == "up"
            assert shell in containers()
            raise failure("stop")

    assert shell not in containers()


@pytest.mark.docker
def test_a_program_that_the_image_lacks_is_said_in_words(shell):
    with container(shell, ["/no/python"], env={}, files={}, about="x") as started:
        assert list(started.lines()) == []
        code, words = started.ended()

    assert code != 0 and "/no/python" in words and words.isprintable()


@pytest.mark.parametrize("name", ["-v", "--help", "a b", "", "x\n"])
def test_a_name_that_docker_would_take_for_an_option_is_refused(name):
    with pytest.raises(CregraphError, match="is not the name of an image"):
        inspect(name)


# -- registries


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "team.yaml").write_text(PROFILE)
    return Project.of(str(tmp_path / "team.yaml"))


def a_session(project: Project, store: Store, built: Built, base: BaseImage, **registries: str) -> Session:
    """A session with the image `built`, on a machine that knows these registries."""
    session = Session(project)
    session.store, session.lock, session.plan, session.base = store, built.plan.lock, built.plan, base
    session.routes = Routes(registry={name: Named(host=host, plain_http=True) for name, host in registries.items()})
    return session


def publish(project: Project, store: Store, built: Built, base: BaseImage, rest: str, **registries: str) -> str:
    return send(a_session(project, store, built, base, **registries), built, f"registry:{rest}")


def test_the_profiles_repository_is_folded_and_the_images_name_and_the_locks_tag_are_appended(store, project, tmp_path, capsys):
    base = a_base(store, tmp_path)
    built = a_build(base, store)
    with SmallRegistry() as registry:
        there = publish(project, store, built, base, "", snowflake=registry.host)

        assert there == f"{registry.host}/db/schema/repo/team:{built.plan.tag}@{built.image.digest}"
        assert registry.manifests["db/schema/repo/team", built.plan.tag] == built.image.manifest
    said = capsys.readouterr().err
    assert " pushed" in said and "mounted" not in said and "existed already" not in said


def test_a_host_and_path_can_be_named_and_pushing_again_moves_nothing(store, project, tmp_path, capsys):
    base = a_base(store, tmp_path)
    built = a_build(base, store)
    with SmallRegistry() as registry:
        first = publish(project, store, built, base, f"{registry.host}/Some/Where/")
        capsys.readouterr()
        asked = len(registry.asked)

        assert publish(project, store, built, base, f"{registry.host}/some/where") == first
        assert first == f"{registry.host}/some/where/team:{built.plan.tag}@{built.image.digest}"
        assert all(one.startswith(("HEAD", "GET")) for one in registry.asked[asked:])
    assert "nothing to push" in capsys.readouterr().err


def test_the_bases_layers_are_mounted_when_the_registry_has_them(store, project, tmp_path, capsys):
    made = Made(tar(entry("opt/x", secrets.token_bytes(5000))))
    with SmallRegistry() as registry:
        registry.hold("base/image", "1", made)
        base = ask(parse(f"{registry.host}/base/image:1"), project=tmp_path, store=store)
        built = a_build(base, store)

        publish(project, store, built, base, f"{registry.host}/db")

        assert ("db/team", str(made.layers[0]["digest"])) in registry.blobs
        assert sum(one.startswith("PUT") and "/blobs/" in one for one in registry.asked) == len(built.layers) + 1
    assert f"{megabytes(int(str(made.layers[0]['size'])))} mounted" in capsys.readouterr().err


def test_a_tag_that_leads_to_another_image_is_not_moved(store, project, tmp_path):
    base = a_base(store, tmp_path)
    built, other = a_build(base, store), a_build(base, store, "other\n")
    with SmallRegistry() as registry:
        publish(project, store, built, base, f"{registry.host}/x")
        taken = replace(other, plan=replace(other.plan, tag=built.plan.tag))

        with pytest.raises(Refused, match="exists and leads to"):
            publish(project, store, taken, base, f"{registry.host}/x")

        assert registry.manifests["x/team", built.plan.tag] == built.image.manifest


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("nohost", "is not a registry and path"),
        ("db/schema/repo", "is not a registry and path"),
        ("host.example", "is not a registry and path"),
        ("host.example/", "is not a registry and path"),
        ("host.example/x:v1", "contains a tag or digest, but the lock decides the tag"),
        ("host.example/x@sha256:0", "contains a tag or digest, but the lock decides the tag"),
        ("host.example/../x", "is not a repository's name"),
    ],
)
def test_a_place_that_is_none_is_refused(store, project, tmp_path, rest, message):
    base = a_base(store, tmp_path)

    with pytest.raises(CregraphError, match=message):
        publish(project, store, a_build(base, store), base, rest)


def test_a_profile_that_states_no_place_says_so(store, tmp_path):
    (tmp_path / "team.yaml").write_text('cre: {tag: v1, r_version: "4.5.2", snowbooks_tag: "2.5.0"}\n')
    project = Project.of(str(tmp_path / "team.yaml"))
    base = a_base(store, tmp_path)

    with pytest.raises(CregraphError, match=r"snowflake\.image_repo_path: is missing, but a push needs it"):
        publish(project, store, a_build(base, store), base, "")


def test_a_machine_that_knows_no_snowflake_registry_is_told_where_to_state_it(store, project, tmp_path):
    base = a_base(store, tmp_path)

    with pytest.raises(CregraphError, match="unknown registry `snowflake`"):
        publish(project, store, a_build(base, store), base, "")


@pytest.mark.docker
def test_a_real_registry_and_engine_keep_the_digest(store, project, tmp_path):
    host = os.environ["CREGRAPH_TEST_REGISTRY"]
    base = a_base(store, tmp_path, tar(entry("opt/x", secrets.token_bytes(5000))))
    built = a_build(base, store, secrets.token_hex(8))

    path = repository("outputs")
    there = publish(project, store, built, base, f"{host}/{path}")

    assert Registry.at(host).digest_at(f"{path}/team", built.plan.tag) == built.image.digest
    subprocess.run(["docker", "image", "pull", "--quiet", there], check=True)
    try:
        assert built.image.digest in str(inspect(there)["RepoDigests"])
    finally:
        subprocess.run(["docker", "image", "rm", "--force", there], check=True)
