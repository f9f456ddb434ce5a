"""What `cregraph export` writes, built by a real engine: the same files as cregraph's own image, a kernel that runs `%%R`."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine_names import RUN, repository
from tests.environment import Environment
from tests.real_project import RealProject

pytestmark = [pytest.mark.environment, pytest.mark.docker]

BASE = "snowflake/images/snowflake_images/container_runtime/cpu_x86_64"
#: Written by the engine into every container.
ENGINES = {"etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", ".dockerenv"}
MOUNTS = ("dev", "proc", "sys")
#: Directories that the engine touches when it writes its own files there: all but their time is compared.
TOUCHED = {"etc"}


def docker(*words: str, cwd: Path | None = None, host: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DOCKER_HOST": host or os.environ["DOCKER_HOST"], "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=600, cwd=cwd, env=env, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def tree(image: str) -> dict[str, tuple[object, ...]]:
    """Every path of a container: type, mode, owner, time, size, link."""
    container = docker("create", "--network", "none", "--pull", "never", image).stdout.strip()
    try:
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            docker("export", "--output", file.name, container)
            with tarfile.open(file.name) as archive:
                return dict(_row(info) for info in archive if _compared(info.name.rstrip("/")))
    finally:
        docker("rm", "--force", container)


def _compared(path: str) -> bool:
    return path not in ENGINES and path.split("/")[0] not in MOUNTS


def _row(info: tarfile.TarInfo) -> tuple[str, tuple[object, ...]]:
    path = info.name.rstrip("/")
    time = 0 if path in TOUCHED else int(info.mtime)
    return path, (info.type, oct(info.mode), info.uid, info.gid, time, info.size, info.linkname)


def pushed(environment: Environment, layout: Path, tag: str, name: str) -> str:
    registry = os.environ["CREGRAPH_TEST_REGISTRY"]
    subprocess.run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            f"oci:{layout}:{tag}",
            f"docker://{registry}/{name}",
        ],
        check=True,
        capture_output=True,
    )
    return f"{registry}/{name}"


@pytest.fixture(scope="module")
def registered(built: RealProject, environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> RealProject:
    """The project with base and build root in a registry, as in an account; locked, its store that of `built`."""
    registry = os.environ["CREGRAPH_TEST_REGISTRY"]
    pushed(environment, environment.base, "2.5.0", f"{BASE}:{RUN}")
    root = pushed(environment, environment.build_root, "bookworm", f"{repository('build-root')}:bookworm")
    project = RealProject.make(tmp_path_factory.mktemp("export") / "p", environment, store=Path(built.env["CREGRAPH_CACHE"]))
    sources = (project.folder / "sources.yaml").read_text()
    (project.folder / "sources.yaml").write_text(sources + f"registry: {{snowflake: {{host: '{registry}', plain_http: true}}}}\n")
    project.base_tag(RUN)
    project.edit({"snowbooks": {"build_root": root}})
    project.ok("lock", "team.yaml")
    return project


@pytest.fixture(scope="module")
def from_layers(built: RealProject) -> Iterator[str]:
    """The image that `docker build` makes of the layers, by the very command that the export prints."""
    done = built.ok("export", "dockerfile", "team.yaml", "--output", "dockerfile")
    folder, command = re.fullmatch(r"cd (\S+) && (docker build .*)", done.out.strip()).groups()  # type: ignore[union-attr]
    docker(*shlex.split(command)[1:], cwd=built.folder / folder)
    name = shlex.split(command)[-2]
    yield name
    docker("image", "rm", "--force", name)


def own_name(project: RealProject) -> str:
    return project.ok("build", "team.yaml").out.partition("@")[0]


def test_docker_build_over_our_layers_gives_the_same_files_modes_owners_times_variables_and_labels(
    built: RealProject, from_layers: str
) -> None:
    name = own_name(built)
    assert from_layers == f"{name}-docker"
    built.ok("build", "team.yaml", "--output", "docker")
    own, other = tree(name), tree(from_layers)
    assert len(own) > 15_000
    assert {
        path: (own.get(path), other.get(path)) for path in own.keys() | other.keys() if own.get(path) != other.get(path)
    } == {}
    configs = [json.loads(docker("image", "inspect", image).stdout)[0] for image in (name, from_layers)]
    for part in ("Env", "Labels", "Entrypoint", "Cmd", "User", "WorkingDir", "ExposedPorts"):
        assert configs[0]["Config"][part] == configs[1]["Config"][part], part
    assert configs[0]["Id"] != configs[1]["Id"]


def test_verify_finds_the_locks_packages_and_every_byte_in_it(built: RealProject, from_layers: str) -> None:
    done = built.ok("verify", from_layers, "team.yaml", "--json").json
    assert (done["ok"], done["by"], done["unread"]) == (True, "content", 0)
    lock = json.loads(built.lock.read_text())
    pins = [p for t in lock["targets"] if t["kind"] in ("conda", "r", "python") and "/cregraph" not in t["id"] for p in t["pins"]]
    assert done["packages"] == sum(1 for p in pins if p.get("data", {}).get("role") != "build")


def test_a_cell_of_R_runs_in_it(built: RealProject, from_layers: str) -> None:
    tried(built, from_layers)


def tried(project: RealProject, image: str) -> None:
    done = project.run("test", "team.yaml", "--image", image, "--json")
    assert done.code == 0, done.err + done.out
    checks = {check["name"]: check["ok"] for check in done.json["checks"]}
    assert checks["kernel: %%R is R 4.2.2"]
    assert all(checks.values())


def test_a_task_stage_compiles_its_package_again_in_the_sandbox(built: RealProject) -> None:
    built.ok("export", "dockerfile", "team.yaml", "--with-tasks", "--output", "tasks")
    text = (built.folder / "tasks" / "Dockerfile").read_text()
    command = re.search(r"^# (docker build .* --target r-iterators-[0-9a-f]{12}) \.$", text, re.MULTILINE)
    assert command is not None
    said = docker(
        *shlex.split(command[1])[1:], "--output", "type=cacheonly", "--progress", "plain", ".", cwd=built.folder / "tasks"
    )
    assert "DONE (iterators)" in said.stderr or "CACHED" in said.stderr


def test_the_older_image_store_builds_it_too(registered: RealProject) -> None:
    host = os.environ.get("CREGRAPH_TEST_CLASSIC_HOST")
    if not host:
        pytest.skip("no engine with the classic store: CREGRAPH_TEST_CLASSIC_HOST not set")
    done = registered.ok("export", "dockerfile", "team.yaml", "--output", "dockerfile", "--json").json
    docker("build", "-t", done["image"], ".", cwd=registered.folder / "dockerfile", host=host)
    verified = registered.ok("verify", done["image"], "team.yaml", "--json", env={"DOCKER_HOST": host}).json
    docker("image", "rm", "--force", done["image"], host=host)
    assert (verified["ok"], verified["by"], verified["unread"]) == (True, "content", 0)


def test_a_builder_without_our_artifacts_makes_an_image_with_every_file_of_the_lock_in_which_a_cell_of_R_runs(
    registered: RealProject, environment: Environment
) -> None:
    """As Snowflake's in-account builder would: a flat folder, nothing given to the build, downloads by digest."""
    with environment.serve() as server:
        sources = environment.sources(server.address)
        (registered.folder / "builder.yaml").write_text(
            sources + (registered.folder / "sources.yaml").read_text().splitlines()[-1]
        )
        words = (
            "export",
            "dockerfile",
            "team.yaml",
            "--flavor",
            "image-builder",
            "--output",
            "flat",
            "--sources",
            "builder.yaml",
        )
        done = registered.ok(*words, "--json").json
        folder = registered.folder / "flat"
        assert all(path.is_file() for path in folder.iterdir())
        assert done["image"] == f"{own_name(registered)}-builder"
        docker("build", "--network", "host", "-t", done["image"], str(folder))
        assert server.paths("*.conda")
    try:
        # What was compiled there may differ in bytes: its libraries and tools are its own. All else may not.
        verified = registered.ok("verify", done["image"], "team.yaml", "--recompiled", "--json").json
        assert (verified["ok"], verified["by"], verified["unread"]) == (True, "content", 0)
        tried(registered, done["image"])
    finally:
        docker("image", "rm", "--force", done["image"])


def test_stages_that_profiles_share_are_built_once(registered: RealProject) -> None:
    """Both profiles: one file, one run; every layer is added once, and each image is what its lock says."""
    wide = "extends: team.yaml\ncre: {name: wide, image: IMAGE, tag: v1, version_label: v1.wide}\n".replace("IMAGE", f"{RUN}-w")
    (registered.folder / "wide.yaml").write_text(wide)
    registered.ok("lock", "wide.yaml")
    done = registered.ok("export", "bake", "team.yaml", "wide.yaml", "--output", "bake", "--json")
    folder = registered.folder / "bake"
    listed = json.loads(docker("buildx", "bake", "--print", cwd=folder).stdout)
    assert listed["group"]["default"]["targets"] == ["team", "wide"]
    tags = [tag for target in listed["target"].values() for tag in target.get("tags", [])]
    assert sorted(tags) == sorted(done.json["images"])
    assert all(tag.endswith("-docker") for tag in tags)
    text = (folder / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
    assert len(stages) == len(set(stages))
    assert sum(stage.startswith("r-") for stage in stages) == 1
    assert sum(stage.startswith("hook-") for stage in stages) == 2
    said = docker("buildx", "bake", "--load", "--progress", "plain", cwd=folder).stderr
    # A step's line comes again whenever its output goes on; its number says which step it is.
    steps = set(re.findall(r"^(#\d+) \[.*\] ADD --link (layers/\S+)", said, re.MULTILINE))
    assert len(steps) == len({layer for _, layer in steps}) == text.count("\nADD --link ")
    for profile, tag in zip(("team.yaml", "wide.yaml"), done.json["images"], strict=True):
        assert registered.ok("verify", tag, profile, "--json").json["ok"]
        docker("image", "rm", "--force", tag)
