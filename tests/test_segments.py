"""Tar form, gzip members and segments: equal entries give equal bytes, and hostile ones are refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cregraph.digest import ASSEMBLY
from cregraph.errors import CregraphError
from cregraph.image.model import gzip_members
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.gzip_members import MEMBER, compress, inflate
from cregraph.image.model.segment import directories, index, members_of, read, write
from cregraph.image.model.segment_files import unpack
from cregraph.image.model.tar_entry import Entry, from_bytes
from cregraph.store import Store

KEY = "ab" * 32

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=90).filter(
    lambda name: name not in (".", "..") and not name.startswith(".wh.")
)
paths = st.lists(names, min_size=1, max_size=5).map("/".join)
ids = st.integers(0, 1 << 31)


@st.composite
def entry_sets(draw: st.DrawFn) -> list[Entry]:
    """Files and links at different paths, none of them below another."""
    found = draw(st.lists(paths, min_size=0, max_size=8, unique=True))
    free = [p for p in found if not any(other != p and p.startswith(other + "/") for other in found)]
    entries: list[Entry] = []
    for path in free:
        what = draw(st.sampled_from(["file", "file", "symlink", "hardlink"]))
        uid, gid, mode = draw(ids), draw(ids), draw(st.integers(0, 0o7777))
        if what == "file" or (what == "hardlink" and not entries):
            entries.append(from_bytes(path, draw(st.binary(max_size=2000)), mode=mode, uid=uid, gid=gid))
        elif what == "symlink":
            text = draw(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300))
            entries.append(Entry(path=path, type="symlink", uid=uid, gid=gid, link=text))
        else:
            entries.append(Entry(path=path, type="hardlink", link=draw(st.sampled_from(entries)).path))
    return entries


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def tar_bytes(store: Store, key: str = KEY) -> bytes:
    record = read(store, key)
    assert record is not None
    return b"".join(content for _, content in members_of(store, record))


def as_tarfile(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data + tar.END)) as archive:
        return {member.name: member for member in archive}


# -- the tar form


@given(
    path=paths,
    link=paths,
    mode=st.integers(0, 0o7777),
    uid=ids,
    gid=ids,
    mtime=st.integers(-(1 << 33), 1 << 35),
    kind=st.sampled_from(["file", "symlink", "hardlink", "directory"]),
)
@quick
def test_any_entry_is_read_by_tarfile_as_it_was_written(path, link, mode, uid, gid, mtime, kind):
    data = tar.header(path=path, type=kind, mode=mode, uid=uid, gid=gid, link=link, mtime=mtime)

    (member,) = as_tarfile(data).values()

    assert len(data) % tar.BLOCK == 0
    assert (member.name.rstrip("/"), member.uid, member.gid) == (path.rstrip("/"), uid, gid)
    assert member.mode == (0o777 if kind == "symlink" else mode)
    assert int(member.mtime) == mtime
    assert (member.uname, member.gname) == ("", "")
    assert member.linkname == link
    assert (member.isfile(), member.issym(), member.islnk(), member.isdir()) == tuple(
        kind == k for k in ("file", "symlink", "hardlink", "directory")
    )


@pytest.mark.parametrize("size", [0, 1, (8 << 30) - 1, 8 << 30, 20 << 30])
def test_sizes_beyond_eight_gibibytes_have_a_pax_record_and_smaller_ones_none(size):
    data = tar.header(path="big", size=size)

    member = tarfile.TarInfo.frombuf(data[-512:], "utf-8", "strict")
    records = data[512:-512].rstrip(b"\0")

    assert len(data) == (512 if size < 8 << 30 else 3 * 512)
    assert member.size == (size if size < 8 << 30 else 0)
    assert records == (b"" if size < 8 << 30 else f"{len(f'00 size={size}') + 1} size={size}\n".encode())


def test_the_header_bytes_of_assembly_1_never_change():
    """A digest is made of these bytes; a change needs another assembly."""
    data = tar.header(path="home/jupyter/é" + "x" * 300, mode=0o755, uid=1000, gid=3000000, size=9)
    data += tar.header(path="lib64/libx.so", type="symlink", link="libx.so.1")

    assert hashlib.sha256(data).hexdigest() == "093da71ff63a116c4b81eebbd989fc78dcc9eb8791e1fd4d087af48478fa5096"


@pytest.mark.parametrize(
    "wrong", [{"path": ""}, {"path": "a\0b"}, {"path": "\udce9"}, {"mode": 0o10000}, {"uid": -1}, {"size": -1}]
)
def test_what_no_header_can_hold_is_a_value_error(wrong):
    with pytest.raises(ValueError):
        tar.header(**{"path": "a", **wrong})


# -- the members


def test_the_compressor_gives_the_bytes_that_digests_are_made_of():
    gzip_members.check_compressor.cache_clear()

    gzip_members.check_compressor()


def test_a_compressor_with_other_bytes_is_refused_before_it_is_used(monkeypatch):
    monkeypatch.setattr(gzip_members, "_LEVEL", 2)
    gzip_members.check_compressor.cache_clear()

    with pytest.raises(CregraphError, match="the compressor gives other bytes than assembly 1") as caught:
        compress([b"x"])

    assert "deflate==0.9.0" in (caught.value.hint or "")
    gzip_members.check_compressor.cache_clear()


@given(data=st.binary(max_size=300), times=st.integers(0, 30000), cuts=st.lists(st.integers(1, 900000), max_size=12))
@quick
def test_members_do_not_depend_on_how_the_bytes_arrive(data, times, cuts):
    whole = data * times
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    pieces.append(whole[at:])

    members = list(compress(pieces))

    assert members == list(compress([whole]))
    assert len(members) == -(-len(whole) // MEMBER)
    assert gzip.decompress(b"".join(members)) == whole
    assert b"".join(inflate(members)) == whole
    assert all(member[:10] == bytes.fromhex("1f8b08000000000004ff") for member in members)


def test_a_member_that_says_it_holds_gigabytes_is_refused_unopened():
    bomb = gzip.compress(bytes(3 * MEMBER))

    with pytest.raises(ValueError, match="not a gzip member of this form"):
        list(inflate([bomb]))


def test_a_member_that_holds_more_than_it_says_is_refused():
    body = bytearray(gzip.compress(bytes(3 * MEMBER)))
    body[-4:] = (100).to_bytes(4, "little")

    with pytest.raises(ValueError, match="damaged gzip member"):
        list(inflate([bytes(body)]))


# -- segments


@given(entries=entry_sets(), seed=st.integers(0, 999))
@quick
def test_the_order_entries_come_in_reaches_neither_segment_nor_index(entries, seed, tmp_path_factory):
    one, two = Store(tmp_path_factory.mktemp("a")), Store(tmp_path_factory.mktemp("b"))
    shuffled = random.Random(seed).sample(entries, k=len(entries))

    assert write(entries, one, KEY, ASSEMBLY) == write(shuffled, two, KEY, ASSEMBLY)
    assert read(one, KEY) == read(two, KEY)


@given(entries=entry_sets())
@quick
def test_a_segment_holds_what_its_entries_say(entries, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("s"))
    record = write(entries, store, KEY, ASSEMBLY)
    data = tar_bytes(store)
    members = as_tarfile(data)
    rows = index(store, record)
    wanted = {e.path: e for e in entries}

    assert record.tar_size == len(data)
    assert [row.path for row in rows] == sorted(wanted, key=str.encode)
    assert list(members) == [row.path for row in rows]
    for path, entry in wanted.items():
        while entry.type == "hardlink":
            entry = wanted[entry.link]
        member = members[path]
        if entry.type == "symlink":
            assert member.issym() and member.linkname == entry.link
            continue
        with tarfile.open(fileobj=io.BytesIO(data + tar.END)) as archive:
            content = archive.extractfile(path)
            assert content is not None
            assert content.read() == b"".join(entry.chunks())
        assert member.mode == entry.mode
        if member.islnk():
            assert member.linkname.encode() < path.encode()
            assert members[member.linkname].isfile()


def test_the_first_path_of_a_hard_linked_file_holds_the_content(store):
    entries = [
        Entry(path="bin/a", type="hardlink", link="bin/b"),
        Entry(path="bin/b", type="hardlink", link="lib/z"),
        from_bytes("lib/z", b"content", mode=0o755, uid=7, gid=8),
    ]

    rows = index(store, write(entries, store, KEY, ASSEMBLY))

    digest = hashlib.sha256(b"content").hexdigest()
    assert [(r.path, r.type, r.mode, r.uid, r.gid, r.size, r.what) for r in rows] == [
        ("bin/a", "file", 0o755, 7, 8, 7, digest),
        ("bin/b", "hardlink", 0o755, 7, 8, 0, "bin/a"),
        ("lib/z", "hardlink", 0o755, 7, 8, 0, "bin/a"),
    ]


def test_a_hard_link_to_a_symbolic_link_becomes_a_copy_of_it(store):
    entries = [Entry(path="a", type="hardlink", link="b"), Entry(path="b", type="symlink", link="../c")]

    rows = index(store, write(entries, store, KEY, ASSEMBLY))

    assert [(r.path, r.type, r.what) for r in rows] == [("a", "symlink", "../c"), ("b", "symlink", "../c")]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [from_bytes("/etc/passwd", b"")],
            "`/etc/passwd` is not a path below the image's root: it must be relative, without empty, `.` or `..` parts",
        ),
        ([from_bytes("a/../../b", b"")], "`a/../../b` is not a path below the image's root"),
        ([from_bytes("./a", b"")], "`./a` is not a path below the image's root"),
        ([from_bytes("a//b", b"")], "`a//b` is not a path below the image's root"),
        ([from_bytes("a/", b"")], "`a/` is not a path below the image's root"),
        ([from_bytes("", b"")], "`` is not a path below the image's root"),
        ([from_bytes("a\0b", b"")], r"'a\x00b' has a NUL byte in its name or link"),
        (
            [from_bytes("caf\udce9", b"")],
            r"the name 'caf\udce9' (or its link) is not UTF-8; image stores read such names differently",
        ),
        ([from_bytes("a/.wh.b", b"")], "`a/.wh.b` has a name that deletes files of the layers below (`.wh.`)"),
        ([from_bytes("a/.wh..wh..opq", b"")], "`a/.wh..wh..opq` has a name that deletes files of the layers below"),
        ([from_bytes("a", b""), from_bytes("a", b"")], "`a` is listed twice in one segment"),
        (
            [from_bytes("a/b/c", b""), from_bytes("a", b"")],
            "`a` is a file, but `a/b/c` of the same segment needs a folder",
        ),
        ([Entry(path="a", type="symlink")], "`a` is a symlink whose link is empty"),
        ([Entry(path="a", type="hardlink", link="b")], "`a` is a hard link to `b`, which is not in the same segment"),
        (
            [Entry(path="a", type="hardlink", link="b"), Entry(path="b", type="hardlink", link="a")],
            "the hard links of `a` form a circle: a -> b -> a",
        ),
        ([Entry(path="a", size=3, chunks=lambda: [b"ab"])], "`a` has a stated size of 3 bytes, but has only 2"),
        ([Entry(path="a", size=3, chunks=lambda: [b"ab", b"cd"])], "`a` has a stated size of 3 bytes, but has more"),
        ([Entry(path="a", size=3)], "`a` has a stated size of 3 bytes, but has only 0"),
        ([from_bytes("a", b"", mode=0o100644)], "`'a'` cannot be put into a layer: no tar header can hold mode 100644"),
    ],
)
def test_what_no_image_may_hold_is_refused_and_nothing_is_kept(store, entries, message):
    with pytest.raises(CregraphError) as caught:
        write(entries, store, KEY, ASSEMBLY)

    assert str(caught.value).startswith(message)
    assert read(store, KEY) is None
    assert not list(store.root.glob("sha256/*/*"))
    assert not list(store.root.glob("tmp/*"))


def test_another_assembly_is_refused_with_both_numbers(store):
    with pytest.raises(CregraphError, match=r"has assembly 99; this version of cregraph writes assembly 1"):
        write([], store, KEY, 99)


def test_each_content_is_read_once_and_in_pieces(store):
    """Memory is bounded by the piece, not by the file."""
    opened = 0

    def chunks() -> Iterator[bytes]:
        nonlocal opened
        opened += 1
        for _ in range(40):
            yield bytes(MEMBER)

    record = write([Entry(path="big", size=40 * MEMBER, chunks=chunks)], store, KEY, ASSEMBLY)

    assert opened == 1
    assert len(record.members) == 41  # the header does not fit the fortieth
    assert record.size < 1 << 20


def test_directories_are_the_parents_that_paths_need(store):
    record = write([from_bytes("a/b/c", b""), from_bytes("a/d", b""), from_bytes("e", b"")], store, KEY, ASSEMBLY)

    assert directories(index(store, record)) == {"a", "a/b"}


def test_an_empty_segment_is_a_segment(store):
    record = write([], store, KEY, ASSEMBLY)

    assert (record.size, record.tar_size, record.members, index(store, record)) == (0, 0, (), ())
    assert read(store, KEY) == record


def test_a_segment_whose_object_is_gone_or_whose_record_is_odd_is_made_again(store):
    record = write([from_bytes("a", b"x")], store, KEY, ASSEMBLY)
    good = store.record("segments", KEY)
    for bad in ({**good, "assembly": 2}, {**good, "object": "../../etc"}, {**good, "more": 1}, [], {**good, "members": [5]}):
        store.put_record("segments", KEY, bad)
        assert read(store, KEY) is None
    store.put_record("segments", KEY, good)
    assert read(store, KEY) == record
    store.path_of(record.object).unlink()
    assert read(store, KEY) is None


@pytest.mark.parametrize("at", [0, 5, 40, -1])
def test_a_flipped_byte_of_a_segment_is_found_while_it_is_read(store, at):
    record = write([from_bytes("a", b"x" * 5000)], store, KEY, ASSEMBLY)
    path = store.path_of(record.object)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)

    with pytest.raises(CregraphError, match="in the store is damaged") as caught:
        list(members_of(store, record))

    assert record.object in str(caught.value)
    assert read(store, KEY) is None


def test_a_segment_of_many_files_has_a_small_record_and_a_quick_index(store):
    many = [from_bytes(f"lib/p{i % 50}/f{i}", b"%d" % i) for i in range(20000)]

    record = write(many, store, KEY, ASSEMBLY)

    assert len(index(store, record)) == 20000
    assert (store.root / "segments" / KEY[:2] / f"{KEY}.json").stat().st_size < 2000


# -- unpacking


def test_an_unpacked_segment_has_contents_modes_links_and_one_time(store, tmp_path):
    entries = [
        from_bytes("opt/a b/é", b"one" * 500_000, mode=0o755),
        Entry(path="opt/hard", type="hardlink", link="opt/a b/é"),
        Entry(path="opt/soft", type="symlink", link="/nowhere/else"),
        from_bytes("opt/secret", b"", mode=0o600),
    ]
    record = write(entries, store, KEY, ASSEMBLY)
    root = tmp_path / "root"
    before = os.umask(0o077)
    try:
        unpack(store, record, root)
    finally:
        os.umask(before)

    assert (root / "opt/hard").read_bytes() == b"one" * 500_000
    assert (root / "opt/hard").samefile(root / "opt/a b/é")
    assert (root / "opt/soft").readlink() == Path("/nowhere/else")
    assert [stat.S_IMODE((root / p).lstat().st_mode) for p in ("opt", "opt/hard", "opt/secret")] == [0o755, 0o755, 0o600]
    assert {(root / p).lstat().st_mtime for p in ("opt", "opt/a b", "opt/hard", "opt/soft")} == {tar.MTIME}


def test_segments_are_unpacked_side_by_side_and_equal_files_are_left_alone(store, tmp_path):
    one = write([from_bytes("d/a", b"1"), from_bytes("d/same", b"x")], store, "aa" * 32, ASSEMBLY)
    two = write([from_bytes("d/b", b"2"), from_bytes("d/same", b"x")], store, "bb" * 32, ASSEMBLY)
    unpack(store, one, tmp_path / "root")
    unpack(store, two, tmp_path / "root")

    assert sorted(p.name for p in (tmp_path / "root/d").iterdir()) == ["a", "b", "same"]


def test_unpacking_never_writes_through_a_symbolic_link(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "lib").symlink_to(outside)
    record = write([from_bytes("lib/x/evil", b"!")], store, KEY, ASSEMBLY)

    with pytest.raises(CregraphError, match="writes below `lib`, which exists and is not a directory"):
        unpack(store, record, root)

    assert not list(outside.iterdir())


def test_unpacking_onto_a_link_or_another_file_is_refused_and_leaves_it(store, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    root = tmp_path / "root"
    root.mkdir()
    record = write([from_bytes("file", b"mine")], store, KEY, ASSEMBLY)
    for prepare in (
        lambda: (root / "file").symlink_to(outside),
        lambda: (root / "file").write_text("other"),
        (root / "file").mkdir,
    ):
        prepare()
        with pytest.raises(CregraphError, match="writes `file`, which exists with other contents"):
            unpack(store, record, root)
        (root / "file").rmdir() if (root / "file").is_dir() else (root / "file").unlink()

    assert outside.read_text() == "mine"


def test_a_segment_that_is_not_what_its_index_lists_is_refused(store, tmp_path):
    real = write([from_bytes("a", b"1"), from_bytes("b", b"2")], store, KEY, ASSEMBLY)
    other = write([from_bytes("a", b"1"), from_bytes("b", b"3")], store, "cd" * 32, ASSEMBLY)
    forged = store.record("segments", KEY) | {"index": other.index}
    store.put_record("segments", KEY, forged)

    with pytest.raises(CregraphError, match="does not contain `b` as its index lists it"):
        unpack(store, read(store, KEY), tmp_path / "root")
    assert real.index != other.index


def test_members_are_ordinary_gzip_for_other_readers(store):
    record = write([from_bytes("a", os.urandom(3 * MEMBER))], store, KEY, ASSEMBLY)
    data = store.verified(record.object).read_bytes()

    reader = zlib.decompressobj(31)
    first = reader.decompress(data)

    assert len(first) == MEMBER
    assert len(reader.unused_data) == record.size - record.members[0]
    assert gzip.decompress(data) == tar_bytes(store)
