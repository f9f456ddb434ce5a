"""Publishing: what moves, what does not, what is asked before, and what a broken push leaves."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cregraph.errors import Refused
from cregraph.image.bases.base_image import ask
from cregraph.image.media.push import Moved, push, target_of
from cregraph.image.media.registry import Registry
from cregraph.image.model.manifest import read_manifest
from cregraph.image.model.reference import LayoutName
from cregraph.store import Store
from cregraph.store.push_records import Uploads, elsewhere, pushed_to, remember_pushed
from tests.engine_names import repository
from tests.made_images import MANIFEST, Made, digest, entry, layout, tar
from tests.real_project import Done
from tests.small_registry import PASSWORD, USER, SmallRegistry

BIG = 24 << 20  # bytes of a layer of the base
LIMIT = 8 << 20  # bytes of the largest file that the small machine may write


@dataclass(kw_only=True)
class Machine:
    """A project of the demo's whose base is in a registry, and what is set where it is built."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def start(self, *words: str, limit: int | None = None) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")}
        prefix = ["bash", "-c", f'ulimit -f {limit >> 10}; exec "$@"', "bash"] if limit else []
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "cregraph", *words],
            cwd=self.folder,
            env={**kept, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, limit: int | None = None) -> Done:
        return ended(self.start(*words, limit=limit))

    def ok(self, *words: str, limit: int | None = None) -> Done:
        done = self.run(*words, limit=limit)
        assert done.code == 0, done.err
        return done

    def copy(self, folder: Path) -> Machine:
        """The same project on another machine: nothing in its store."""
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("cache"))
        (folder / "cache").mkdir()
        return Machine(folder=folder, env=dict(self.env))

    @property
    def store(self) -> Store:
        return Store(self.folder / "cache")


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's project as it was before anything was locked."""
    folder = tmp_path_factory.mktemp("push") / "demo"
    subprocess.run([sys.executable, "-m", "cregraph", "demo", str(folder)], check=True, capture_output=True)
    for made in ("locks", "bases", "cache", "image"):
        shutil.rmtree(folder / made)
    (folder / "cache").mkdir()
    (folder / "with-cran.yaml").unlink()
    return folder


def a_base(demo: Path) -> tuple[dict[str, bytes], bytes]:
    """The demo's base with one more layer, larger than the small machine's limit: blobs, manifest."""
    blobs = {f"sha256:{path.name}": path.read_bytes() for path in (demo / "sources/base/blobs/sha256").iterdir()}
    index = json.loads((demo / "sources/base/index.json").read_text())
    manifest = json.loads(blobs[index["manifests"][0]["digest"]])
    config = json.loads(blobs[manifest["config"]["digest"]])
    more = Made(tar(entry("opt/big", secrets.token_bytes(BIG))))
    blobs |= more.blobs
    config["rootfs"]["diff_ids"].append(json.loads(more.blobs[str(more.config["digest"])])["rootfs"]["diff_ids"][0])
    config["history"].append({"created_by": "big"})
    data = json.dumps(config).encode()
    blobs[digest(data)] = data
    manifest["config"] |= {"digest": digest(data), "size": len(data)}
    manifest["layers"].append(more.layers[0])
    manifest["mediaType"] = MANIFEST
    return blobs, json.dumps(manifest).encode()


def hold(small: SmallRegistry, repository: str, base: tuple[dict[str, bytes], bytes]) -> None:
    blobs, manifest = base
    small.blobs |= {(repository, name): data for name, data in blobs.items()}
    small.manifests[repository, "1"] = small.manifests[repository, digest(manifest)] = manifest


@pytest.fixture(scope="module")
def base(demo: Path) -> tuple[dict[str, bytes], bytes]:
    return a_base(demo)


@pytest.fixture
def home(base: tuple[dict[str, bytes], bytes]) -> Iterator[SmallRegistry]:
    """The registry that has the base, in `snow/base`."""
    with SmallRegistry() as small:
        hold(small, "snow/base", base)
        yield small


@pytest.fixture
def other() -> Iterator[SmallRegistry]:
    with SmallRegistry() as small:
        yield small


def machine(demo: Path, folder: Path, small: SmallRegistry) -> Machine:
    shutil.copytree(demo, folder, symlinks=True)
    profile = folder / "demo.yaml"
    profile.write_text(profile.read_text().replace('"oci:sources/base"', f'"{small.host}/snow/base:1"'))
    return Machine(folder=folder)


def big_layer(base: tuple[dict[str, bytes], bytes]) -> str:
    return str(json.loads(base[1])["layers"][-1]["digest"])


def sent(small: SmallRegistry, since: int = 0) -> list[str]:
    """What was uploaded, not asked."""
    return [line for line in small.asked[since:] if line.partition(" ")[0] in ("PUT", "PATCH", "POST")]


# -- a machine without room for the base


def test_a_machine_without_room_for_the_base_locks_builds_and_pushes(
    demo: Path, base: tuple[dict[str, bytes], bytes], home: SmallRegistry, other: SmallRegistry, tmp_path: Path
) -> None:
    """No file may become larger than a third of the base's layer: it streams from one registry to the other."""
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml", limit=LIMIT)
    done = here.ok("push", "demo.yaml", f"{other.host}/DB/Schema", limit=LIMIT)

    name, _, found = done.out.strip().partition("@")
    assert name.startswith(f"{other.host}/db/schema/demo-r:v1-")
    assert digest(other.manifests["db/schema/demo-r", name.rpartition(":")[2]]) == found
    for layer in json.loads(base[1])["layers"]:
        assert ("db/schema/demo-r", layer["digest"]) in other.blobs
        assert not here.store.has(layer["digest"][7:])
    assert "of it streamed from the base" in done.err


def test_the_base_is_mounted_where_it_is_in_the_same_registry(
    demo: Path, base: tuple[dict[str, bytes], bytes], home: SmallRegistry, tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    reads = len(home.asked)
    answer = here.ok("push", "demo.yaml", f"{home.host}/db", "--json").json

    sizes = [layer["size"] for layer in json.loads(base[1])["layers"]]
    assert answer["bytes"]["mounted"] == sum(sizes)
    assert answer["bytes"]["streamed"] == 0
    assert not [line for line in home.asked[reads:] if line.startswith("GET") and big_layer(base) in line]


def test_a_mount_is_asked_for_with_the_rights_on_both_repositories(
    demo: Path, home: SmallRegistry, base: tuple[dict[str, bytes], bytes], tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    home.auth = "scoped"
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {home.host: {"auth": pair}}}))
    here.env["DOCKER_CONFIG"] = str(tmp_path / "docker")

    answer = here.ok("push", "demo.yaml", f"{home.host}/db", "--json").json
    assert answer["bytes"]["mounted"] == sum(layer["size"] for layer in json.loads(base[1])["layers"])

    remembered = len(home.asked)
    home.closed = {"snow/base", "db/demo-r"}  # nothing may be read there any more
    refused = here.run("push", "demo.yaml", f"{home.host}/elsewhere")
    assert refused.code == 2
    assert "this login does not have" in refused.err or "asks for a login" in refused.err
    assert ("elsewhere/demo-r", big_layer(base)) not in home.blobs
    assert len(home.asked) > remembered


def test_a_registry_that_grants_no_mount_gets_the_bytes(
    demo: Path, home: SmallRegistry, base: tuple[dict[str, bytes], bytes], tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    home.mounts = False
    answer = here.ok("push", "demo.yaml", f"{home.host}/db", "--json").json

    assert answer["bytes"]["mounted"] == 0
    assert answer["bytes"]["streamed"] == sum(layer["size"] for layer in json.loads(base[1])["layers"])
    assert home.uploads == {}  # those that a refused mount began were given back


def test_what_another_repository_of_the_registry_has_is_mounted_from_there(
    demo: Path, home: SmallRegistry, other: SmallRegistry, tmp_path: Path
) -> None:
    """The base is in another registry; the second image of a team does not stream it again."""
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    first = here.ok("push", "demo.yaml", f"{other.host}/one", "--json").json["bytes"]
    second = here.ok("push", "demo.yaml", f"{other.host}/two", "--json").json["bytes"]

    assert first["streamed"] > BIG
    assert second["streamed"] == 0
    assert second["mounted"] == first["pushed"] - json.loads(other.manifests[_tagged(other, "one/demo-r")])["config"]["size"]


def _tagged(small: SmallRegistry, repository: str) -> tuple[str, str]:
    return next(key for key in small.manifests if key[0] == repository and not key[1].startswith("sha256:"))


# -- what breaks


def test_a_killed_push_goes_on_in_the_middle_of_a_layer(
    demo: Path, base: tuple[dict[str, bytes], bytes], home: SmallRegistry, other: SmallRegistry, tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    here.ok("build", "demo.yaml")
    other.stall = True
    process = here.start("push", "demo.yaml", f"{other.host}/db")
    if not other.stalled.wait(60):
        process.kill()
        pytest.fail(f"nothing was uploaded: {ended(process)}")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    other.go.set()
    assert (kept := max((len(data) for data in other.uploads.values()), default=0)) > BIG // 3
    since = len(other.headers)
    answer = here.ok("push", "demo.yaml", f"{other.host}/db", "--json").json

    again = [int(h["Content-Length"]) for h in other.headers[since:] if int(h.get("Content-Length") or 0) > 1 << 20]
    assert again == [len(base[0][big_layer(base)]) - kept]
    assert digest(other.manifests[_tagged(other, "db/demo-r")]) == answer["digest"]
    assert not list((here.folder / "cache/uploads").rglob("*.json"))


def test_an_upload_that_the_registry_forgot_begins_anew(
    demo: Path, home: SmallRegistry, other: SmallRegistry, base: tuple[dict[str, bytes], bytes], tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    here.ok("build", "demo.yaml")
    Uploads(here.store, other.host).note("db/demo-r", big_layer(base), "/v2/db/demo-r/blobs/uploads/gone")

    here.ok("push", "demo.yaml", f"{other.host}/db")

    assert other.blobs["db/demo-r", big_layer(base)] == base[0][big_layer(base)]


def test_two_machines_that_push_at_once_both_succeed(
    demo: Path, home: SmallRegistry, other: SmallRegistry, tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    there = here.copy(tmp_path / "there")
    both = [one.start("push", "demo.yaml", f"{other.host}/db") for one in (here, there)]
    first, second = (ended(process) for process in both)

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.out == second.out


def test_a_tag_that_appears_while_we_push_is_not_moved(other: SmallRegistry, tmp_path: Path) -> None:
    base, built, theirs = Made(tar(entry("base"))), Made(tar(entry("base")), tar(entry("ours"))), Made(tar(entry("theirs")))
    layout(tmp_path / "base", base)
    origin = ask(LayoutName(folder="base"), project=tmp_path, store=Store(tmp_path / "store"))
    own: dict[str, Path | bytes] = {name: data for name, data in built.blobs.items() if name != built.digest}

    def meanwhile(_moved: Moved) -> None:
        other.hold("a/b", "1", theirs)

    with pytest.raises(Refused, match="exists and leads to"):
        push(
            read_manifest(built.manifest, what="x"),
            own,
            origin,
            target_of(f"{other.host}/a/b:1"),
            registry=Registry.at(other.host),
            progress=meanwhile,
        )

    assert other.manifests["a/b", "1"] == theirs.manifest


def test_progress_is_told_blob_by_blob_and_ends_whole(other: SmallRegistry, tmp_path: Path) -> None:
    made = Made(tar(entry("x", secrets.token_bytes(6 << 20))))
    told: list[Moved] = []
    guard = threading.Lock()

    def progress(moved: Moved) -> None:
        with guard:
            told.append(moved)

    own: dict[str, Path | bytes] = {name: data for name, data in made.blobs.items() if name != made.digest}
    push(
        read_manifest(made.manifest, what="x"),
        own,
        None,
        target_of(f"{other.host}/a/b:1"),
        registry=Registry.at(other.host),
        progress=progress,
    )

    assert {m.digest for m in told if m.how == "pushed"} == set(own)
    assert all(m.done == m.size for m in told if m.how)


# -- the command


def test_the_profiles_place_is_used_when_none_is_named_and_again_moves_nothing(
    demo: Path, home: SmallRegistry, other: SmallRegistry, tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    profile = here.folder / "demo.yaml"
    profile.write_text(profile.read_text() + f"\nsnowflake: {{registry_url: {other.host}, image_repo_path: DB/Public/Repo}}\n")
    here.ok("lock", "demo.yaml")

    first = here.ok("push", "demo.yaml")
    since = len(other.asked)
    second = here.ok("push", "demo.yaml")

    assert first.out.startswith(f"{other.host}/db/public/repo/demo-r:v1-")
    assert first.out == second.out
    assert "nothing to push" in second.err
    assert sent(other, since) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing-there.yaml",), "nothing-there.yaml: the profile does not exist"),
        (("demo.yaml", "db/schema"), "`cregraph push db/schema` is not a registry and path (expected HOST/PATH)"),
        (("demo.yaml", "host.example/x:v1"), "`cregraph push host.example/x:v1` contains a tag or digest"),
        (("demo.yaml", "http://host.example/x"), "contains a scheme (expected a host)\nhint: write host.example/x"),
        (("./no/profile",), "`./no/profile` is neither an existing profile nor a registry with a path"),
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(
    demo: Path, home: SmallRegistry, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    done = here.run("push", *words)
    assert done.code == 2
    assert message in done.err


def test_a_place_alone_is_for_the_usual_profile(demo: Path, home: SmallRegistry, other: SmallRegistry, tmp_path: Path) -> None:
    here = machine(demo, tmp_path / "here", home)
    (here.folder / "demo.yaml").rename(here.folder / "cregraph.yaml")
    here.ok("lock")
    assert here.ok("push", f"{other.host}/db").out.startswith(f"{other.host}/db/demo-r:")


# -- plan --remote


def planned(here: Machine, place: str) -> Any:
    return here.ok("plan", "demo.yaml", "--to", place, "--json").json


def test_plan_says_what_a_push_would_move_and_then_that_there_is_nothing_to_do(
    demo: Path, base: tuple[dict[str, bytes], bytes], home: SmallRegistry, other: SmallRegistry, tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    guess = planned(here, f"{other.host}/db")
    here.ok("build", "demo.yaml")
    before = planned(here, f"{other.host}/db")
    near = planned(here, f"{home.host}/db")
    whole = sum(layer["size"] for layer in json.loads(base[1])["layers"])

    assert not guess["push"]["exact"]
    assert guess["fetch"]["base"] == {"layers": len(json.loads(base[1])["layers"]), "bytes": whole}
    assert before["remote"]["state"] == "absent"
    assert (before["push"]["stream"], before["push"]["mount"], before["push"]["exact"]) == (whole, 0, True)
    assert (near["push"]["stream"], near["push"]["mount"]) == (0, whole)

    moved = here.ok("push", "demo.yaml", f"{other.host}/db", "--json").json
    config = json.loads(other.manifests[_tagged(other, "db/demo-r")])["config"]["size"]
    assert before["push"]["bytes"] == moved["bytes"]["pushed"] - moved["bytes"]["streamed"] - config
    after = planned(here, f"{other.host}/db")
    assert (after["remote"]["state"], after["remote"]["digest"]) == ("same", moved["digest"])
    assert (after["push"]["bytes"], after["push"]["stream"]) == (0, 0)
    text = here.ok("plan", "demo.yaml", "--to", f"{other.host}/db").out
    assert f"registry  nothing to do: {moved['image']} has this key" in text
    fresh = here.copy(tmp_path / "fresh")
    assert planned(fresh, f"{other.host}/db")["remote"]["state"] == "same"


def test_equal_digits_and_another_key_are_told_from_the_same_image(
    demo: Path, home: SmallRegistry, other: SmallRegistry, tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    plan = here.ok("plan", "demo.yaml", "--json").json
    taken = plan["key"][:12] + "0" * 52
    labelled = Made(tar(entry("x")), image={"Labels": {"org.cregraph.key": taken}})
    other.hold("db/demo-r", plan["tag"], labelled)

    answer = planned(here, f"{other.host}/db")["remote"]
    text = here.ok("plan", "demo.yaml", "--to", f"{other.host}/db").out

    assert (answer["state"], answer["key"]) == ("other", taken)
    assert "The 12 digits in the tag are the same by chance." in text
    assert "cregraph would refuse to push" in text


def test_the_same_key_with_another_digest_is_said_to_be_wrong(
    demo: Path, home: SmallRegistry, other: SmallRegistry, tmp_path: Path
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    here.ok("build", "demo.yaml")
    plan = here.ok("plan", "demo.yaml", "--json").json
    other.hold("db/demo-r", plan["tag"], Made(tar(entry("x")), image={"Labels": {"org.cregraph.key": plan["key"]}}))

    assert planned(here, f"{other.host}/db")["remote"]["state"] == "differs"
    refused = here.run("push", "demo.yaml", f"{other.host}/db")
    assert refused.code == 1
    assert "exists and leads to" in refused.err


def test_plan_asks_nobody_unless_told_to(demo: Path, home: SmallRegistry, tmp_path: Path) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    asked = len(home.asked)
    here.ok("plan", "demo.yaml")
    assert len(home.asked) == asked
    assert here.run("plan", "demo.yaml", "--remote").code == 2  # the profile states no place


@pytest.mark.parametrize(
    "words", [("push", "demo.yaml", "db/schema"), ("push", "demo.yaml"), ("build", "demo.yaml", "--output", "registry:db")]
)
def test_a_place_that_is_none_is_said_before_anything_is_made(
    demo: Path, home: SmallRegistry, tmp_path: Path, words: tuple[str, ...]
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    assert here.run(*words).code == 2
    assert not (here.folder / "cache/images").exists() and not (here.folder / "cache/segments").exists()


@pytest.mark.parametrize(
    "there",
    [
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":"no"}',
    ],
    ids=["an index without us", "no image"],
)
def test_a_tag_that_leads_to_no_image_of_ours_is_taken_all_the_same(
    demo: Path, home: SmallRegistry, other: SmallRegistry, tmp_path: Path, there: bytes
) -> None:
    here = machine(demo, tmp_path / "here", home)
    here.ok("lock", "demo.yaml")
    name = here.ok("build", "demo.yaml").out.strip().partition("@")[0]
    tag = name.rpartition(":")[2]
    other.manifests["db/demo-r", tag] = other.manifests["db/demo-r", digest(there)] = there
    found = planned(here, f"{other.host}/db")["remote"]

    assert (found["state"], found["digest"], found["key"]) == ("other", digest(there), None)
    assert here.run("push", "demo.yaml", f"{other.host}/db").code == 1


# -- what is remembered


def test_what_a_repository_had_is_a_hint_that_damage_makes_no_worse(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, two = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    remember_pushed(store, "r.example", "a/b", [one])
    remember_pushed(store, "r.example", "a/b", [two, one])
    assert pushed_to(store, "r.example", "a/b") == {one, two}
    assert elsewhere(store, "r.example", "c/d") == {one: "a/b", two: "a/b"}
    assert elsewhere(store, "other.example", "c/d") == {}
    for path in (tmp_path / "pushed").rglob("*.json"):
        path.write_text('{"host": 5}')
    assert pushed_to(store, "r.example", "a/b") == frozenset()
    assert elsewhere(store, "r.example", "c/d") == {}


# -- a real registry


@pytest.mark.docker
def test_an_upload_that_another_process_left_ends_well_at_a_real_registry(tmp_path: Path) -> None:
    """The registry of the distribution project drops an upload whose request was cut, so this one begins anew there."""
    from tests.test_registry import described

    data = secrets.token_bytes(12 << 20)
    path = repository("left")
    registry = Registry.at(os.environ["CREGRAPH_TEST_REGISTRY"])
    begun = Uploads(Store(tmp_path), registry.host)

    class Killed(BaseException):
        pass

    def dying(start: int) -> Iterator[bytes]:
        yield data[start : 6 << 20]
        raise Killed

    def whole(start: int) -> Iterator[bytes]:
        yield data[start:]

    with pytest.raises(Killed):
        registry.upload(path, described(data), dying, begun=begun)
    assert begun.place(path, described(data).digest)
    Registry.at(registry.host).upload(path, described(data), whole, begun=begun)

    assert b"".join(registry.blob(path, described(data))) == data
    assert begun.place(path, described(data).digest) is None
