"""`cregraph init`: the files are valid, nothing is overwritten, and what another tool states is carried over or named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cregraph.session.project import Project

ROOT = Path(__file__).parent.parent


def cregraph(folder: Path, *words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CREGRAPH_CACHE": str(folder / "cache"), **more}
    done = subprocess.run(
        [sys.executable, "-m", "cregraph", *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def made(folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = yaml.safe_load((folder / "cregraph.yaml").read_text(encoding="utf-8"))
    return found


def test_a_fresh_project_lacks_only_its_lock_and_lock_asks_for_the_registry_by_name(tmp_path: Path) -> None:
    done = cregraph(tmp_path, "init")
    assert (done.stdout, done.stderr) == ("cregraph.yaml\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gitattributes", ".gitignore", "cregraph.yaml", "sources.yaml"]
    assert (tmp_path / ".gitattributes").read_text() == "locks/** -text\nbases/** -text\n"
    text = (tmp_path / "cregraph.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=https://")
    assert "locks/cregraph.lock.json: the lock does not exist" in cregraph(tmp_path, "lock", "--check", code=1).stderr
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "registry_url:" in one)
    error = cregraph(tmp_path, "lock", code=2).stderr
    assert f"cregraph.yaml:{line}: snowflake.registry_url: the host of the registry is missing" in error
    (tmp_path / "cregraph.yaml").write_text(text.replace("registry_url:", "registry_url: 127.0.0.1:1"))
    assert "127.0.0.1:1" in cregraph(tmp_path, "lock", code=2).stderr


def test_the_template_open_needs_no_account_and_lock_lacks_only_the_image(tmp_path: Path) -> None:
    cregraph(tmp_path, "init", "--template", "open")
    ours, example = made(tmp_path), yaml.safe_load((ROOT / "examples" / "open.yaml").read_text(encoding="utf-8"))
    assert {key: ours[key] for key in ("with", "without", "base")} == {key: example[key] for key in ("with", "without", "base")}
    assert "snowflake" not in ours
    assert Project(profile=tmp_path / "cregraph.yaml").asked().targets
    error = cregraph(tmp_path, "lock", code=2, NO_PROXY="", HTTPS_PROXY="http://127.0.0.1:1").stderr
    host, _, name = str(example["base"]["image"]).partition("/")
    assert f"error: {host}: {name}: " in error
    assert "is missing" not in error


def test_the_template_open_leaves_out_what_only_snowflakes_base_has(tmp_path: Path) -> None:
    done = cregraph(tmp_path, "init", "--template", "open", "--from", str(ROOT / "examples" / "multilang_r.yaml"))
    assert "`cre.snowbooks_tag`: the template `open` has another base image" in done.stderr
    assert (made(tmp_path)["cre"]["adbc"], made(tmp_path)["base"]["user"]) == (True, "jovyan")
    assert made(tmp_path)["tarballs"]
    assert Project(profile=tmp_path / "cregraph.yaml").asked().targets


def test_an_unknown_template_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    error = cregraph(tmp_path, "init", "--template", "opne", code=2).stderr
    assert error == "error: unknown template `opne` (expected snowflake or open)\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cregraph.yaml", "sources.yaml", ".gitattributes", ".gitignore"])
def test_a_file_that_exists_is_kept_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine\n")
    error = cregraph(tmp_path, "init", code=2).stderr
    assert f"`{name}` exists already; nothing was written" in error
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine\n"


def test_files_for_git_that_have_the_lines_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("build/\ncache/\n")
    cregraph(tmp_path, "init", ".")
    assert (tmp_path / ".gitignore").read_text() == "build/\ncache/\n"


def test_the_toolkits_profile_is_carried_over(tmp_path: Path) -> None:
    example = ROOT / "examples" / "multilang_r.yaml"
    assert cregraph(tmp_path, "init", "--from", str(example)).stderr == ""
    theirs = yaml.safe_load(example.read_text())
    ours = made(tmp_path)
    assert {**ours["cre"]} == theirs["cre"]
    assert (ours["snowflake"], ours["tarballs"]) == (theirs["snowflake"], theirs["tarballs"])
    assert ours["extras"]["pip"] == theirs["extras"]["pip"]


def test_the_toolkits_runtime_file_is_carried_over(tmp_path: Path) -> None:
    cregraph(tmp_path, "init", "a", "--from", str(ROOT / "recipes" / "hook" / "cre_multilang_r.yaml"))
    text = (
        "env_name: x\nlanguages:\n  r:\n    enabled: true\n    r_version: '4.4.1'\n    conda_packages: [r-lme4=1.1-35]\n"
        "    cran_packages: [survival==3.5-8]\n    addons: {adbc: false, duckdb: true}\n  julia: {enabled: true}\n"
    )
    (tmp_path / "runtime.yaml").write_text(text)
    error = cregraph(tmp_path, "init", "b", "--from", "runtime.yaml").stderr
    assert "runtime.yaml:8: `duckdb`" in error
    assert "runtime.yaml:9: `languages.julia`" in error
    ours = made(tmp_path / "b")
    assert (ours["cre"]["r_version"], ours["cre"]["adbc"]) == ("4.4.1", False)
    assert (ours["extras"]["conda_r"], ours["extras"]["cran"]) == (["r-lme4=1.1-35"], ["survival==3.5-8"])


def test_an_environment_of_conda_is_carried_over(tmp_path: Path) -> None:
    text = (
        "name: x\nchannels: [conda-forge, defaults]\ndependencies:\n- python=3.11\n- r-base=4.4\n- r-sf >=1.0\n"
        "- forge::zlib\n- pip:\n  - rich>=13\n  - -r other.txt\nprefix: /home/me\n"
    )
    (tmp_path / "environment.yml").write_text(text)
    error = cregraph(tmp_path, "init", "--from", "environment.yml").stderr
    for place in ("2: `defaults`", "4: `python=3.11`", "7: `forge::zlib`", "10: `-r`", "11: `prefix`"):
        assert f"environment.yml:{place}" in error
    ours = made(tmp_path)
    assert ours["cre"]["r_version"] == "4.4"
    assert ours["micromamba"]["channels"] == ["conda-forge"]
    assert (ours["extras"]["conda_r"], ours["extras"]["pip"]) == (["r-sf >=1.0"], ["rich>=13"])


def test_requirements_are_carried_over_and_hostile_texts_stay_texts(tmp_path: Path) -> None:
    lines = ["rich >=13  # why", "--index-url https://user:secret@x.example", "./local.whl", "a==1 \\", "  --hash=sha256:00"]
    (tmp_path / "requirements.txt").write_text(
        "\n".join([*lines, 'b ; python_version > "3"', 'x", evil: "y', "c @ https://u:secret@h.example/c.whl"])
    )
    error = cregraph(tmp_path, "init", "--from", "requirements.txt").stderr
    for place in ("2: `--index-url`", "3: `./local.whl`", "4: `a==1`", "7: ", "8: "):
        assert f"requirements.txt:{place}" in error
    assert "secret" not in error
    assert made(tmp_path)["extras"]["pip"] == ["rich >=13", "a==1", 'b ; python_version > "3"']


def test_values_and_names_of_files_cannot_state_other_fields(tmp_path: Path) -> None:
    name = "x\ncre: {}\n.yaml"
    (tmp_path / name).write_text("cre: {tag: v1}\ntarballs: {zoo: 'https://x.example/\"a: b #c'}\n")
    cregraph(tmp_path, "init", "--from", name)
    ours = made(tmp_path)
    assert ours["tarballs"] == {"zoo": 'https://x.example/"a: b #c'}
    assert ours["cre"]["tag"] == "v1"
    (tmp_path / "bad.yaml").write_text("cre: {tag: 'a b'}\n")
    error = cregraph(tmp_path, "init", "new", "--from", "bad.yaml", code=2).stderr
    assert "`bad.yaml` cannot be carried over; nothing was written" in error
    assert not (tmp_path / "new").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1\n")
    assert "unknown format" in cregraph(tmp_path, "init", "--from", "x.yaml", code=2).stderr
    assert "cannot be read" in cregraph(tmp_path, "init", "--from", "none.yaml", code=2).stderr


def test_a_channel_by_its_address_goes_to_sources_and_credentials_to_no_file(tmp_path: Path) -> None:
    channels = ["https://mirror.example/ours", "conda-forge", "https://other.example/ours/", "https://u:secret@x.example/c"]
    (tmp_path / "environment.yml").write_text(yaml.safe_dump({"channels": channels, "dependencies": ["r-sf"]}))
    error = cregraph(tmp_path, "init", "--from", "environment.yml").stderr
    assert made(tmp_path)["micromamba"]["channels"] == ["ours", "conda-forge"]
    assert yaml.safe_load((tmp_path / "sources.yaml").read_text()) == {"conda": {"ours": "https://mirror.example/ours"}}
    assert "environment.yml:4: `https://other.example/ours/`: a second channel with the name ours" in error
    assert "its address has credentials" in error
    assert "secret" not in error


def a_conda_lock(file: Path) -> None:
    """Write a lock of two platforms, with conda and pip, by conda-lock's own models."""
    pytest.importorskip("conda_lock", reason="conda-lock is not installed: pip install -e '.[conda-lock]'")
    from conda_lock.lockfile import write_conda_lock_file
    from conda_lock.lockfile.v2prelim.models import HashModel, LockedDependency, Lockfile, LockMeta
    from conda_lock.models.channel import Channel

    def package(name: str, version: str, *needs: str, manager: str = "conda", category: str = "main") -> list[LockedDependency]:
        return [
            LockedDependency(
                name=name,
                version=version,
                manager=manager,
                platform=platform,
                dependencies=dict.fromkeys(needs, ""),
                url=f"https://mirror.example/ours/{platform}/{name}-{version}-0.conda",
                hash=HashModel(md5="0" * 32, sha256="0" * 64),
                categories={category},
            )
            for platform in ("linux-64", "osx-arm64")
        ]

    packages = [
        *package("python", "3.11.9"),
        *package("r-base", "4.4.1"),
        *package("r-rlang", "1.1.4", "r-base"),
        *package("r-dplyr", "1.1.4", "r-base", "r-rlang"),
        *package("r-reticulate", "1.40.0", "r-base", "python"),
        *package("r-testthat", "3.2.1", "r-base", category="dev"),
        *package("numpy", "2.0.0", "python"),
        *package("rich", "13.7.0", "python"),
        *package("rich", "13.8.0", "pygments", manager="pip"),
        *package("pygments", "2.18.0", manager="pip"),
    ]
    metadata = LockMeta(
        content_hash={"linux-64": "0", "osx-arm64": "1"},
        channels=[Channel.from_string("https://mirror.example/ours"), Channel.from_string("conda-forge")],
        platforms=["linux-64", "osx-arm64"],
        sources=["environment.yml"],
    )
    write_conda_lock_file(Lockfile(package=packages, metadata=metadata), file, metadata_choices=set())


def test_a_lock_of_conda_lock_is_read_by_its_own_models(tmp_path: Path) -> None:
    a_conda_lock(tmp_path / "conda-lock.yml")
    error = cregraph(tmp_path, "init", "--from", "conda-lock.yml").stderr
    ours = made(tmp_path)
    assert ours["cre"]["r_version"] == "4.4.1"
    assert ours["extras"]["conda_r"] == ["r-dplyr==1.1.4", "r-reticulate==1.40.0"]
    assert ours["extras"]["pip"] == ["rich==13.8.0"]
    assert ours["micromamba"]["channels"] == ["ours", "conda-forge"]
    assert yaml.safe_load((tmp_path / "sources.yaml").read_text())["conda"] == {"ours": "https://mirror.example/ours"}
    left = {line.removeprefix("  conda-lock.yml: ") for line in error.splitlines()[1:]}
    assert left == {
        "`python==3.11.9`: the notebook's Python is that of the base image",
        "`numpy==2.0.0`: a Python package of conda; add it to extras.pip",
        "`rich==13.7.0`: a Python package of conda; pip locks it too, and that version is carried over",
        "`r-testthat==3.2.1`: belongs to the category dev",
        "`osx-arm64`: an image is for linux-64",
        "`2 packages that others need`: `cregraph lock` chooses their versions",
    }
    assert Project(profile=tmp_path / "cregraph.yaml").asked().targets


def test_a_lock_for_other_platforms_or_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "conda-lock.yml"
    a_conda_lock(file)
    text = file.read_text()
    file.write_text(text.replace("platform: linux-64", "platform: win-64"))
    assert "it has no packages for linux-64" in cregraph(tmp_path, "init", "--from", file.name, code=2).stderr
    file.write_text(text.replace("version: 1", "version: 9", 1))
    assert "conda-lock cannot read it" in cregraph(tmp_path, "init", "--from", file.name, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_without_conda_lock_its_file_is_refused_with_the_extra_to_install(tmp_path: Path) -> None:
    (tmp_path / "conda-lock.yml").write_text("version: 1\nmetadata: {}\npackage: []\n")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "conda_lock.py").write_text("raise ImportError\n")
    path = f"{tmp_path / 'without'}{os.pathsep}{ROOT}"
    error = cregraph(tmp_path, "init", "--from", "conda-lock.yml", code=2, PYTHONPATH=path).stderr
    assert "hint: install the extra: pip install 'cregraph[conda-lock]'" in error
