"""A remote cache: what is believed, what is refused by name, and what many writers leave."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cregraph.build.image_build import Built, build, missing_work
from cregraph.build.rebuild_comparison import compare
from cregraph.digest import canonical
from cregraph.errors import CregraphError, Refused
from cregraph.image.bases.facts_from_layers import facts_of
from cregraph.image.model import segment as segments_of
from cregraph.image.model.manifest import digest_of
from cregraph.image.model.tar_entry import from_bytes
from cregraph.kinds import KINDS
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.outputs import Output, Outputs
from cregraph.lock.pins import Target
from cregraph.plan.layer_split import split
from cregraph.plan.parts import Segment, Task, segment, task
from cregraph.plan.planner import EMBEDDED, Plan
from cregraph.remote_cache.cache_name import cache_named
from cregraph.remote_cache.cache_repository import RemoteCache
from cregraph.remote_cache.cache_transfer import download, download_disputed, find_offer, left_after, upload
from cregraph.sources.routes import Routes, read_routes
from cregraph.store import Store
from cregraph.store.task_records import task_results
from tests.small_registry import SmallRegistry
from tests.test_outputs import a_base, a_build, no_engine, no_fetch

REPOSITORY = "team/cache"


class Compiler:
    """An engine whose tasks leave one file: the task's name and what `salt` says."""

    name = "compiler"

    def __init__(self, salt: str = "") -> None:
        self.salt = salt
        self.done: list[str] = []

    def ahead(self, tasks: object) -> tuple[()]:
        return ()

    def perform(
        self,
        task: Task,
        *,
        inputs: Mapping[str, Path],
        results: Mapping[str, Path],
        write: Callable[[bytes], object],
        log: Path,
        slot: int,
    ) -> None:
        self.done.append(task.name)
        data = f"{task.name}{self.salt}\n".encode()
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            info = tarfile.TarInfo("DESCRIPTION")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        write(out.getvalue())

    def stop(self) -> None:
        pass


@pytest.fixture
def ground(tmp_path: Path) -> tuple[Plan, BaseFacts]:
    """The plan of an image with one file, its lock, and the R package `zoo`, which needs the task `lattice`."""
    made = a_build(base := a_base(Store(tmp_path / "first"), tmp_path), Store(tmp_path / "first"))
    how: dict[str, Any] = {"assembly": 1, "kind": "r", "stage": "hook", "root": "sha256:" + "0" * 64, "env": {}}
    lattice = task(name="lattice", argv=("make", "lattice"), output="/opt/r/lattice", **how)
    zoo = task(name="zoo", argv=("make", "zoo"), output="/opt/r/zoo", results={lattice.key: "/opt/r/lattice"}, **how)
    target = Target(kind="r", place="/opt/r")
    of_zoo = segment(1, target, stage="hook", name="zoo", place={"at": "/opt/r/zoo"}, source=zoo, size=9)
    segments = {**made.plan.segments, of_zoo.key: of_zoo}
    layers = split(tuple(segments.values()), made.plan.planner, KINDS)
    return replace(made.plan, tasks=(lattice, zoo), segments=segments, layers=layers), facts_of(base)


@pytest.fixture
def plan(ground: tuple[Plan, BaseFacts]) -> Plan:
    return ground[0]


@pytest.fixture
def stores(tmp_path: Path) -> Callable[[str], Store]:
    return lambda name: Store(tmp_path / name)


def a_machine(ground: tuple[Plan, BaseFacts], store: Store, *, engine: Any = None, recorded: Any = None) -> Built:
    plan, facts = ground
    engine = engine or Compiler()
    return build(plan, facts, store=store, fetch=no_fetch, engine=lambda: engine, recorded=recorded)


def at(registry: SmallRegistry, *, trusted: bool = False) -> RemoteCache:
    return RemoteCache(registry.host, REPOSITORY, trusted=trusted)


def recorded(plan: Plan, store: Store) -> dict[str, str]:
    return {key: sha256 for key, (sha256, _) in task_results(plan.tasks, store).items()}


def named(plan: Plan, name: str) -> Task:
    return next(one for one in plan.tasks if one.name == name)


@pytest.fixture
def filled(ground: tuple[Plan, BaseFacts], stores: Callable[[str], Store]) -> Any:
    """A registry with the entries of one machine, and what that machine's outputs record."""
    with SmallRegistry() as registry:
        first = stores("one")
        a_machine(ground, first)
        given = upload(ground[0], first, at(registry))
        assert (given.tasks, given.segments, given.conflicts, given.unreachable) == (2, 2, [], "")
        yield registry, recorded(ground[0], first)


def test_a_second_machine_takes_recorded_results_compiles_nothing_and_gets_the_same_image(filled, ground, stores):
    registry, expected = filled
    store = stores("two")
    came = download(ground[0], store, at(registry), expected)

    assert (came.tasks, came.segments, came.refused, came.unreachable) == (1, 0, [], "")  # lattice only helps to make zoo
    made = build(ground[0], ground[1], store=store, fetch=no_fetch, engine=no_engine, recorded=expected)  # type: ignore[arg-type]
    assert made.image.digest == a_machine(ground, stores("one")).image.digest


def test_what_the_store_has_is_not_asked_for(filled, ground, stores):
    registry, expected = filled
    store = stores("two")
    download(ground[0], store, at(registry, trusted=True), expected)
    asked = len(registry.asked)
    came = download(ground[0], store, at(registry, trusted=True), expected)

    assert (came.tasks, came.segments, came.bytes) == (0, 0, 0)
    assert [one for one in registry.asked[asked:] if "/blobs/" in one or "/manifests/" in one] == []


def test_a_result_that_nothing_vouches_for_is_not_even_asked_for(filled, plan, stores):
    registry, _ = filled
    asked = len(registry.asked)
    came = download(plan, stores("two"), at(registry), {})

    assert (came.tasks, came.segments) == (0, 0)
    assert not [one for one in registry.asked[asked:] if "/manifests/" in one]


def test_a_trusted_cache_gives_results_and_segments_on_its_word(filled, ground, stores):
    registry, _ = filled
    store = stores("two")
    came = download(ground[0], store, at(registry, trusted=True), {})

    assert (came.tasks, came.segments) == (1, 2)
    built = build(ground[0], ground[1], store=store, fetch=no_fetch, engine=no_engine)  # type: ignore[arg-type]
    assert built.made["segments"] == 1  # zoo's, packed from the result
    assert built.image.digest == a_machine(ground, stores("one")).image.digest


def test_the_needs_of_a_task_are_fetched_when_the_task_itself_is_missing(filled, ground, stores):
    registry, expected = filled
    zoo = named(ground[0], "zoo")
    del registry.manifests[REPOSITORY, f"t-{zoo.key}"]
    store = stores("two")
    came = download(ground[0], store, at(registry), expected)
    engine = Compiler()
    a_machine(ground, store, engine=engine, recorded=expected)

    assert came.tasks == 1
    assert engine.done == ["zoo"]


def test_a_result_whose_record_was_lost_is_found_in_the_store_by_its_recorded_digest(filled, ground, stores):
    registry, expected = filled
    store = stores("two")
    download(ground[0], store, at(registry), expected)
    store.drop_record("tasks", named(ground[0], "zoo").key)
    came = download(ground[0], store, at(registry), expected)

    assert came.tasks == 0
    assert not missing_work(ground[0], store).tasks


# -- poisoned entries


def gzip_of(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def blobs_of(registry: SmallRegistry, tag: str) -> list[tuple[str, str]]:
    manifest = json.loads(registry.manifests[REPOSITORY, tag])
    return [(REPOSITORY, layer["digest"]) for layer in manifest["layers"]]


def test_bytes_that_are_not_their_digest_are_refused_by_name_and_made_here(filled, ground, stores):
    registry, expected = filled
    place = blobs_of(registry, f"t-{named(ground[0], 'zoo').key}")[0]
    registry.blobs[place] = registry.blobs[place][:-9] + b"\0" + registry.blobs[place][-8:]
    store = stores("two")
    came = download(ground[0], store, at(registry), expected)

    assert len(came.refused) == 1
    assert came.refused[0].startswith(f"task zoo in the cache {registry.host}/{REPOSITORY}")
    assert (came.tasks, came.unreachable) == (1, "")  # lattice, which zoo is made from
    engine = Compiler()
    assert a_machine(ground, store, engine=engine, recorded=expected).image.digest
    assert engine.done == ["zoo"]


def test_a_blob_that_is_gone_is_refused_by_name(filled, plan, stores):
    registry, expected = filled
    del registry.blobs[blobs_of(registry, f"t-{named(plan, 'zoo').key}")[0]]
    came = download(plan, stores("two"), at(registry), expected)

    assert "task zoo" in came.refused[0] and "is not in the cache" in came.refused[0]


@pytest.mark.parametrize("trusted", [False, True])
def test_a_result_that_the_outputs_contradict_is_refused_even_from_a_trusted_cache(filled, ground, stores, trusted):
    """A whole entry of another machine, every digest of it right."""
    registry, expected = filled
    other = stores("evil")
    a_machine(ground, other, engine=Compiler("!"))
    theirs = recorded(ground[0], other)
    zoo = named(ground[0], "zoo")
    with SmallRegistry() as evil:
        upload(ground[0], other, at(evil))
        registry.manifests[REPOSITORY, f"t-{zoo.key}"] = evil.manifests[REPOSITORY, f"t-{zoo.key}"]
        registry.blobs.update(evil.blobs)
    store = stores("two")
    came = download(ground[0], store, at(registry, trusted=trusted), expected)

    assert [zoo.name in came.refused[0], theirs[zoo.key] in came.refused[0], expected[zoo.key] in came.refused[0]] == [True] * 3
    assert store.record("tasks", zoo.key) is None


def test_an_entry_that_was_copied_to_another_key_is_refused(filled, plan, stores):
    registry, _ = filled
    lattice, zoo = named(plan, "lattice"), named(plan, "zoo")
    registry.manifests[REPOSITORY, f"t-{zoo.key}"] = registry.manifests[REPOSITORY, f"t-{lattice.key}"]
    came = download(plan, stores("two"), at(registry, trusted=True), {})

    assert came.refused[0].endswith("is the entry of another key")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(artifactType="application/x"),
        lambda m: m.update(layers=[]),
        lambda m: m.update(annotations=None),
        lambda m: m["annotations"].update({"org.cregraph.sha256": "../x"}),
        lambda m: m["annotations"].update({"org.cregraph.size": "-1"}),
        lambda m: m["annotations"].update({"org.cregraph.size": "1"}),
        lambda m: m["annotations"].update({"org.cregraph.size": "9" * 15}),
        lambda m: m["layers"][0].update(digest="sha256:x"),
        lambda m: m["layers"][0].update(size=-5),
    ],
)
def test_a_manifest_of_another_form_is_refused_and_never_a_traceback(filled, plan, stores, change):
    registry, _ = filled
    tag = f"t-{named(plan, 'zoo').key}"
    manifest = json.loads(registry.manifests[REPOSITORY, tag])
    change(manifest)
    registry.manifests[REPOSITORY, tag] = canonical(manifest)
    store = stores("two")
    came = download(plan, store, at(registry, trusted=True), {})

    assert len(came.refused) == 1 and "task zoo in the cache" in came.refused[0]
    assert store.record("tasks", named(plan, "zoo").key) is None


def a_segment(plan: Plan) -> Segment:
    return next(one for one in plan.segments.values() if one.name == EMBEDDED)


def forged(registry: SmallRegistry, plan: Plan, stores: Callable[[str], Store], **change: Any) -> None:
    """Put a segment into the cache whose file is not as the plan says, everything else of it right."""
    wanted = a_segment(plan)
    store = stores("forger")
    field: dict[str, Any] = {"path": EMBEDDED.lstrip("/"), "uid": 0, "gid": 0, **change}

    data = str(wanted.place["text"]).encode()
    entry = from_bytes(field.pop("path"), data, **field)
    record = segments_of.write([entry], store, wanted.key, 1)
    for tag in [name for name in registry.manifests if name[1].startswith("s-")]:
        del registry.manifests[tag]
    assert isinstance(at(registry).upload_segment(wanted, store, record), int)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "etc/passwd"}, "which is not below /opt/cregraph/lock.json"),
        ({"uid": 1000}, "is owned by 1000:0 (expected 0:0)"),
        ({"mode": 0o4755}, "is not in the form that cregraph writes"),
    ],
)
def test_a_segment_that_leaves_its_place_in_the_plan_is_refused_by_name(filled, plan, stores, change, said):
    registry, _ = filled
    forged(registry, plan, stores, **change)
    store = stores("two")
    came = download(plan, store, at(registry, trusted=True), {})

    assert len(came.refused) == 1 and EMBEDDED in came.refused[0] and said in came.refused[0]
    assert segments_of.read(store, a_segment(plan).key) is None


def test_a_segment_whose_index_tells_of_other_bytes_is_refused(filled, plan, stores):
    registry, _ = filled
    tag = f"s-{a_segment(plan).key}"
    manifest = json.loads(registry.manifests[REPOSITORY, tag])
    index = registry.blobs[REPOSITORY, manifest["layers"][1]["digest"]]
    row = json.loads(index)[0]
    other = index.replace(row[6].encode(), b"0" * 64)
    manifest["layers"][1].update(digest=digest_of(other), size=len(other))
    registry.blobs[REPOSITORY, digest_of(other)] = other
    registry.manifests[REPOSITORY, tag] = canonical(manifest)
    store = stores("two")
    came = download(plan, store, at(registry, trusted=True), {})

    assert "does not match its index" in came.refused[0]
    assert segments_of.read(store, a_segment(plan).key) is None


# -- writers


def test_the_first_write_wins_and_a_differing_second_is_an_incident_with_both_kept(filled, ground, stores):
    registry, expected = filled
    plan = ground[0]
    before = dict(registry.manifests)
    other = stores("two")
    a_machine(ground, other, engine=Compiler("!"))
    given = upload(plan, other, at(registry))

    assert [one.what for one in given.conflicts] == ["task lattice", "task zoo"]
    zoo = given.conflicts[1]
    assert (zoo.theirs, zoo.ours) == (expected[zoo.key], recorded(plan, other)[zoo.key])
    assert {tag: registry.manifests[tag] for tag in before} == before
    assert (REPOSITORY, zoo.tag) in registry.manifests


def test_what_is_there_is_not_written_again(filled, ground, stores):
    registry, _ = filled
    asked = len(registry.asked)
    given = upload(ground[0], stores("one"), at(registry))

    assert (given.there, given.tasks, given.segments, given.bytes) == (4, 0, 0, 0)
    assert not [one for one in registry.asked[asked:] if one.startswith(("PUT", "POST", "PATCH"))]


def test_a_writer_that_comes_between_is_noticed_by_reading_back(ground, stores):
    plan = ground[0]
    mine, other = stores("mine"), stores("other")
    a_machine(ground, mine)
    a_machine(ground, other, engine=Compiler("!"))
    tag = f"t-{named(plan, 'zoo').key}"
    with SmallRegistry() as elsewhere, SmallRegistry() as registry:
        upload(plan, other, at(elsewhere))
        registry.overruled[tag] = elsewhere.manifests[REPOSITORY, tag]
        registry.blobs.update(elsewhere.blobs)
        given = upload(plan, mine, at(registry))

    assert [one.what for one in given.conflicts] == ["task zoo"]
    assert given.conflicts[0].theirs == recorded(plan, other)[named(plan, "zoo").key]


def test_many_writers_of_the_same_results_leave_one_entry_each_and_no_incident(ground, stores):
    plan = ground[0]
    with SmallRegistry() as registry:
        found = []

        def one(number: int) -> None:
            store = stores(f"w{number}")
            a_machine(ground, store)
            found.append(upload(plan, store, at(registry)))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [(given.conflicts, given.unreachable) for given in found] == [([], "")] * 6
        tags = sorted(name for _, name in registry.manifests if not name.startswith("sha256:"))
        assert len(tags) == 4
        assert download(plan, stores("reader"), at(registry, trusted=True), {}).refused == []


def test_a_result_that_unpacks_to_more_than_is_recorded_is_not_unpacked(filled, ground, stores):
    """Its sha256 is right by what it says, and its bytes would fill the disk before anybody could tell."""
    registry, expected = filled
    zoo = named(ground[0], "zoo")
    tag = (REPOSITORY, f"t-{zoo.key}")
    manifest = json.loads(registry.manifests[tag])
    bomb = gzip_of(bytes(64 << 20))
    registry.blobs[REPOSITORY, digest_of(bomb)] = bomb
    manifest["layers"][0] |= {"digest": digest_of(bomb), "size": len(bomb)}
    manifest["annotations"]["org.cregraph.size"] = str(60 << 20)
    registry.manifests[tag] = canonical(manifest)
    sizes = {key: size for key, (_, size) in task_results(ground[0].tasks, stores("one")).items()}
    registry.asked.clear()
    came = download(ground[0], stores("two"), at(registry), expected, sizes)

    assert f"gives {60 << 20} bytes, but the recorded outputs have {sizes[zoo.key]}" in came.refused[0]
    assert not any(digest_of(bomb) in str(one) for one in registry.asked)


def test_a_result_that_its_blob_cannot_hold_is_refused_before_it_is_fetched(filled, ground, stores):
    registry, _ = filled
    tag = (REPOSITORY, f"t-{named(ground[0], 'zoo').key}")
    manifest = json.loads(registry.manifests[tag])
    manifest["annotations"]["org.cregraph.size"] = str(1 << 40)
    registry.manifests[tag] = canonical(manifest)
    came = download(ground[0], stores("two"), at(registry, trusted=True), {})

    assert "compressed bytes cannot contain" in came.refused[0]


def test_a_trusted_cache_does_not_silently_replace_what_this_store_made(filled, ground, stores):
    registry, expected = filled
    zoo = named(ground[0], "zoo")
    store = stores("two")
    store.put_record("tasks", zoo.key, {"sha256": "e" * 64, "size": 3})  # its object was lost
    came = download(ground[0], store, at(registry, trusted=True), {})

    assert f"but it gave sha256:{'e' * 64} here before" in came.refused[0]
    assert download(ground[0], store, at(registry), expected).tasks == 1  # what is recorded beside the lock decides


def test_a_recorded_result_that_the_store_contradicts_is_brought_to_compare_with(filled, ground, stores, tmp_path):
    registry, expected = filled
    plan, store = ground[0], stores("evil")
    a_machine(ground, store, engine=Compiler("!"))
    outputs = Outputs(
        tasks={
            key: Output(name="x", sha256=sha, size=size) for key, (sha, size) in task_results(plan.tasks, stores("one")).items()
        }
    )
    mine = recorded(plan, store)

    download_disputed(plan, store, at(registry), outputs)
    assert recorded(plan, store) == mine  # it is only looked at
    found = compare(plan, store, store, expected, keep=tmp_path / "kept").differences
    assert {one.name for one in found if one.what == "recorded"} == {"lattice", "zoo"}
    assert all(one.findings[0].path == "DESCRIPTION" and one.kept for one in found)


# -- what a cache offers, before a build


def test_what_a_plan_counts_on_is_what_a_build_then_gets(filled, ground, stores):
    registry, expected = filled
    plan, store = ground[0], stores("two")
    work = missing_work(plan, store)
    for cache, vouched in ((at(registry), expected), (at(registry), {}), (at(registry, trusted=True), {})):
        stored = stores(f"after {cache.trusted} {len(vouched)}")
        found = find_offer(plan, work, cache, vouched)
        came = download(plan, stored, cache, vouched)
        after = missing_work(plan, stored)

        assert (len(found.tasks), len(found.segments)) == (came.tasks, came.segments)
        left = left_after(plan, work, found)
        assert [one.key for one in left.tasks] == [one.key for one in after.tasks]
        assert left.artifacts == after.artifacts
        assert {one.key for one in left.segments} - {named_segment(plan, "zoo").key} == {one.key for one in after.segments} - {
            named_segment(plan, "zoo").key
        }
    assert not (store.root / "tasks").exists()


def named_segment(plan: Plan, name: str) -> Segment:
    return next(one for one in plan.segments.values() if one.name == name)


def test_what_outputs_contradict_or_nobody_answers_is_not_counted_on(filled, ground, stores):
    registry, expected = filled
    plan = ground[0]
    work = missing_work(plan, stores("two"))
    assert not find_offer(plan, work, at(registry), dict.fromkeys(expected, "e" * 64)).tasks
    registry.fail["GET"] = 10_000
    assert find_offer(plan, work, at(registry), expected).unreachable


# -- a registry that does not answer


def test_a_registry_that_is_down_is_left_out_with_its_reason(ground, stores):
    with SmallRegistry() as registry:
        host = registry.host
    cache = RemoteCache(host, REPOSITORY, trusted=True)
    store = stores("two")
    came = download(ground[0], store, cache, {})
    a_machine(ground, store)
    given = upload(ground[0], store, cache)

    assert host in came.unreachable and (came.tasks, came.refused) == (0, [])
    assert host in given.unreachable and given.tasks == 0


def test_a_registry_that_fails_in_the_middle_is_not_asked_again(filled, ground, stores):
    registry, expected = filled
    cache = at(registry, trusted=True)
    cache.ping()
    registry.fail["GET"] = 10_000
    asked = len(registry.asked)
    came = download(ground[0], stores("two"), cache, expected)

    assert came.unreachable
    assert len(registry.asked) - asked == 3  # one question and its two further tries


def test_a_registry_that_may_be_read_but_not_written_says_so(filled, ground, stores):
    registry, _ = filled
    registry.auth = "basic"
    given = upload(ground[0], stores("one"), at(registry))

    assert "login" in given.unreachable


# -- names


SOURCES = """\
registry: {acct: {host: acct.registry.example}, plain: {host: cache.example, plain_http: true}}
cache:
  team: {ref: registry:acct/Db/Cache, trusted: true}
  loose: cache.example/c
"""


@pytest.mark.parametrize(
    ("text", "name", "trusted"),
    [
        ("team", "acct.registry.example/db/cache", True),
        ("registry:acct/db/cache", "acct.registry.example/db/cache", True),
        ("acct.registry.example/db/cache/", "acct.registry.example/db/cache", True),
        ("acct.registry.example/db/other", "acct.registry.example/db/other", False),
        ("loose", "cache.example/c", False),
        ("localhost:5000/x", "localhost:5000/x", False),
    ],
)
def test_a_cache_is_named_by_name_registry_or_host_and_only_sources_can_trust_it(tmp_path, text, name, trusted):
    routes = read_routes(SOURCES, name="sources.yaml", folder=tmp_path)
    cache = cache_named(text, routes)
    assert (cache.name, cache.trusted) == (name, trusted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("taem", "does not name a cache"),
        ("registry:nobody/x", "unknown registry `nobody`"),
        ("registry:acct", "names no path"),
        ("cache.example/c:tag", "a cache is a repository"),
        ("cache.example/c d", "is not a repository's name"),
        ("http://cache.example/c", "host"),
    ],
)
def test_what_names_no_cache_is_said_with_the_option(tmp_path, text, said):
    routes = read_routes(SOURCES, name="sources.yaml", folder=tmp_path)
    with pytest.raises(CregraphError, match=said) as caught:
        cache_named(text, routes, option="--cache-write")
    assert f"`--cache-write {text}`" in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["cache: [x]", "cache: {t: {trusted: true}}", "cache: {t: {ref: a/b, trusted: yes please}}", "cache: {t: {ref: a/b, x: 1}}"],
)
def test_a_cache_in_sources_that_is_none_is_said_with_its_field(tmp_path, text):
    with pytest.raises(CregraphError, match=r"sources\.yaml: cache"):
        read_routes(text, name="sources.yaml", folder=tmp_path)


def test_routes_without_caches_know_none() -> None:
    with pytest.raises(CregraphError, match="does not name a cache"):
        cache_named("team", Routes())


# -- results that are damaged, contradicted or have no room


def test_a_recorded_result_that_is_damaged_in_the_store_is_fetched(filled, ground, stores):
    registry, expected = filled
    store = stores("two")
    download(ground[0], store, at(registry), expected)
    zoo = named(ground[0], "zoo").key
    path = store.path_of(expected[zoo])
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    store.drop_record("tasks", zoo)
    came = download(ground[0], stores("two"), at(registry), expected)

    assert came.tasks == 1
    assert stores("two").verified(expected[zoo])


def test_a_task_that_gives_something_else_than_recorded_is_refused_and_not_kept(ground, stores):
    plan = ground[0]
    a_machine(ground, stores("one"))
    store = stores("two")
    with pytest.raises(Refused, match=r"task lattice gave sha256:[0-9a-f]{64}, but the recorded outputs have"):
        a_machine(ground, store, engine=Compiler("!"), recorded=recorded(plan, stores("one")))
    assert task_results(plan.tasks, store) == {}


def test_a_full_disk_is_said_and_is_no_reason_to_leave_a_cache_out(filled, ground):
    registry, expected = filled
    full = Store(Path("/dev/full") / "store")
    with pytest.raises(CregraphError, match="the store at /dev/full"):
        download(ground[0], full, at(registry, trusted=True), expected)
