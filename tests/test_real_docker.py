"""The real image where it is used: real engines of both image stores, a real registry, skopeo and umoci."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engine_names import RUN, repository
from tests.environment import Environment
from tests.real_project import RealProject

pytestmark = [pytest.mark.environment, pytest.mark.docker]

#: Docker puts its own over these in every container, whatever the image has.
DOCKERS = {"etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab"}
#: The folders that Docker mounts into a container or touches there.
MOUNTS = ("proc", "sys", "dev", ".dockerenv")
LISTING = "import os,stat\n" + (
    "for here,folders,files in os.walk('/'):\n"
    "    folders[:]=[f for f in folders if os.path.join(here,f) not in ('/proc','/sys','/dev')]\n"
    "    for name in folders+files:\n"
    "        path=os.path.join(here,name); i=os.lstat(path)\n"
    "        size=i.st_size if stat.S_ISREG(i.st_mode) else 0\n"
    "        link=os.readlink(path) if stat.S_ISLNK(i.st_mode) else ''\n"
    "        print(repr((path[1:],oct(i.st_mode),i.st_uid,i.st_gid,size,link)))\n"
)


def engines() -> list[str]:
    return [os.environ["DOCKER_HOST"], os.environ.get("CREGRAPH_TEST_CLASSIC_HOST", "")]


def docker(host: str, *words: str, stdin: str | None = None) -> str:
    done = subprocess.run(["docker", "-H", host, *words], capture_output=True, text=True, input=stdin, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def name_of(project: RealProject) -> tuple[str, str]:
    name, _, digest = project.ok("build", "team.yaml").out.strip().partition("@")
    return name, digest


def test_a_percent_R_cell_runs_in_a_real_kernel_and_every_asked_for_package_loads(built: RealProject) -> None:
    """No set-up cell; after a restart too; with a renv project in the working folder."""
    done = built.run("test", "team.yaml", "--json")
    assert done.code == 0, done.err + done.out
    checks = {check["name"]: check for check in done.json["checks"]}
    assert all(check["ok"] for check in checks.values()), done.out
    for name in (
        "kernel: %%R is R 4.2.2",
        "kernel: %%R after a restart",
        "kernel: %%R in the folder of a renv project",
        "r: snowflakeR 0.1.0",
        "r: RSnowflake 0.2.0",
        "r: xts 0.14.1",
        "python: rpy2 3.6.4",
        "python: pip check",
    ):
        assert name in checks, sorted(checks)


@pytest.mark.parametrize("store", [0, 1], ids=["containerd", "classic"])
def test_the_bases_own_files_links_modes_and_owners_are_unchanged_in_the_container(
    built: RealProject, environment: Environment, tmp_path: Path, store: int
) -> None:
    host = engines()[store]
    if not host:
        pytest.skip("no engine with the classic store: CREGRAPH_TEST_CLASSIC_HOST not set")
    name, _ = name_of(built)
    built.ok("build", "team.yaml", "--output", "docker", env={"DOCKER_HOST": host})
    base = tmp_path / "base"
    unpack(environment.base, base)
    rows = docker(host, "run", "--rm", "--network", "none", "--entrypoint", "", "-i", name, "python3", "-", stdin=LISTING)
    inside = {row[0]: row for row in map(eval, rows.splitlines())}
    checked = 0
    for here, folders, files in os.walk(base):
        for entry in [*folders, *files]:
            path = Path(here) / entry
            inner = path.relative_to(base).as_posix()
            if inner in DOCKERS or inner.split("/")[0] in MOUNTS:
                continue
            info = path.lstat()
            link = str(path.readlink()) if path.is_symlink() else ""
            size = info.st_size if path.is_file() and not link else 0
            assert inside.get(inner) == (inner, oct(info.st_mode), info.st_uid, info.st_gid, size, link)
            checked += 1
    assert checked > 5000
    assert inside["home/jupyter/.ipython"][2:4] == (1000, 1000)


def unpack(layout: Path, folder: Path) -> None:
    """The files of an image, as umoci unpacks them."""
    tag = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    done = subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{layout}:{tag}", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_skopeo_and_umoci_accept_the_image_and_skopeo_keeps_its_digest(built: RealProject, tmp_path: Path) -> None:
    _, digest = name_of(built)
    image = built.folder / "image"
    copied = subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", f"oci:{image}", f"dir:{tmp_path / 'copy'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert copied.returncode == 0, copied.stderr
    inspected = subprocess.run(
        ["skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{image}"], capture_output=True, text=True, check=True
    )
    assert inspected.stdout.strip() == digest
    unpack(image, tmp_path / "files")
    r = tmp_path / "files" / "home/jupyter/micromamba/envs/workspace_env/lib/R/bin/R"
    assert r.is_file()
    assert (tmp_path / "files" / "opt/sfnb/CRE_VERSION").read_text() == "v1.20250809\n"
    shutil.rmtree(tmp_path / "files")


def test_push_and_pull_keep_the_digest_and_a_second_push_moves_nothing(built: RealProject) -> None:
    registry = os.environ["CREGRAPH_TEST_REGISTRY"]
    name, digest = name_of(built)
    place = f"{registry}/{repository('real')}"
    output = f"registry:{place}"
    first = built.ok("build", "team.yaml", "--output", output, "--json").json["images"][0]
    where = f"{place}/{name}"
    assert first["outputs"] == [f"{where}@{digest}"]
    again = built.ok("build", "team.yaml", "--output", output)
    assert "nothing to push" in again.err
    host = engines()[0]
    docker(host, "pull", "--quiet", where)
    inspected = json.loads(docker(host, "image", "inspect", where))[0]
    assert f"{place}/{name.partition(':')[0]}@{digest}" in inspected["RepoDigests"]
    docker(host, "image", "rm", where)


def test_a_base_in_a_registry_gives_the_same_layers_and_is_mounted_when_pushed(
    built: RealProject, environment: Environment, tmp_path: Path
) -> None:
    """The base by its tag from a named registry: only its address is this machine's, and its layers are not sent again."""
    registry = os.environ["CREGRAPH_TEST_REGISTRY"]
    base = "snowflake/images/snowflake_images/container_runtime/cpu_x86_64"
    source = f"oci:{environment.base}:2.5.0"
    subprocess.run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            source,
            f"docker://{registry}/{base}:{RUN}",
        ],
        check=True,
        capture_output=True,
    )
    project = RealProject.make(tmp_path / "p", environment, store=Path(built.env["CREGRAPH_CACHE"]))
    sources = (project.folder / "sources.yaml").read_text()
    (project.folder / "sources.yaml").write_text(sources + f"registry: {{snowflake: {{host: '{registry}', plain_http: true}}}}\n")
    path = f"DB/Schema/Repo_{RUN.replace('-', '_')}"
    root = f"oci:environment/{environment.build_root.name}"
    project.base_tag(RUN)
    project.edit({"snowbooks": {"build_root": root}, "snowflake": {"image_repo_path": path}})
    project.ok("lock", "team.yaml")
    assert registry not in project.lock.read_text()
    done = project.ok("build", "team.yaml", "--output", "registry")
    assert re.search(r"\d+\.\d MB mounted from (the base's repository|other repositories)", done.err), done.err
    assert done.out.strip().partition("@")[2] == name_of(built)[1]
