"""Diff: what changes between two locks, in words and as JSON; locks from files, profiles and git revisions."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cregraph.cli.diff import diff as run
from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.lock import base_facts_json as facts_json
from cregraph.lock import lock_file as locks
from cregraph.lock.base_facts import BaseFacts, DirFact, LayerFact
from cregraph.lock.lock_file import Identity, Lock, StageRecord
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.plan.planner import make_plan
from cregraph.review.change import as_json, as_text, change_of

PREFIX = "/home/jupyter/micromamba/envs/workspace_env"


def sha(text: str) -> str:
    return (text.encode("utf-8", "surrogatepass").hex() * 64)[:64]


def pin(kind: str, name: str, version: str, *, bytes: str = "", asked: tuple[str, ...] = (), **fields: object) -> Pin:
    artifact = Artifact(kind=kind, source="conda-forge", file=f"{name}-{version}", sha256=sha(bytes or name + version), size=7)
    return Pin(name=name, version=version, artifact=artifact, asked=asked, **fields)  # type: ignore[arg-type]


def base(letter: str = "a", tag: str = "2.5.0") -> Target:
    digest = letter * 64
    artifact = Artifact(kind="image", source="registry:snowflake", file=f"runtime/x86/snowbooks:{tag}", sha256=digest, size=9)
    ask = Ask(kind="image", place="base", stage="snowbooks", what={"tag": tag}, where="p.yaml: cre.snowbooks_tag")
    return Target(kind="image", place="base", asks=(ask,), pins=(Pin(name="base", version=tag, artifact=artifact),))


def target(kind: str, place: str, stage: str, asks: dict[str, str], *pins: Pin, **options: object) -> Target:
    made = tuple(Ask(kind=kind, place=place, stage=stage, what=what, where=where) for what, where in asks.items())
    scope = KINDS[kind].scope(place)
    return Target(kind=kind, place=place, scope=scope, options=options, asks=made, pins=pins)  # type: ignore[arg-type]


def a_file(text: str, where: str = "hook.yaml: at") -> Target:
    ask = Ask(kind="file", place="", stage="hook", what={"at": ["/opt/sfnb/CRE_VERSION"], "text": text}, where=where)
    return Target(kind="file", place="", asks=(ask,))


def a_lock(*targets: Target, label: str = "v1", env: dict[str, str] | None = None) -> Lock:
    stages = (
        StageRecord(name="snowbooks"),
        StageRecord(name="r", needs=("snowbooks",)),
        StageRecord(name="python", needs=("r",)),
        StageRecord(name="hook", env=env or {"TZ": "UTC"}),
    )
    return Lock(identity=Identity(name="n", image="team", label=label, tag=label), stages=stages, targets=targets)


def facts(letter: str = "a") -> BaseFacts:
    layer = LayerFact(digest=f"sha256:{'1' * 64}", diff_id=f"sha256:{'2' * 64}", size=5, media_type="application/x")
    return BaseFacts(
        digest=f"sha256:{letter * 64}",
        config={"architecture": "amd64", "os": "linux"},
        layers=(layer,),
        glibc="2.36",
        users={},
        python=None,
        directories={"/opt": DirFact(mode=0o755, uid=0, gid=0, mtime=0)},
    )


def conda(*pins: Pin, **asks: str) -> Target:
    return target("conda", PREFIX, "r", {k.replace("_", "-"): v for k, v in asks.items()}, *pins)


def python(*pins: Pin, asks: dict[str, str] | None = None) -> Target:
    return target("python", "$(snowbooks.python)", "python", asks or {}, *pins)


OLD = a_lock(
    base(),
    conda(pin("conda", "r-base", "4.5.2"), pin("conda", "r-dplyr", "1.1.4", asked=("r: r-dplyr",)), r_dplyr="r.yaml: packages"),
    target("conda", "/cregraph/python", "python", {}, pin("conda", "python", "3.11.2")),
    python(pin("python", "tabulate", "0.9.0", asked=("python: tabulate",)), asks={"tabulate": "python.yaml: packages"}),
    a_file("v1\n"),
)
NEW = a_lock(
    base("b"),
    conda(
        pin("conda", "r-base", "4.5.2", bytes="other"),
        pin("conda", "r-dplyr", "1.1.5", asked=("r: r-dplyr",)),
        pin("conda", "r-sf", "1.0_16", asked=("r: r-sf",)),
        pin("conda", "proj", "9.4"),
        r_dplyr="r.yaml: packages",
        r_sf="geo.yaml: extras.conda_r",
    ),
    target("conda", "/cregraph/python", "python", {}, pin("conda", "python", "3.11.3")),
    python(),
    a_file("v2\n"),
    label="v2",
    env={"TZ": "UTC", "GDAL_DATA": "/x"},
)


# -- what differs


def test_all_that_differs_is_said_in_one_line_each_by_ecosystem(golden):
    golden.check("diff.txt", as_text(change_of(OLD, NEW)) + "\n")


def test_the_same_answer_for_a_program(golden):
    golden.check("diff.json", json.dumps(as_json(change_of(OLD, NEW)), indent=1, sort_keys=True) + "\n")


def test_a_lock_is_the_same_as_itself_in_whatever_order_and_on_whatever_lines_it_stands():
    turned = replace(NEW, targets=tuple(replace(t, pins=t.pins[::-1], asks=t.asks[::-1]) for t in NEW.targets[::-1]))
    lines = replace(
        turned, targets=tuple(replace(t, asks=tuple(replace(a, where="elsewhere:1") for a in t.asks)) for t in turned.targets)
    )

    assert change_of(NEW, lines).same
    assert as_text(change_of(NEW, lines)) == ""


def test_going_back_swaps_old_and_new():
    forth, back = as_json(change_of(OLD, NEW)), as_json(change_of(NEW, OLD))

    how = {"added": "removed", "removed": "added"}
    assert {(p["target"], p["name"], how.get(p["how"], p["how"])) for p in forth["packages"]} == {
        (p["target"], p["name"], p["how"]) for p in back["packages"]
    }


def test_versions_are_never_put_in_order():
    """A text that no version scheme knows is as good as any."""
    old, new = (a_lock(base(), conda(pin("conda", "x", version))) for version in ("not!a~version", "1_0"))

    assert "not!a~version -> 1_0" in as_text(change_of(old, new))


def test_equal_bytes_from_another_source_are_a_difference_of_their_own():
    old = a_lock(base(), conda(pin("conda", "x", "1", bytes="x")))
    moved = replace(old.targets[1].pins[0], artifact=replace(old.targets[1].pins[0].artifact, source="bioconda"))
    new = a_lock(base(), replace(old.targets[1], pins=(moved,)))

    (change,) = change_of(old, new).diff.pins
    assert (change.how, change.old and change.old.version, change.new and change.new.version) == ("moved", "1", "1")


def test_one_name_in_two_places_says_where():
    def two(version: str) -> Lock:
        root = target("conda", "/root/mm", "r", {}, pin("conda", "zlib", version))
        return a_lock(base(), root, conda(pin("conda", "zlib", version)))

    text = as_text(change_of(two("1"), two("2")))

    assert text.splitlines()[0].endswith(f"1 -> 2  in {PREFIX}")
    assert text.splitlines()[1].endswith("1 -> 2  in /root/mm")


def test_what_only_the_sandbox_sees_is_marked():
    diff = change_of(OLD, NEW)

    assert [(c.name, c.target) for c in diff.diff.pins if c.build] == [("python", "conda:/cregraph/python")]


def test_stages_that_rebuild_and_the_tag_come_from_the_plans():
    old, new = a_lock(base(), a_file("v1\n")), a_lock(base(), a_file("v2\n"), label="v2")

    diff = change_of(old, new, old_plan=make_plan(old, facts()), new_plan=make_plan(new, facts()))

    assert diff.rebuilds == ("hook",)
    assert diff.old and diff.new
    assert as_text(diff).splitlines()[-2:] == ["rebuilds hook (1 of 4)", f"tag      {diff.old.tag} -> {diff.new.tag}"]
    assert diff.old.tag.startswith("v1-") and diff.new.tag.startswith("v2-")


def test_another_label_alone_rebuilds_nothing_and_moves_the_tag():
    old, new = a_lock(base(), label="v1"), a_lock(base(), label="v2")

    diff = change_of(old, new, old_plan=make_plan(old, facts()), new_plan=make_plan(new, facts()))

    assert as_text(diff).splitlines()[:3] == [
        "image    label                    v1 -> v2",
        "         tag                      v1 -> v2",
        "rebuilds nothing (0 of 4)",
    ]


def test_a_hostile_name_moves_no_cursor():
    evil = "x\x1b[2J\x9b31m\r\u202eb\ud800\nfake line"
    new = a_lock(base(), conda(pin("conda", evil, "1\x07", asked=()), pin("conda", "fine", "1")))

    text = as_text(change_of(a_lock(base(), conda()), new))

    assert all(c.isprintable() for line in text.split("\n") for c in line)
    assert len(text.split("\n")) == 2
    assert r"x\x1b[2J\x9b31m\r\u202eb\ud800\nfake line 1\x07" in text


# -- files, profiles, revisions


def git(folder: Path, *argv: str) -> str:
    env = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    return subprocess.run(["git", *argv], cwd=folder, env=env, check=True, capture_output=True, text=True).stdout


def write(folder: Path, lock: Lock, name: str = "team", *, letters: str = "ab") -> Path:
    for letter in letters:
        path = folder / "bases" / f"{letter * 64}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(facts_json.dumps(facts(letter)))
    path = folder / "locks" / f"{name}.lock.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(locks.dumps(lock))
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits: FIRST has the old lock, HEAD the new; inside a folder of the repository."""
    folder = tmp_path / "repo" / "images"
    folder.mkdir(parents=True)
    git(tmp_path / "repo", "init", "-q", "-b", "main")
    write(folder, SMALL_OLD)
    git(tmp_path / "repo", "add", "-A")
    git(tmp_path / "repo", "commit", "-qm", "one")
    git(tmp_path / "repo", "tag", "first")
    write(folder, SMALL_NEW)
    git(tmp_path / "repo", "commit", "-qam", "two")
    monkeypatch.chdir(folder)
    return folder


SMALL_OLD = a_lock(base(), a_file("v1\n"))
SMALL_NEW = a_lock(base(), a_file("v2\n"))
SMALL_TEXT = """\
asks     + text "v2\\n" at /opt/sfnb/CRE_VERSION hook.yaml: at
         - text "v1\\n" at /opt/sfnb/CRE_VERSION hook.yaml: at
rebuilds hook (1 of 4)
"""


def diff(
    capsys: pytest.CaptureFixture[str],
    old: str | None = None,
    new: str | None = None,
    profile: str | None = None,
    format: str = "text",
) -> tuple[int, str, str]:
    code = 0
    try:
        run(old, new, profile=profile, format=format)
    except SystemExit as done:
        code = int(str(done.code))
    out, err = capsys.readouterr()
    return code, out, err


def test_two_revisions_compare_every_lock_and_exit_with_1(project, capsys):
    code, out, err = diff(capsys, "first", "HEAD")

    tags = [make_plan(lock, facts()).tag for lock in (SMALL_OLD, SMALL_NEW)]
    assert (code, out, err) == (1, SMALL_TEXT + f"tag      {tags[0]} -> {tags[1]}\n", "")


def test_a_revision_is_the_same_as_itself_and_exits_with_0(project, capsys):
    assert diff(capsys, "HEAD", "main") == (0, "", "the same\n")


def test_the_answer_for_a_program_says_each_locks_status(project, capsys):
    write(project, SMALL_OLD, "other")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "three")

    code, out, _ = diff(capsys, "first", "HEAD", format="json")

    answer = json.loads(out)
    assert code == 1 and answer["same"] is False
    assert [(one["lock"], one["status"]) for one in answer["locks"]] == [
        ("locks/other.lock.json", "added"),
        ("locks/team.lock.json", "changed"),
    ]
    assert answer["locks"][1]["rebuilds"] == ["hook"]


def test_only_the_lock_of_the_named_profile_is_compared(project, capsys):
    write(project, SMALL_OLD, "other")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "three")

    assert diff(capsys, "first", "HEAD", profile="other.yaml")[1].startswith("lock     + locks/other.lock.json, 1 pins, tag v1-")
    assert diff(capsys, "HEAD", "first", profile="other")[1].startswith("lock     - locks/other.lock.json, 1 pins, tag v1-")
    with pytest.raises(CregraphError, match=r"`first:locks/no\.lock\.json` and `HEAD:locks/no\.lock\.json` do not exist"):
        run("first", "HEAD", profile="no", format="text")


def both(project: Path) -> str:
    """What `diff` says of the change from SMALL_OLD to SMALL_NEW."""
    tags = [make_plan(lock, facts()).tag for lock in (SMALL_OLD, SMALL_NEW)]
    return SMALL_TEXT + f"tag      {tags[0]} -> {tags[1]}\n"


@pytest.mark.parametrize("named", [(), ("HEAD",), ("HEAD", "team.yaml"), ("team.yaml",), ("locks/team.lock.json",)])
def test_the_working_tree_is_compared_with_a_revision_or_head(project, capsys, named):
    (project / "team.yaml").write_text("cre: {}\n")
    assert diff(capsys, *named) == (0, "", "the same\n")
    git(project, "checkout", "-q", "--detach", "first")
    write(project, SMALL_NEW)
    assert diff(capsys, *named) == (1, both(project), "")


def test_one_argument_is_a_revision_and_the_other_side_the_working_tree(project, capsys):
    assert diff(capsys, "first") == (1, both(project), "")
    write(project, SMALL_OLD)
    assert diff(capsys, "first") == (0, "", "the same\n")
    assert diff(capsys)[1].splitlines()[0].endswith('+ text "v1\\n" at /opt/sfnb/CRE_VERSION hook.yaml: at')


def test_locks_that_only_the_working_tree_has_or_lacks_are_told(project, capsys):
    write(project, SMALL_OLD, "other")
    (project / "locks/team.lock.json").unlink()
    out = diff(capsys)[1]
    assert "lock     + locks/other.lock.json, 1 pins" in out and "lock     - locks/team.lock.json, 1 pins" in out
    assert diff(capsys, profile="other.yaml")[1].startswith("lock     + locks/other.lock.json")


@pytest.mark.parametrize("named", ["first..HEAD", "first..", "first..main", "first...HEAD", "first..."])
def test_a_range_is_both_of_its_ends(project, capsys, named):
    assert diff(capsys, named) == (1, both(project), "")
    assert diff(capsys, named.replace("first", "main")) == (0, "", "the same\n")
    assert diff(capsys, "..first")[0] == 1


def test_three_dots_compare_with_the_commit_that_both_histories_have_in_common(project, capsys):
    git(project, "checkout", "-q", "-b", "topic", "first")
    (project / "note").write_text("x")
    git(project, "add", "note")
    git(project, "commit", "-qm", "a change of no lock")
    assert diff(capsys, "main...topic") == (0, "", "the same\n")
    assert diff(capsys, "topic...main") == (1, both(project), "")
    assert diff(capsys, "main..topic")[0] == 1
    git(project, "checkout", "-q", "--orphan", "alone")
    git(project, "commit", "-qm", "another history")
    with pytest.raises(CregraphError, match="`main` and `alone` have no commit in common"):
        run("main...alone")


def test_json_is_short_for_the_format(project, capsys):
    with pytest.raises(SystemExit):
        run("first..HEAD", json=True)
    short = json.loads(capsys.readouterr().out)
    assert short == json.loads(diff(capsys, "first", "HEAD", format="json")[1])
    assert short["version"] == 1


def test_a_file_is_compared_with_itself_at_a_revision(project, capsys, monkeypatch):
    (project / "team.yaml").write_text("cre: {}\n")

    assert diff(capsys, "HEAD", "locks/team.lock.json")[0] == 0
    assert diff(capsys, "first", "team.yaml")[1].startswith(SMALL_TEXT)
    monkeypatch.chdir("/")
    assert diff(capsys, "first", str(project / "locks/team.lock.json"))[1].startswith(SMALL_TEXT)


def test_facts_are_those_of_the_revision_else_of_the_working_tree(project, capsys):
    git(project, "rm", "-q", "--cached", "-r", "bases")
    git(project, "commit", "-qm", "without facts")

    assert "\ntag " in diff(capsys, "first", "HEAD")[1]


def test_without_facts_stages_and_tag_are_left_out_and_that_is_said(project, capsys, tmp_path):
    other = write(tmp_path / "x", SMALL_OLD, letters="")
    another = write(tmp_path / "y", SMALL_NEW, letters="")

    code, out, err = diff(capsys, str(other), str(another))

    assert (code, out) == (1, SMALL_TEXT.removesuffix("rebuilds hook (1 of 4)\n"))
    assert err.splitlines()[0] == f"{other}: `bases/{'a' * 64}.json` does not exist, so stages and tag are unknown"


@pytest.mark.parametrize(
    "revision", ["--upload-pack=touch /tmp/x", "-h", "no-such-branch", "HEAD:locks", "", "x\0y", "a\x1b[2Jb"]
)
def test_what_is_no_revision_is_refused_and_never_an_option_of_git(project, revision):
    with pytest.raises(CregraphError) as caught:
        run("first", revision, profile=None, format="text")

    assert "git revision" in caught.value.message
    assert caught.value.message.isprintable()


def test_the_nearest_lock_is_named(project):
    with pytest.raises(CregraphError) as caught:
        run("first", "locks/taem.lock.json", profile=None, format="text")

    assert str(caught.value) == "`locks/taem.lock.json` is neither a file nor a git revision"
    assert caught.value.hint == "write `locks/team.lock.json` instead"


def test_outside_a_repository_gits_words_are_passed_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    with pytest.raises(CregraphError, match=r"`main` is neither a file nor a git revision: .*not a git repository"):
        run("main", "HEAD", profile=None, format="text")


def test_a_broken_lock_in_a_revision_is_named_with_its_revision(project):
    (project / "locks/team.lock.json").write_text("{\n<<<<<<< a\n")
    git(project, "commit", "-qam", "broken")

    with pytest.raises(CregraphError, match=r"HEAD:locks/team\.lock\.json:2: git's conflict markers"):
        run("first", "HEAD", profile=None, format="text")


def test_an_unknown_format_is_refused():
    with pytest.raises(CregraphError, match="unknown format `html`"):
        run("a", "b", profile=None, format="html")
