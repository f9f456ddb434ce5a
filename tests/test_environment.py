"""The test environment keeps what other tests take from it for granted."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.environment import Environment, Server, serve
from tests.environment.command import run_in
from tests.environment.conda import Entry, Recipe, index, pack
from tests.environment.description import needs, read_description
from tests.environment.needed import needed
from tests.environment.oci import unpack
from tests.environment.parts import part, words

CONTRACT = words("""
    ipykernel sqlparse jinja2 notebook ipython psutil snowflake-snowpark-python jupyter-server ray lightgbm-ray xgboost-ray
    snowflake snowflake.core snowflake-connector-python snowflake-ml-python
""")
RECIPES = [
    *("r-base =4.2.2", "r-cli", "r-rlang >=1.0.0", "r-reticulate >=1.34", "r-tidyverse", "r-dbplyr", "r-httr2 >=1.0.0"),
    *("r-lazyeval", "r-dbi >=1.2.0", "r-jsonlite", "r-dplyr >=1.1.0", "zlib", "liblzma-devel", "r-lme4 =1.1_31"),
]
ODD = words("odd-bz2 odd-case odd-hardlink odd-longpath odd-noarch odd-placeholder odd-postlink")


@pytest.fixture(scope="session")
def environment() -> Environment:
    return needed()


def solved(channel: str, specs: list[str]) -> list[Any]:
    from rattler import Channel, GenericVirtualPackage, PackageName, Version, solve
    from rattler.match_spec import MatchSpec
    from rattler.package import BuildString

    facts = (("__glibc", "2.36", "0"), ("__linux", "5.10", "0"), ("__unix", "0", "0"), ("__archspec", "1", "x86_64"))
    virtual = [GenericVirtualPackage(PackageName(a), Version(b), BuildString(c)) for a, b, c in facts]

    async def go() -> list[Any]:
        asked = [MatchSpec(spec) for spec in specs]
        return await solve([Channel(channel)], asked, platforms=["linux-64", "noarch"], virtual_packages=virtual)

    found = asyncio.run(go())
    time.sleep(0.05)  # a process that ends right after a solve can crash
    return found


@pytest.mark.environment
def test_the_channel_satisfies_the_standard_recipes(environment: Environment) -> None:
    found = {record.name.normalized: str(record.version) for record in solved(_channel(environment), RECIPES)}

    assert found["r-base"] == "4.2.2"
    assert len(found) > 150


@pytest.mark.environment
def test_the_channel_has_a_python_micromamba_and_the_adbc_driver(environment: Environment) -> None:
    specs = ["python 3.11.*", "micromamba 2.*", "libadbc-driver-snowflake", "r-nanoarrow >=0.3", "odd-noarch"]
    found = {record.name.normalized: str(record.version) for record in solved(_channel(environment), specs)}

    assert found["python"] == "3.11.2"
    assert found["odd-noarch"] == "1.1"


@pytest.mark.environment
def test_every_record_of_the_channel_tells_the_truth_about_its_package(environment: Environment) -> None:
    count = 0
    for subdir in ("linux-64", "noarch"):
        folder = environment.conda / "conda-forge" / subdir
        repodata = json.loads((folder / "repodata.json").read_bytes())
        records = {**repodata["packages"], **repodata["packages.conda"]}
        assert sorted(records) == sorted(p.name for p in folder.iterdir() if p.name.endswith((".conda", ".bz2")))
        for name, record in records.items():
            data = (folder / name).read_bytes()
            assert record["sha256"] == hashlib.sha256(data).hexdigest(), name
            assert record["md5"] == hashlib.md5(data).hexdigest(), name
            assert record["size"] == len(data), name
            count += 1
    assert count > 200


@pytest.fixture(scope="session")
def r_root(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The base with the recipes' environment in it, as an image would have it."""
    from rattler import Subdir, install

    folder = tmp_path_factory.mktemp("environment")
    root, prefix = folder / "root", environment.versions["prefix"]
    unpack(environment.base, root)
    records = solved(_channel(environment), [*RECIPES, *ODD])
    into = str(root / prefix[1:])
    going = install(
        records,
        into,
        cache_dir=folder / "packages",
        platform=Subdir("linux-64"),
        show_progress=False,
        alternative_target_prefix=prefix,
    )
    asyncio.run(going)
    yield root
    shutil.rmtree(folder)


@pytest.mark.environment
def test_r_runs_over_the_base_under_the_recipes_prefix(environment: Environment, r_root: Path) -> None:
    code = "suppressMessages(library(dplyr)); cat(R.version$minor, R.home(), nrow(filter(mtcars, cyl == 4)), sep = '|')"
    said = run_in(r_root, f"{environment.versions['prefix']}/bin/R", "--vanilla", "--no-echo", "-e", code)

    assert said.strip() == f"2.2|{environment.versions['prefix']}/lib/R|11"


@pytest.mark.environment
def test_every_r_package_of_the_environment_loads(environment: Environment, r_root: Path) -> None:
    code = "for (p in rownames(installed.packages())) loadNamespace(p); cat(length(loadedNamespaces()))"
    said = run_in(r_root, f"{environment.versions['prefix']}/bin/Rscript", "--vanilla", "-e", code)

    assert int(said.split()[-1]) > 100


@pytest.mark.environment
def test_the_odd_packages_are_as_odd_as_they_say(r_root: Path, environment: Environment) -> None:
    prefix = environment.versions["prefix"]
    share = r_root / prefix[1:] / "share"

    assert run_in(r_root, f"{prefix}/bin/odd-noarch") == "1.1\n"
    assert run_in(r_root, f"{prefix}/bin/odd-placeholder").splitlines()[1] == prefix
    assert (share.parent / "etc/odd-placeholder.conf").read_text().startswith(f"prefix = {prefix}\n")
    assert {path.name for path in (share / "odd-case").iterdir()} >= {"README", "readme"}
    (long,) = (path for path in (share / "odd-longpath").rglob("*.txt"))
    assert len(str(long.relative_to(share.parent))) == 300


@pytest.mark.environment
def test_no_package_names_the_place_where_it_was_made(r_root: Path, environment: Environment) -> None:
    prefix = r_root / environment.versions["prefix"][1:]
    folders = [str(prefix / name) for name in ("bin", "etc", "lib", "share")]
    left = subprocess.run(
        ["grep", "-rlaE", "placehold_placehold|/cregraph-test-environment/", *folders],
        capture_output=True,
        text=True,
    )

    assert left.stdout == ""


@pytest.fixture(scope="session")
def base_root(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("base") / "root"
    unpack(environment.base, root)
    yield root
    shutil.rmtree(root)


@pytest.mark.environment
def test_the_base_keeps_snowflakes_contract(environment: Environment, base_root: Path) -> None:
    root = base_root
    manifest = json.loads(
        _blob(environment.base, json.loads((environment.base / "index.json").read_text())["manifests"][0]["digest"])
    )
    config = json.loads(_blob(environment.base, manifest["config"]["digest"]))["config"]

    said = run_in(root, "/usr/local/bin/entrypoint.sh", "bash", "-c", "pip list --format json")
    installed = {row["name"].lower().replace("_", "-") for row in json.loads(said)}
    assert [name for name in CONTRACT if name not in installed] == []
    assert "No broken requirements" in run_in(root, "pip", "check")
    assert config["Entrypoint"] == ["/usr/local/bin/entrypoint.sh"]
    assert "DASHBOARD_PORT=12003" in config["Env"]
    assert (root / config["WorkingDir"][1:] / "start_nbctl.sh").stat().st_mode & 0o111
    assert (root / "opt/python/cpython-3.11").readlink() == Path("cpython-3.11.2")
    home = (root / "home/jupyter").stat()
    assert (home.st_mode & 0o7777, home.st_uid) == (0o750, 1000)
    assert (root / "var/mail").stat().st_mode & 0o7777 == 0o2775
    assert (root / "root").stat().st_mode & 0o7777 == 0o700
    assert not (root / "etc/environment-base-unfinished").exists()


@pytest.mark.environment
def test_the_bases_python_has_the_site_packages_of_an_upstream_one(base_root: Path) -> None:
    code = "import site, sysconfig, pip; print(site.getsitepackages()[0], sysconfig.get_path('purelib'), pip.__file__)"
    first, second, third = run_in(base_root, "python3", "-I", "-c", code).split()

    assert first == second == "/opt/python/cpython-3.11/lib/python3.11/site-packages"
    assert third.startswith(first)


@pytest.mark.environment
@pytest.mark.parametrize("date", ["cran_first", "cran_second"])
def test_a_snapshot_of_cran_is_whole_and_true(environment: Environment, date: str) -> None:
    contrib = environment.cran / environment.versions[date] / "src/contrib"
    stanzas = [read_description(text) for text in (contrib / "PACKAGES").read_text().split("\n\n")]
    records = json.loads((environment.conda / "conda-forge/linux-64/repodata.json").read_text())["packages.conda"].values()
    conda = {record["name"] for record in records}

    assert len(stanzas) >= 10
    for fields in stanzas:
        path = contrib / f"{fields['Package']}_{fields['Version']}.tar.gz"
        assert hashlib.md5(path.read_bytes()).hexdigest() == fields["MD5sum"]
        with tarfile.open(path) as tar:
            data = tar.extractfile(f"{fields['Package']}/DESCRIPTION")
            assert data is not None
            assert read_description(data.read().decode())["Repository"] == "CRAN"
        have = {one["Package"] for one in stanzas}
        assert [name for name in needs(fields) if name not in have and f"r-{name.lower()}" not in conda] == []


@pytest.mark.environment
def test_a_bump_of_bitops_is_what_the_two_snapshots_differ_by(environment: Environment) -> None:
    second = environment.cran / environment.versions["cran_second"] / "src/contrib"

    assert (environment.cran / environment.versions["cran_first"] / "src/contrib/bitops_1.0-7.tar.gz").exists()
    assert (second / "bitops_1.0-9.tar.gz").exists()
    assert (second / "Archive/bitops/bitops_1.0-7.tar.gz").exists()


@pytest.mark.environment
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_uv_resolves_rpy2_and_its_build_from_the_index(environment: Environment, tmp_path: Path, scheme: str) -> None:
    from uv import find_uv_bin

    asked = tmp_path / "asked.in"
    asked.write_text("rpy2>=3.5,<4\ntabulate>=0.9\nsetuptools>=77\nwheel\n")
    # Only the JSON form has times of upload, and of a folder uv reads the HTML.
    newest = ("--exclude-newer", "2025-01-01T00:00:00Z") if scheme == "http" else ()
    with environment.serve() as server:
        address = yaml.safe_load(environment.sources(server.address if scheme == "http" else None))["pypi"]
        done = subprocess.run(
            [
                *(find_uv_bin(), "pip", "compile", "--no-config", "--no-cache", "--no-header", "--no-annotate", "--quiet"),
                *("--no-python-downloads", "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"),
                *(*newest, "--generate-hashes", "--default-index", address, str(asked)),
            ],
            capture_output=True,
            text=True,
        )

    assert done.returncode == 0, done.stderr
    assert {"rpy2-rinterface==3.6.5", "cffi==2.1.1"} <= set(done.stdout.replace(" \\", "").splitlines())


@pytest.mark.environment
def test_rpy2_compiles_in_the_build_root_and_calls_r_in_the_base(environment: Environment, r_root: Path, tmp_path: Path) -> None:
    from rattler import Subdir, install

    prefix = environment.versions["prefix"]
    build, site = tmp_path / "root", r_root / "opt/python/cpython-3.11.2/lib/python3.11/site-packages"
    unpack(environment.build_root, build)
    records = solved(_channel(environment), ["r-base", "python 3.11.*"])
    into, kept, linux = str(build / prefix[1:]), tmp_path / "packages", Subdir("linux-64")
    asyncio.run(install(records, into, cache_dir=kept, platform=linux, alternative_target_prefix=prefix))
    for name in ("setuptools", "cffi", "pycparser", "packaging", "wheel"):
        zipfile.ZipFile(max((environment.simple / name).glob("*.whl"))).extractall(build / "requirements")
    with tarfile.open(next((environment.simple / "rpy2-rinterface").glob("*.tar.gz"))) as source:
        source.extraction_filter = lambda member, path: member  # the argument `filter` came with Python 3.11.4
        source.extractall(build / "source")
    (folder,) = (build / "source").iterdir()
    code = "import setuptools.build_meta as b; b.build_wheel('/out')"
    env = {"PYTHONPATH": "/requirements", "R_HOME": f"{prefix}/lib/R", "PATH": f"{prefix}/bin:/usr/bin:/bin"}
    run_in(build, "env", "-C", f"/source/{folder.name}", f"{prefix}/bin/python3.11", "-c", code, env=env)
    wheels = [max((environment.simple / name).glob("*.whl")) for name in ("rpy2", "rpy2-robjects", "tzlocal")]
    for wheel in [*wheels, *(build / "out").glob("*.whl")]:
        zipfile.ZipFile(wheel).extractall(site)

    code = "import rpy2.robjects as r; from rpy2.rinterface_lib import openrlib as o; print(o.cffi_mode, r.r('R.home()')[0])"
    said = run_in(r_root, "python3", "-c", code, env={"R_HOME": f"{prefix}/lib/R"})

    assert said.split() == ["CFFI_MODE.API", f"{prefix}/lib/R"]
    shutil.rmtree(tmp_path)


@pytest.mark.environment
def test_the_tarballs_say_that_they_are_stand_ins_and_import_what_theirs_do(environment: Environment) -> None:
    with tarfile.open(environment.tarballs / "snowflakeR/v0.1.0/snowflakeR_0.1.0.tar.gz") as tar:
        data = tar.extractfile("snowflakeR/DESCRIPTION")
        assert data is not None
        fields = read_description(data.read().decode())

    assert fields["Title"] == "Stands for 'snowflakeR' in the Tests of 'cregraph'"
    assert needs(fields) == {"reticulate": ">= 1.34", "cli": "", "rlang": "", "jsonlite": ""}


@pytest.mark.environment
def test_the_profile_leads_to_the_world(environment: Environment) -> None:
    profile = yaml.safe_load(environment.profile())
    sources = yaml.safe_load(environment.sources())

    assert profile["snowbooks"]["image"] == f"oci:{environment.base}"
    for address in profile["tarballs"].values():
        ((prefix, leads),) = sources["url"].items()
        assert Path(urllib.request.url2pathname(address.replace(prefix, leads).removeprefix("file://"))).exists()


# What needs no environment: the writers and the server.


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    (tmp_path / "simple").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "simple/index.html").write_text("html")
    (tmp_path / "simple/index.json").write_text("{}")
    with serve(tmp_path) as server:
        yield server, tmp_path


def got(address: str, **headers: str) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(address, headers={key.replace("_", "-"): value for key, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_what_has_not_changed_is_answered_304_with_its_etag(served: tuple[Server, Path]) -> None:
    server, _ = served
    _, _, first = got(f"{server.address}/a.bin")
    for headers in ({"If_None_Match": first["ETag"]}, {"If_Modified_Since": first["Last-Modified"]}):
        status, body, again = got(f"{server.address}/a.bin", **headers)
        assert (status, body, again["ETag"]) == (304, b"", first["ETag"])


def test_a_range_is_answered_with_that_part(served: tuple[Server, Path]) -> None:
    server, _ = served
    status, body, headers = got(f"{server.address}/a.bin", Range="bytes=254-257")

    assert (status, body, headers["Content-Range"]) == (206, b"\xfe\xff\x00\x01", "bytes 254-257/16384")
    assert got(f"{server.address}/a.bin", Range="bytes=-2")[1] == b"\xfe\xff"
    assert got(f"{server.address}/a.bin", Range="bytes=99999-")[0] == 416


def test_the_index_is_json_for_those_who_ask_for_it(served: tuple[Server, Path]) -> None:
    server, _ = served
    kind = "application/vnd.pypi.simple.v1+json"

    assert got(f"{server.address}/simple/", Accept=f"{kind}, text/html;q=0.1")[2]["Content-Type"] == kind
    assert got(f"{server.address}/simple/")[1] == b"html"


def test_nothing_outside_the_folder_is_served(served: tuple[Server, Path]) -> None:
    server, folder = served
    (folder / "out").symlink_to("/etc")

    assert got(f"{server.address}/%2e%2e/%2e%2e/etc/passwd")[0] == 404
    assert got(f"{server.address}/out/passwd")[0] == 404


@pytest.mark.parametrize("kind", ["500", "404", "truncate", "flip", "slow"])
def test_a_fault_happens_as_often_as_asked_and_where(served: tuple[Server, Path], kind: str) -> None:
    server, folder = served
    true = (folder / "a.bin").read_bytes()
    server.seconds = 0.1
    server.fault("/a.*", kind, times=2)
    answers = []
    for _ in range(3):
        try:
            started = time.monotonic()
            status, body, _ = got(f"{server.address}/a.bin")
            answers.append((status, body, time.monotonic() - started >= 0.1))
        except (OSError, http.client.HTTPException) as error:
            assert kind == "truncate", error
            answers.append((0, b"", False))

    good = (200, true, False)
    assert answers[2][:2] == good[:2]
    wrong = {"500": (500, b""), "404": (404, b""), "truncate": (0, b"")}
    for answer in answers[:2]:
        if kind == "flip":
            assert answer[0] == 200
            assert sum(a != b for a, b in zip(answer[1], true, strict=True)) == 1
        elif kind == "slow":
            assert answer == (200, true, True)
        else:
            assert answer[:2] == wrong[kind]
    assert [asked.path for asked in server.log] == ["/a.bin"] * 3


def test_a_package_and_its_index_have_equal_bytes_each_time(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for suffix in (".conda", ".tar.bz2"):
            recipe = Recipe(name="a", version="1", build="0", suffix=suffix)
            pack({"share/a.txt": Entry(data=b"a"), "b": Entry(link="share/a.txt")}, recipe, tmp_path / folder)
        index(tmp_path / folder)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / folder).rglob("*.*")} for folder in ("one", "two"))

    assert one == two
    assert {"a-1-0.conda", "a-1-0.tar.bz2", "repodata.json.zst"} <= set(one)


def test_a_part_that_fails_leaves_nothing_behind_it_and_is_made_again(tmp_path: Path) -> None:
    def fails(into: Path) -> None:
        (into / "half").touch()
        raise OSError("interrupted")

    with pytest.raises(OSError, match="interrupted"):
        part(tmp_path, "a", fails, lambda said: None)
    assert not (tmp_path / "a").exists()

    made = part(tmp_path, "a", lambda into: (into / "whole").touch(), lambda said: None)

    assert [path.name for path in made.iterdir()] == ["whole"]


def _channel(environment: Environment) -> str:
    return (environment.conda / "conda-forge").as_uri()


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()
