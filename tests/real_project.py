"""A project on the test environment, driven as a person drives it: by the command line, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.engine_names import RUN
from tests.environment import Environment

HERE = Path(__file__).parent


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class RealProject:
    """A folder with the environment's profile `team.yaml`, its sources, and the environment beside it under a relative name."""

    folder: Path
    environment: Environment
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(
        cls, folder: Path, environment: Environment, *, address: str | None = None, store: Path | None = None
    ) -> RealProject:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "environment").symlink_to(environment.root)
        text = (HERE / "environment" / "profile.yaml").read_text(encoding="utf-8")
        for mark, image in (("@BASE@", environment.base), ("@BUILD_ROOT@", environment.build_root)):
            text = text.replace(mark, f"environment/{image.name}")
        text = text.replace("sfnb-test-r", f"{RUN}-r")  # an engine may be others' too
        (folder / "team.yaml").write_text(text, encoding="utf-8")
        project = cls(folder=folder, environment=environment)
        project.route(address)
        project.env["CREGRAPH_CACHE"] = str(store or folder / "cache")
        return project

    def route(self, address: str | None) -> None:
        """Let sources lead to a server, or with None to file://."""
        (self.folder / "sources.yaml").write_text(self.environment.sources(address), encoding="utf-8")

    def base_tag(self, tag: str) -> None:
        """Ask for the base by another tag."""
        path = self.folder / "team.yaml"
        text = path.read_text(encoding="utf-8")
        assert 'snowbooks_tag: "2.5.0"' in text
        path.write_text(text.replace('snowbooks_tag: "2.5.0"', f'snowbooks_tag: "{tag}"'), encoding="utf-8")

    def edit(self, change: Mapping[str, Any] | None = None, *, name: str = "team.yaml", **extras: Any) -> None:
        """Replace top-level sections, or fields of `extras`, of the profile."""
        path = self.folder / name
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
        profile |= change or {}
        profile["extras"] |= extras
        path.write_text(yaml.safe_dump(profile, sort_keys=False), encoding="utf-8")

    def run(self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 600, prefix: tuple[str, ...] = ()) -> Done:
        """Run `cregraph WORDS` in the project's folder."""
        whole = {**os.environ, **self.env, **(env or {})}
        whole.pop("CREGRAPH_SOURCES", None)
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "cregraph", *words],
            cwd=self.folder,
            env=whole,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, **kwargs: Any) -> Done:
        """Run a command that must succeed."""
        done = self.run(*words, **kwargs)
        assert done.code == 0, f"cregraph {' '.join(words)} ended with {done.code}\n{done.err}\n{done.out}"
        return done

    @property
    def lock(self) -> Path:
        return self.folder / "locks" / "team.lock.json"

    def digest(self) -> str:
        """Lock (if need be) and build; the image's name with its digest."""
        self.ok("lock", "team.yaml")
        return self.ok("build", "team.yaml").out.strip()
