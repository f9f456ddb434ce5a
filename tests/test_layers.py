"""Preambles, splitting and layers: what is in a layer follows from the plan, and the base stays as it was."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cregraph.digest import ASSEMBLY, key_of
from cregraph.errors import CregraphError
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.layer import LayerRecord, assemble, read, settle
from cregraph.image.model.preamble import check, preamble
from cregraph.image.model.segment import SegmentRecord, directories, index, members_of, write
from cregraph.image.model.tar_entry import Entry, from_bytes
from cregraph.kinds import KINDS
from cregraph.lock.base_facts import BaseFacts, DirFact
from cregraph.plan.layer_split import LIMIT, LayerPlan, Planner, split
from cregraph.plan.parts import Segment
from cregraph.store import Store

JUPYTER = {"/home/jupyter": (1000, 100)}
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def a_base(**changes: object) -> BaseFacts:
    """A base with odd modes, a user's home and links."""
    values: dict[str, object] = {
        "digest": "sha256:" + "0" * 64,
        "config": {},
        "layers": (),
        "glibc": "2.36",
        "users": {},
        "python": None,
        "directories": {
            "/": DirFact(mode=0o755, uid=0, gid=0, mtime=1),
            "/root": DirFact(mode=0o700, uid=0, gid=0, mtime=1700000001),
            "/tmp": DirFact(mode=0o1777, uid=0, gid=0, mtime=1700000002),
            "/home": DirFact(mode=0o755, uid=0, gid=0, mtime=1700000003),
            "/home/jupyter": DirFact(mode=0o2750, uid=1000, gid=100, mtime=1700000004),
            "/usr": DirFact(mode=0o755, uid=0, gid=0, mtime=1700000005),
            "/usr/lib": DirFact(mode=0o755, uid=0, gid=0, mtime=1700000006),
        },
        "links": {"/lib": "usr/lib", "/opt": "/usr/opt", "/loop": "loop/x"},
        "files": frozenset({"/usr/lib/libc.so.6", "/home/jupyter/.bashrc"}),
    }
    return BaseFacts(**{**values, **changes})  # type: ignore[arg-type]


def a_planner(**changes: object) -> Planner:
    values: dict[str, object] = {"assembly": ASSEMBLY, "base": "sha256:" + "0" * 64, "owners": JUPYTER, "base_layers": 10}
    return Planner(**{**values, **changes})  # type: ignore[arg-type]


def a_segment(name: str, *, group: str = "conda:/home/jupyter/micromamba", size: int = 1000, of: object = None) -> Segment:
    kind = group.partition(":")[0]
    return Segment(key=key_of([name, group, size, of]), kind=kind, stage="r", name=name, group=group, place={}, size=size)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def made(
    store: Store, contents: Mapping[str, Sequence[Entry]], **settings: str
) -> tuple[list[Segment], dict[str, SegmentRecord]]:
    """Segments by name, written."""
    segments = [a_segment(name, of=repr(sorted(e.path for e in entries)), **settings) for name, entries in contents.items()]
    records = {
        segment.key: write(entries, store, segment.key, ASSEMBLY)
        for segment, entries in zip(segments, contents.values(), strict=True)
    }
    return segments, records


def layer_of(store: Store, contents: Mapping[str, Sequence[Entry]], facts: BaseFacts | None = None) -> LayerRecord:
    segments, records = made(store, contents)
    planner = a_planner()
    return assemble(planner.layer("all", segments), records, facts or a_base(), planner, store)


def uncompressed(store: Store, record: LayerRecord) -> bytes:
    return gzip.decompress(store.verified(record.object).read_bytes())


# -- the preamble


def test_directories_of_the_base_are_as_the_base_has_them_and_new_ones_belong_to_the_home_they_are_in():
    found = preamble(["root", "tmp", "home/jupyter", "home", "home/jupyter/r/lib", "home/jupyter/r", "srv"], a_base(), JUPYTER)

    assert [(path, d.mode, d.uid, d.gid, d.mtime) for path, d in found.items()] == [
        ("home", 0o755, 0, 0, 1700000003),
        ("home/jupyter", 0o2750, 1000, 100, 1700000004),
        ("home/jupyter/r", 0o755, 1000, 100, tar.MTIME),
        ("home/jupyter/r/lib", 0o755, 1000, 100, tar.MTIME),
        ("root", 0o700, 0, 0, 1700000001),
        ("srv", 0o755, 0, 0, tar.MTIME),
        ("tmp", 0o1777, 0, 0, 1700000002),
    ]


def test_an_owner_counts_for_whole_components_and_the_nearest_wins():
    owners = {"/home/jupyter": (1, 1), "/home/jupyter/deep/er": (2, 2), "/": (3, 3)}

    found = preamble(["home/jupyterlab", "home/jupyter/deep", "home/jupyter/deep/er/x"], a_base(directories={}), owners)

    assert [(path, d.uid) for path, d in found.items()] == [
        ("home/jupyter/deep", 1),
        ("home/jupyter/deep/er/x", 2),
        ("home/jupyterlab", 3),
    ]


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        (
            "lib/x86/libz.so",
            "`zlib` writes below `/lib`, which is a symbolic link of the base image to `usr/lib`",
            "write the real destination, because image stores would replace the link by a directory: `/usr/lib`",
        ),
        ("loop/a", "`zlib` writes below `/loop`, which is a symbolic link of the base image to `loop/x`", "nowhere: "),
        ("home/jupyter/.bashrc/x", "`zlib` writes below `/home/jupyter/.bashrc`, which is a file of the base image", None),
        (
            "usr/lib/libc.so.6",
            "`zlib` would replace `/usr/lib/libc.so.6`, a file of the base image",
            "choose another destination",
        ),
        ("lib", "`zlib` would replace `/lib`, a symbolic link of the base image", "choose another destination"),
        ("tmp", "`zlib` would replace `/tmp`, a directory of the base image", "choose another destination"),
    ],
)
def test_nothing_of_the_base_is_replaced(store, path, message, hint):
    (segment,), records = made(store, {"zlib": [from_bytes(path, b"")]})
    rows = index(store, records[segment.key])

    with pytest.raises(CregraphError) as caught:
        check(directories(rows), rows, a_base(), "zlib")

    assert str(caught.value) == message
    assert (hint is None and caught.value.hint is None) or (hint or "") in (caught.value.hint or "")


# -- splitting

packages = st.dictionaries(
    st.text("abcdefghij-", min_size=1, max_size=6),
    st.tuples(st.sampled_from(["conda:/p", "r:/p/lib", "python:/q", "file:", "archive:"]), st.integers(0, 40 << 20)),
    max_size=30,
).map(lambda found: [a_segment(name, group=group, size=size) for name, (group, size) in found.items()])


@given(segments=packages, seed=st.integers(0, 99))
@quick
def test_every_segment_is_in_one_layer_whatever_the_order(segments, seed):
    layers = split(segments, a_planner(), KINDS)

    assert split(random.Random(seed).sample(segments, k=len(segments)), a_planner(), KINDS) == layers
    assert sorted(s.key for plan in layers for s in plan.segments) == sorted(s.key for s in segments)
    assert len({plan.name for plan in layers}) == len(layers)
    for plan in layers:
        assert len({s.group for s in plan.segments}) == 1
        assert [s.name for s in plan.segments] == sorted(s.name for s in plan.segments)
        assert len(plan.segments) == 1 or all(s.size < 8 << 20 for s in plan.segments)


@given(segments=packages, more=st.integers(0, 40 << 20))
@quick
def test_a_package_that_comes_or_goes_changes_no_layer_but_its_own(segments, more):
    before = {plan.key: plan for plan in split(segments, a_planner(), KINDS)}
    after = {plan.key: plan for plan in split([*segments, a_segment("zz-new", size=more)], a_planner(), KINDS)}

    gone = [before[key] for key in before.keys() - after.keys()]
    new = [after[key] for key in after.keys() - before.keys()]

    assert len(new) == 1
    assert len(gone) <= 1
    assert {s.key for plan in gone for s in plan.segments} < {s.key for plan in new for s in plan.segments} or not gone


def test_a_layers_key_covers_assembly_segments_base_and_owners_and_not_its_name():
    one, two = a_segment("a"), a_segment("b")
    key = a_planner().layer("x", [one, two]).key

    assert a_planner().layer("another name", [two, one]).key == key
    assert a_planner(base_layers=3, limit=20).layer("x", [one, two]).key == key
    assert a_planner().layer("x", [one]).key != key
    assert a_planner(assembly=2).layer("x", [one, two]).key != key
    assert a_planner(base="sha256:" + "1" * 64).layer("x", [one, two]).key != key
    assert a_planner(owners={}).layer("x", [one, two]).key != key


def test_the_limit_of_layers_is_kept_by_letting_fewer_packages_stand_alone_then_by_fewer_buckets():
    big = [a_segment(f"big{i}", size=9 << (20 + i % 6)) for i in range(120)]
    small = [a_segment(f"small{i}", group=f"r:/{i % 4}") for i in range(200)]

    roomy = split([*big, *small], a_planner(base_layers=0, limit=1000), KINDS)
    tight = split([*big, *small], a_planner(base_layers=10), KINDS)
    tighter = split([*big, *small], a_planner(base_layers=110), KINDS)
    tightest = split([*big, *small], a_planner(base_layers=122), KINDS)

    assert 120 + 4 * 14 <= len(roomy) <= 120 + 4 * 16
    assert 10 + len(tight) <= LIMIT
    alone = {plan.segments[0].size for plan in tight if " big" in plan.name}
    assert alone == {9 << 25}
    assert 110 + len(tighter) <= LIMIT
    assert [plan.name for plan in tightest] == ["conda:/home/jupyter/micromamba", "r:/0", "r:/1", "r:/2", "r:/3"]
    with pytest.raises(CregraphError, match="the image would have 128 layers, 123 of them the base's; image stores accept 127"):
        split([*big, *small], a_planner(base_layers=123), KINDS)


def test_what_changes_often_comes_last():
    groups = ["file:", "python:/q", "r:/l", "conda:/p", "archive:"]

    layers = split([a_segment("x", group=group) for group in groups], a_planner(), KINDS)

    assert [plan.segments[0].group for plan in layers] == ["conda:/p", "r:/l", "python:/q", "archive:", "file:"]


def test_segments_of_one_key_are_one():
    one = a_segment("a")
    again = Segment(key=one.key, kind="conda", stage="other", name="a", group=one.group, place={}, size=1000)

    (plan,) = split([one, again], a_planner(), KINDS)

    assert plan == split([again, one], a_planner(), KINDS)[0]
    assert len(plan.segments) == 1


# -- layers

contents = st.dictionaries(
    st.text("abcxyz", min_size=1, max_size=8),
    st.dictionaries(st.text("defgh", min_size=1, max_size=4), st.binary(max_size=4000), max_size=5),
    max_size=5,
)


@given(packages=contents)
@quick
def test_segments_that_were_joined_are_the_layer_made_in_one_piece(packages, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("s"))
    entries = {
        name: [from_bytes(f"home/jupyter/{name}/{file}", data) for file, data in files.items()]
        for name, files in packages.items()
    }
    segments, records = made(store, entries)
    planner = a_planner()
    plan = planner.layer("all", segments)

    record = assemble(plan, records, a_base(), planner, store)

    needed = {d for s in segments for d in directories(index(store, records[s.key]))}
    folders = preamble(needed, a_base(), JUPYTER)
    whole = b"".join(
        tar.header(path=path, type="directory", mode=d.mode, uid=d.uid, gid=d.gid, mtime=d.mtime) for path, d in folders.items()
    )
    for segment in plan.segments:
        whole += b"".join(content for _, content in members_of(store, records[segment.key]))
    whole += tar.END
    blob = store.verified(record.object).read_bytes()
    assert record.diff_id == f"sha256:{hashlib.sha256(whole).hexdigest()}"
    assert record.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert record.size == len(blob)
    assert gzip.decompress(blob) == whole
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        listed = [member.name for member in archive]
    assert len(listed) == len(set(listed))
    assert sorted(listed) == sorted(needed | {e.path for files in entries.values() for e in files})


def test_a_layer_that_is_there_is_not_made_again_and_one_that_is_gone_is(store):
    segments, records = made(store, {"a": [from_bytes("srv/a", b"1")]})
    planner = a_planner()
    plan = planner.layer("x", segments)
    first = assemble(plan, records, a_base(), planner, store)
    for record in records.values():  # not even read
        store.path_of(record.object).unlink()
        store.path_of(record.index).unlink()

    assert read(store, plan.key) == first
    assert assemble(plan, records, a_base(), planner, store) == first

    store.path_of(first.object).unlink()
    assert read(store, plan.key) is None
    records = {s.key: write([from_bytes("srv/a", b"1")], store, s.key, ASSEMBLY) for s in segments}
    assert assemble(plan, records, a_base(), planner, store) == first


def test_a_segment_that_was_made_anew_with_other_bytes_is_not_hidden_by_an_old_layer(store):
    (segment,), records = made(store, {"a": [from_bytes("srv/a", b"1")]})
    planner = a_planner()
    plan = planner.layer("x", [segment])
    first = assemble(plan, records, a_base(), planner, store)

    second = assemble(
        plan, {segment.key: write([from_bytes("srv/a", b"2")], store, segment.key, ASSEMBLY)}, a_base(), planner, store
    )

    assert first.digest != second.digest


def test_a_flipped_byte_of_a_segment_reaches_no_layer(store):
    (segment,), records = made(store, {"a": [from_bytes("srv/a", b"1" * 9999)]})
    path = store.path_of(records[segment.key].object)
    data = bytearray(path.read_bytes())
    data[4] ^= 1  # the header's time: inflating does not notice
    path.chmod(0o644)
    path.write_bytes(data)
    planner = a_planner()
    plan = planner.layer("x", [segment])
    objects = set(store.root.glob("sha256/*/*"))

    with pytest.raises(CregraphError, match="in the store is damaged"):
        assemble(plan, records, a_base(), planner, store)

    assert read(store, plan.key) is None
    assert set(store.root.glob("sha256/*/*")) == objects


def test_a_layer_writes_nothing_through_links_of_the_base(store):
    with pytest.raises(CregraphError, match="`zlib` writes below `/lib`, which is a symbolic link"):
        layer_of(store, {"zlib": [from_bytes("lib/libz.so", b"")]})


def test_no_path_stands_twice_in_a_layer(store):
    with pytest.raises(CregraphError) as caught:
        layer_of(store, {"one": [from_bytes("srv/a", b"1")], "two": [from_bytes("srv/a", b"1"), from_bytes("srv/b", b"")]})

    group = "conda:/home/jupyter/micromamba"
    assert str(caught.value) == f"`/srv/a` belongs to `one` ({group}) and to `two` ({group}): a path must not be in a layer twice"


# -- whole images


def settled(store: Store, layers: Sequence[Mapping[str, Sequence[Entry]]], **planning: int) -> list[list[str]]:
    planner = a_planner(**planning)
    plans: list[LayerPlan] = []
    records: dict[str, SegmentRecord] = {}
    for contents in layers:
        segments, more = made(store, contents)
        records |= more
        plans.append(planner.layer("x", segments))
    return [[s.name for s in plan.segments] for plan in settle(plans, records, planner, store)]


def test_equal_files_of_different_layers_both_stay(store):
    layers = [{"one": [from_bytes("srv/a", b"1")]}, {"two": [from_bytes("srv/a", b"1")]}]

    assert settled(store, layers) == [["one"], ["two"]]


def test_of_equal_files_in_one_layer_the_later_segment_gets_a_layer_of_its_own(store):
    layers = [
        {"one": [from_bytes("srv/a", b"1")], "three": [from_bytes("srv/c", b"")], "two": [from_bytes("srv/a", b"1")]},
        {"z": []},
    ]

    assert settled(store, layers) == [["one", "three"], ["z"], ["two"]]
    assert settled(store, layers) == [["one", "three"], ["z"], ["two"]], "remembered"


def test_layers_that_were_moved_apart_still_count_towards_the_limit(store):
    layers = [{"one": [from_bytes("srv/a", b"1")], "two": [from_bytes("srv/a", b"1")]}]

    with pytest.raises(CregraphError, match="127 layers, 125 of them the base's; image stores accept 126"):
        settled(store, layers, base_layers=125, limit=126)


@pytest.mark.parametrize(
    ("one", "two", "how"),
    [
        (from_bytes("srv/a", b"1"), from_bytes("srv/a", b"2"), "with different content"),
        (from_bytes("srv/a", b"1"), from_bytes("srv/a", b"1", mode=0o755), "with modes 0644 and 0755"),
        (from_bytes("srv/a", b"1"), from_bytes("srv/a", b"1", gid=7), "owned by 0:0 and by 0:7"),
        (from_bytes("srv/a", b"1"), Entry(path="srv/a", type="symlink", link="b"), "a file and a symlink"),
        (
            Entry(path="srv/a", type="symlink", link="c"),
            Entry(path="srv/a", type="symlink", link="b"),
            "links to `c` and to `b`",
        ),
        (from_bytes("srv/a", b"1"), from_bytes("srv/a/b", b"1"), "a file or link of one, a directory of the other"),
        (
            Entry(path="srv/a", type="symlink", link="c"),
            from_bytes("srv/a/b", b"1"),
            "a file or link of one, a directory of the other",
        ),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_two_owners_of_a_path_are_an_error_that_names_both(store, one, two, how, apart):
    layers = [{"one": [one]}, {"two": [two]}] if apart else [{"one": [one], "two": [two]}]

    with pytest.raises(CregraphError) as caught:
        settled(store, layers)

    group = "conda:/home/jupyter/micromamba"
    assert str(caught.value) == f"`/srv/a` belongs to `one` ({group}) and to `two` ({group}): {how}"
