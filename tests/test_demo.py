"""`cregraph demo`: a newcomer's first run. The whole of it as a program, in its own small sources."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
import zstandard

from cregraph.demo import archives
from cregraph.demo.demo_project import claim, write_project
from cregraph.errors import CregraphError

REFERENCE = re.compile(r"demo-r:v1-[0-9a-f]{12}@sha256:[0-9a-f]{64}\n")


def cregraph(*words: str | Path, cwd: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """The program, with nothing of the user's settings but what `changed` says."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")}
    command = [sys.executable, "-m", "cregraph", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=kept | changed, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A demo, and what it said on stdout and stderr. Tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("demo")
    done = cregraph("demo", "first", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "first", done.stdout, done.stderr


@pytest.fixture
def own(made: tuple[Path, str, str], tmp_path: Path) -> Path:
    """A copy of the demo that a test may change."""
    shutil.copytree(made[0], tmp_path / "own", symlinks=True)
    return tmp_path / "own"


def files(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its sha256; hidden ones, which a kill may leave unnamed work in, are left out."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def blobs(layout: Path) -> Iterator[bytes]:
    """The blobs of a layout, layers inflated."""
    import gzip

    for path in sorted((layout / "blobs" / "sha256").iterdir()):
        data = path.read_bytes()
        yield gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def test_stdout_is_the_reference_with_its_digest_and_the_layout_holds_that_image(made: tuple[Path, str, str]) -> None:
    folder, said, talk = made
    assert REFERENCE.fullmatch(said)
    index = json.loads((folder / "image" / "index.json").read_text())
    assert [said.strip().partition("@")[2]] == [row["digest"] for row in index["manifests"]]
    for path in ("demo.yaml", "locks/demo.lock.json", "bases", "image", "locks/with-cran.lock.json"):
        assert (folder / path).exists()
        assert f"  first/{path} " in talk
    assert "cd first\n" in talk
    assert "lock demo.yaml --check" in talk


def test_two_demos_in_two_folders_are_equal_to_the_byte_and_keep_no_path_of_theirs(
    made: tuple[Path, str, str], tmp_path: Path
) -> None:
    """Time zone, locale, umask, hash seed, home and folder are other ones; the store is cold."""
    folder, said, _ = made
    (tmp_path / "home").mkdir()
    before = os.umask(0o077)
    try:
        done = cregraph(
            *("demo", "a folder/ünd"),
            cwd=tmp_path,
            TZ="Pacific/Kiritimati",
            LC_ALL="C",
            PYTHONUTF8="1",
            PYTHONHASHSEED="7",
            HOME=str(tmp_path / "home"),
            USER="somebody",
        )
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    other = tmp_path / "a folder/ünd"
    assert done.stdout == said
    for part in ("sources", "locks", "bases", "image"):
        assert files(other / part) == files(folder / part)
    secrets = [str(place).encode() for place in (tmp_path, folder.parent, Path(sys.prefix))]
    told = [
        *blobs(other / "image"),
        *(path.read_bytes() for part in ("locks", "bases") for path in (other / part).rglob("*") if path.is_file()),
    ]
    assert not [secret for secret in secrets for data in told if secret in data]


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_demo_needs_no_network(made: tuple[Path, str, str], tmp_path: Path) -> None:
    """In a network namespace of its own there is no interface but a loopback that is down."""
    apart = ["unshare", "--map-root-user", "--net"]
    tried = subprocess.run([*apart, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no network namespaces here: {tried.stderr.strip()}")
    done = subprocess.run([*apart, sys.executable, "-m", "cregraph", "demo", "it"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, made[1]), done.stderr


def test_what_it_says_to_try_next_holds(made: tuple[Path, str, str], own: Path) -> None:
    """Fresh, the same digest from a warm and a cold store, stale with the line, one pin moves, another digest."""
    _, said, _ = made
    assert cregraph("lock", "demo.yaml", "--check", cwd=own).stdout == "locks/demo.lock.json is fresh\n"
    for part in ("image2", "image3"):
        again = cregraph("build", "demo.yaml", "--output", f"oci:{part}", cwd=own)
        assert (again.returncode, again.stdout) == (0, said), again.stderr
        assert files(own / part) == files(own / "image")
        shutil.rmtree(own / "cache")
        (own / "cache").mkdir()

    shutil.copy(own / "locks/demo.lock.json", own / "before.json")
    profile = own / "demo.yaml"
    profile.write_text(profile.read_text().replace("- r-demoframes ", "- r-demoframes =1.1.0 "))
    stale = cregraph("lock", "demo.yaml", "--check", cwd=own)
    assert stale.returncode == 1
    assert "  demo.yaml:17: extras.conda_r[0]: `r-demoframes =1.1.0` was added\n" in stale.stderr

    before = pins(own / "locks/demo.lock.json")
    moved = cregraph("lock", "demo.yaml", cwd=own)
    assert moved.returncode == 0, moved.stderr
    after = pins(own / "locks/demo.lock.json")
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"r-demoframes"}
    seen = cregraph("diff", "before.json", "locks/demo.lock.json", cwd=own)
    assert seen.returncode == 1, seen.stderr
    assert re.search(r"^conda +r-demoframes +1\.2\.0 -> 1\.1\.0$", seen.stdout, flags=re.MULTILINE)
    plan = cregraph("plan", "demo.yaml", cwd=own)
    assert plan.returncode == 0, plan.stderr
    built = cregraph("build", "demo.yaml", cwd=own)
    assert REFERENCE.fullmatch(built.stdout)
    assert built.stdout != said


def pins(lock: Path) -> dict[str, str]:
    """sha256 of each pin's artifact, by name."""
    targets = json.loads(lock.read_text())["targets"]
    return {pin["name"]: pin["sha256"] for target in targets for pin in target["pins"]}


def test_the_profile_with_cran_is_locked_and_not_built(made: tuple[Path, str, str]) -> None:
    """demoplots imports demostats (from the snapshot) and demoframes (which conda has, so it is not pinned again)."""
    folder, _, _ = made
    lock = json.loads((folder / "locks/with-cran.lock.json").read_text())
    library = next(t for t in lock["targets"] if t["kind"] == "r")
    assert [(p["name"], p["version"], p["data"]["compiles"]) for p in library["pins"]] == [
        ("demoplots", "0.4.2", False),
        ("demostats", "1.0-3", True),
    ]
    assert [path.name for path in folder.iterdir() if path.name.startswith("image")] == ["image"]


def test_directories_of_the_base_keep_their_modes_and_owners_in_every_layer(made: tuple[Path, str, str]) -> None:
    layout = made[0] / "image"
    seen = {}
    for data in blobs(layout):
        if data[:1] == b"{":
            continue
        with tarfile.open(fileobj=io.BytesIO(data)) as layer:
            for entry in layer:
                if entry.name in ("root", "home/jupyter", "opt/python/cpython-3.11.9"):
                    seen.setdefault(entry.name, set()).add((oct(entry.mode), entry.uid))
                assert entry.name != "opt/python/cpython-3.11" or entry.issym(), "a link of the base became a directory"
    assert seen == {
        "root": {("0o700", 0)},
        "home/jupyter": {("0o750", 1000)},
        "opt/python/cpython-3.11.9": {("0o755", 0)},
    }


def test_over_the_recipe_base_with_the_home_root_no_path_stands_twice_and_no_link_leads_to_itself(own: Path) -> None:
    profile = yaml.safe_load((own / "demo.yaml").read_text())
    image = profile.pop("snowbooks")
    del profile["cre"]["snowbooks_tag"]
    profile |= {"without": ["snowbooks"], "with": ["base"], "base": image}
    (own / "root.yaml").write_text(yaml.safe_dump(profile))
    for words in (("lock", "root.yaml"), ("lock", "root.yaml", "--check"), ("build", "root.yaml", "--output", "oci:root")):
        done = cregraph(*words, cwd=own)
        assert done.returncode == 0, done.stderr
    base = json.loads((own / "sources" / "base" / "index.json").read_text())["manifests"][0]["digest"]
    below = json.loads((own / "sources" / "base" / "blobs" / base.replace(":", "/")).read_text())["layers"]
    manifest = json.loads((own / "root" / "index.json").read_text())["manifests"][0]["digest"]
    layers = json.loads((own / "root" / "blobs" / manifest.replace(":", "/")).read_text())["layers"][len(below) :]
    paths = []
    for layer in layers:
        with tarfile.open(own / "root" / "blobs" / layer["digest"].replace(":", "/")) as tar:
            for member in tar:
                assert member.linkname != f"/{member.name}"
                paths += [] if member.isdir() else [member.name]
    assert sorted(paths) == sorted(set(paths))
    assert "root/.workspace_env_prefix" in paths
    assert [path for path in paths if path.startswith("root/micromamba/envs/workspace_env/")]
    assert not [path for path in paths if path.startswith("home/")]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
@pytest.mark.parametrize("layout", ["image", "sources/base"])
def test_skopeo_accepts_the_image_and_its_base(made: tuple[Path, str, str], tmp_path: Path, layout: str) -> None:
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{made[0] / layout}", f"dir:{tmp_path / 'copy'}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "mine" / "zoo").mkdir()
    done = cregraph("demo", "mine", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: `mine` is not empty: `thesis.txt` and 1 more is in it; cregraph does not change it\n"
        "hint: name a folder that is new or empty: cregraph demo DIR\n"
    )
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["thesis.txt", "zoo"]


#: Ends itself when it goes on after the path (argument) has come to be.
KILLED = """
import os, runpy, signal, sys
path = sys.argv.pop(1)
def hook(event, args):
    if event in ("open", "os.rename", "os.mkdir") and os.access(path, os.F_OK):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
sys.argv[0] = "cregraph"
runpy.run_module("cregraph", run_name="__main__")
"""


@pytest.mark.parametrize("until", ["sources/simple", "locks/demo.lock.json", "bases"])
def test_a_demo_that_was_killed_is_completed_by_the_next_run(made: tuple[Path, str, str], tmp_path: Path, until: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, f"it/{until}", "demo", "it"], cwd=tmp_path, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "it" / ".unfinished").exists()
    again = cregraph("demo", "it", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, made[1]), again.stderr
    for part in ("sources", "locks", "bases", "image"):
        assert files(tmp_path / "it" / part) == files(made[0] / part)
    assert not (tmp_path / "it" / ".unfinished").exists()
    assert cregraph("demo", "it", cwd=tmp_path).returncode == 2, "a finished one is the user's"


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(CregraphError, match=r"`.*taken` cannot be created: File exists"):
        claim(tmp_path / "taken")


# -- the sources's formats, read by others ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, 300_000])
def test_zstandard_itself_reads_the_frames(size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    frame = archives.zst(data)
    assert zstandard.ZstdDecompressor().decompress(frame) == data
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(frame)) as stream:
        assert stream.read(size + 1) == data


def test_every_archive_of_the_world_is_what_its_index_says(tmp_path: Path) -> None:
    counted = write_project(tmp_path)
    sources = tmp_path / "sources"
    conda = 0
    for subdir in ("linux-64", "noarch"):
        repodata = json.loads((sources / "channel" / subdir / "repodata.json").read_text())
        for name, row in repodata["packages.conda"].items():
            data = (sources / "channel" / subdir / name).read_bytes()
            assert (row["sha256"], row["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                info = zstandard.ZstdDecompressor().decompress(archive.read(f"info-{name.removesuffix('.conda')}.tar.zst"))
            with tarfile.open(fileobj=io.BytesIO(info)) as tar:
                index = json.load(tar.extractfile("info/index.json"))  # type: ignore[arg-type]
                about = json.load(tar.extractfile("info/about.json"))  # type: ignore[arg-type]
            assert index.items() <= row.items()
            assert "stand-in" in about["summary"]
            conda += 1
    listed = (sources / "cran/src/contrib/PACKAGES").read_text()
    for name, version, md5 in re.findall(r"Package: (\S+)\nVersion: (\S+)\n(?:.+\n)*?MD5sum: (\S+)", listed):
        data = (sources / f"cran/src/contrib/{name}_{version}.tar.gz").read_bytes()
        assert hashlib.md5(data).hexdigest() == md5
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert f"{name}/DESCRIPTION" in tar.getnames()
    wheels = [
        (page.parent / file, sha256)
        for page in (sources / "simple").glob("*/index.html")
        for file, sha256 in re.findall(r'href="([^"#]+)#sha256=([0-9a-f]{64})"', page.read_text())
    ]
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == sha256 for path, sha256 in wheels)
    assert (conda, listed.count("Package:"), len(wheels)) == counted


def test_the_base_says_that_it_is_a_stand_in(tmp_path: Path) -> None:
    write_project(tmp_path)
    configs = [json.loads(data) for data in blobs(tmp_path / "sources/base") if data.startswith(b'{"architecture"')]
    assert len(configs) == 1
    assert "stand-in" in configs[0]["config"]["Labels"]["org.opencontainers.image.description"]
