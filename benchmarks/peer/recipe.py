"""A build context with the Dockerfile that makes of a lock's artifacts what cregraph makes of them.

Written to do well in BuildKit: the environment is installed by one program with a cache of unpacked packages; each package of
CRAN is compiled in a RUN of its own, so that one that changes leaves those before it; compiling sees only R and what it links to,
so a conda package that nobody compiles against does not compile anything again; what changes often comes last.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import rattler

from benchmarks.scene import Scene
from cregraph.plan.planner import Plan, make_plan
from cregraph.session.project import Project
from cregraph.store import Store

__all__ = ["write"]

_ENV = "/home/jupyter/micromamba/envs/workspace_env"
_ROOT = "/home/jupyter/micromamba"
_PYTHON = "/opt/python/cpython-3.11.2/bin/python3.11"
_HERE = Path(__file__).parent


def write(scene: Scene, folder: Path, *, caches: tuple[str, str], salt: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write the context of the project's lock into `folder`; the named contexts that its Dockerfile uses besides.

    `caches` name the builder's caches of unpacked packages: of the stages that compile, of the image. `salt` makes something look
    changed once more, though the builder has seen the change before: a package of CRAN by name, or `conda`. A file that is the
    same as before is left as it is, so that the builder need not be sent it again.
    """
    salt = salt or {}
    project = Project(profile=scene.project.folder / "team.yaml")
    lock = project.read_lock()
    assert lock is not None
    plan = make_plan(lock, project.facts(lock.base))
    store = Store(scene.store)
    pinned: dict[str, list[str]] = {
        target.id.partition(":")[2]: sorted(f"{p.name} {p.version} {p.data['build']}" for p in target.pins)
        for target in lock.targets
        if target.kind == "conda"
    }
    seen = {
        name: sorted({f"{s.name}" for task in plan.tasks if task.kind == kind for s in _beneath(plan, task.environment)})
        for name, kind in (("library", "r"), ("wheel", "python"))
    }
    files: dict[str, bytes | Path] = {"install.py": _HERE / "install.py", ".dockerignore": b""}
    lines = {line.split()[0]: line for line in pinned[_ENV]}
    files["pins/environment"] = _text([*pinned[_ENV], f"# {salt.get('conda', '')}"])
    files["pins/root"] = _text(pinned[_ROOT])
    files["pins/python"] = _text(pinned["/cregraph/python"])
    files["pins/library"] = _text(lines[name] for name in seen["library"] if name in lines)
    compiling, final = caches
    body = _library(plan, store, files, compiling, salt) + _wheel(plan, store, files, compiling)
    body += _final(plan, store, files, final)
    files["Dockerfile"] = body.encode()
    _put(folder, files)
    tools = folder.parent / "tools"
    if not tools.exists():
        shutil.copytree(Path(rattler.__file__).parent, tools / "rattler", ignore=shutil.ignore_patterns("__pycache__"))
    base = {name: f"oci-layout://{path}@sha256:{pin.artifact.sha256}" for name, path, pin in (
        ("base", scene.environment.base, lock.base), ("build-root", scene.environment.build_root, lock.build_root)
    )}  # fmt: skip
    return {**base, "tools": str(tools), "channel": str(scene.environment.conda / "conda-forge")}


def _library(plan: Plan, store: Store, files: dict[str, bytes | Path], cache: str, salt: Mapping[str, str]) -> str:
    tasks = {task.key: task for task in plan.tasks if task.kind == "r"}
    order: list[str] = []

    def visit(key: str) -> None:
        if key not in order:
            for need in sorted(tasks[key].needs, key=lambda k: tasks[k].name):
                visit(need)
            order.append(key)

    for key in sorted(tasks, key=lambda k: tasks[k].name):
        visit(key)
    flags = "".join(f"{name} += -march=x86-64 -mtune=generic -g0\n" for name in ("CFLAGS", "CXXFLAGS", "CXX11FLAGS", "CXX14FLAGS",
                                                                                 "CXX17FLAGS", "FFLAGS", "FCFLAGS"))  # fmt: skip
    files["Makevars"] = flags.encode()
    text = f"""\
FROM base AS environment
{_installed("library", _ENV, cache)}

FROM build-root AS library
COPY --from=environment {_ENV} {_ENV}
ENV R_LIBS=/out PATH={_ENV}/bin:/usr/local/bin:/usr/bin:/bin R_MAKEVARS_USER=/Makevars TZ=UTC LC_ALL=C.UTF-8
COPY Makevars /Makevars
RUN mkdir /out
"""
    for key in order:
        task = tasks[key]
        file = f"cran/{task.name}.tar.gz"
        files[file] = store.path_of(task.artifacts[0].sha256)
        text += (
            f"RUN --mount=source={file},target=/src.tar.gz : '{salt.get(task.name, '')}'; "
            f"mkdir /tmp/s && tar -xf /src.tar.gz -C /tmp/s --no-same-owner && "
            f"R CMD INSTALL --no-lock --no-staged-install --library=/out /tmp/s/* && rm -r /tmp/s\n"
        )
    return text + "\n"


def _wheel(plan: Plan, store: Store, files: dict[str, bytes | Path], cache: str) -> str:
    text = ""
    for task in plan.tasks:
        if task.kind != "python":
            continue
        files["build_wheel.py"] = task.argv[3].encode()
        for name, artifact in zip(task.inputs, task.artifacts, strict=True):
            files[f"in/{name}"] = store.path_of(artifact.sha256)
        env = " ".join(f"{name}='{value}'" for name, value in task.env.items())
        text += f"""\
FROM base AS python
{_installed("python", "/cregraph/python", cache)}

FROM library AS wheel
COPY --from=python /cregraph/python /cregraph/python
RUN --mount=source=in,target=/cregraph/in --mount=source=build_wheel.py,target=/build_wheel.py \\
    mkdir -p /cregraph/build /cregraph/out && cd /cregraph/build && \\
    env {env} {task.argv[0]} -s /build_wheel.py '{task.argv[-1]}'

"""
    return text


def _final(plan: Plan, store: Store, files: dict[str, bytes | Path], cache: str) -> str:
    site = ""
    for segment in plan.segments.values():
        if segment.kind == "python":
            site = str(segment.place["site_packages"])
            if segment.artifact is not None:
                files[f"wheels/{segment.artifact.file.rpartition('/')[2]}"] = store.path_of(segment.artifact.sha256)
        elif segment.kind == "file" and segment.name.startswith(("/opt", "/root", "/home", "/var")):
            at = f"root{segment.place['at']}"
            if segment.artifact is not None:
                files[at] = store.path_of(segment.artifact.sha256)
            elif "text" in segment.place:
                files[at] = str(segment.place["text"]).encode()
    env = " ".join(f"{name}={value}" for name, value in plan.env.items())
    return f"""\
FROM base AS image
{_installed("root", _ROOT, cache)}
{_installed("environment", _ENV, cache)}
COPY --from=library /out/ {_ENV}/lib/R/library/
RUN --mount=source=wheels,target=/wheels --mount=from=wheel,source=/cregraph/out,target=/built \\
    for wheel in /wheels/*.whl /built/*.whl; do {_PYTHON} -m zipfile -e $wheel {site}; done
ENV {env}
COPY root/ /
"""


def _installed(pins: str, prefix: str, cache: str) -> str:
    return f"""\
RUN --mount=from=tools,target=/tools --mount=from=channel,target=/mnt/conda-forge --mount=type=cache,id={cache},target=/pkgs \\
    --mount=source=install.py,target=/install.py --mount=source=pins/{pins},target=/pins \\
    PYTHONPATH=/tools {_PYTHON} /install.py /mnt/conda-forge /pins {prefix}"""


def _beneath(plan: Plan, keys: tuple[str, ...]) -> list[object]:
    everything = {**plan.segments, **plan.hidden}
    return [everything[key] for key in keys]


def _text(lines: object) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()  # type: ignore[attr-defined]


def _put(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.read_bytes() if isinstance(content, Path) else content
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(folder)) not in files:
            path.unlink()
