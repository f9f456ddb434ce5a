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


def cregraph(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CREGRAPH_CACHE": str(folder / "cache")}
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
    assert "`locks/cregraph.lock.json` does not exist" in cregraph(tmp_path, "lock", "--check", code=1).stderr
    line = next(n for n, one in enumerate(text.splitlines(), 1) if "registry_url:" in one)
    error = cregraph(tmp_path, "lock", code=2).stderr
    assert f"cregraph.yaml:{line}: snowflake.registry_url: the host of the registry is missing" in error
    (tmp_path / "cregraph.yaml").write_text(text.replace("registry_url:", "registry_url: 127.0.0.1:1"))
    assert "127.0.0.1:1" in cregraph(tmp_path, "lock", code=2).stderr


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


def test_a_lock_of_conda_lock_is_read_by_its_own_models(tmp_path: Path) -> None:
    head = {"content_hash": {"linux-64": "0"}, "channels": [{"url": "conda-forge", "used_env_vars": []}]}
    row = {"manager": "conda", "platform": "linux-64", "hash": {"md5": "0" * 32}, "category": "main", "optional": False}
    packages = [
        {**row, "name": name, "version": version, "dependencies": needs, "url": f"https://x.example/linux-64/{name}.conda"}
        for name, version, needs in (
            ("r-base", "4.4.1", {}),
            ("r-rlang", "1.1.4", {"r-base": ""}),
            ("r-dplyr", "1.1.4", {"r-rlang": ""}),
        )
    ]
    lock = {"version": 1, "metadata": {**head, "platforms": ["linux-64"], "sources": ["environment.yml"]}, "package": packages}
    (tmp_path / "conda-lock.yml").write_text(yaml.safe_dump(lock))
    try:
        import conda_lock  # noqa: F401
    except ImportError:
        assert "install the extra" in cregraph(tmp_path, "init", "--from", "conda-lock.yml", code=2).stderr
        return
    cregraph(tmp_path, "init", "--from", "conda-lock.yml")
    ours = made(tmp_path)
    assert (ours["cre"]["r_version"], ours["extras"]["conda_r"]) == ("4.4.1", ["r-dplyr==1.1.4"])
    assert Project(profile=tmp_path / "cregraph.yaml").asked().targets
