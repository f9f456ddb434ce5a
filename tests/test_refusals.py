"""What is refused, with the whole message: file, line, field, and the way out."""

from __future__ import annotations

import pytest

from tests.composing import MINIMAL, ROOT, refusal, with_recipe

CRE = "tag: v1, r_version: '4.5.2', snowbooks_tag: '2.5.0'"


PROFILES = {
    "an unknown field, with the nearest": (
        'cre:\n  tag: v1\n  r_version: "4.5.2"\n  snowbooks_tag: "2.5.0"\n  r_verson: "4.5"\n',
        "p.yaml:5: cre.r_verson: unknown field",
        "write `cre.r_version` instead",
    ),
    "an unknown section, with the nearest": (
        MINIMAL + "extra:\n  pip: [x]\n",
        "p.yaml:3: extra.pip: unknown field",
        "write `extras.pip` instead",
    ),
    "an unknown key at the top": (
        MINIMAL + "extend: base.yaml\n",
        "p.yaml:2: extend: unknown field",
        "write `extends` instead",
    ),
    "an unknown field that states nothing": (
        MINIMAL + "extras:\n  conda-r:\n",
        "p.yaml:3: extras.conda-r: unknown field",
        "write `extras.conda_r` instead",
    ),
    "a field with its section in one key": (
        MINIMAL + "cre.tag: v2\n",
        "p.yaml:2: cre.tag: unknown field",
        "write `cre.tag` instead",
    ),
    "a field of a stage that cre.adbc switches off": (
        f"cre:\n  {{{CRE},\n  adbc: false}}\nadbc:\n  version: 1.11.0\n",
        "p.yaml:5: adbc.version: read by stage `adbc`, which is switched off by cre.adbc on line 3",
        "remove this field, or switch the stage on",
    ),
    "a field of a stage that without switches off": (
        MINIMAL + "without: [tarballs]\ntarballs: {zoo: ./zoo}\n",
        "p.yaml:3: tarballs.zoo: read by stage `tarballs`, which is switched off by without on line 2",
        "remove this field, or switch the stage on",
    ),
    "a parameter that is read from elsewhere": (
        MINIMAL + "r:\n  extra: [r-sf]\n",
        "p.yaml:3: r.extra: stage `r` reads its parameter `extra` from another field",
        "write `extras.conda_r`",
    ),
    "the address of a mirror": (
        MINIMAL + "extras:\n  cran_mirror: https://cran.example\n",
        "p.yaml:3: extras.cran_mirror: the address of a mirror belongs in sources.yaml, not in a profile",
        "remove it, and write `cran: <address>` in sources.yaml",
    ),
    "a number where a text is needed": (
        "cre:\n  tag: v1\n  r_version: 4.50\n  snowbooks_tag: 2.5.0\n",
        "p.yaml:3: cre.r_version: expected a text, but YAML reads 4.50 as a number",
        'quote it: "4.50"',
    ),
    "a number in a list": (
        MINIMAL + "extras: {conda_r: [r-a, 3]}\n",
        "p.yaml:2: extras.conda_r[1]: expected a text, but YAML reads 3 as a number",
        'quote it: "3"',
    ),
    "a text where a list is needed": (
        MINIMAL + "extras: {pip: tabulate}\n",
        "p.yaml:2: extras.pip: expected a list, not a text",
        "write [tabulate]",
    ),
    "a mapping where a list is needed": (
        MINIMAL + "extras: {cran: {zoo: x}}\n",
        "p.yaml:2: extras.cran: expected a list, not a mapping",
        None,
    ),
    "a list where a text is needed": (
        MINIMAL + "r: {name: [a]}\n",
        "p.yaml:2: r.name: expected a text, not a list",
        None,
    ),
    "a boolean where a text is needed": (
        MINIMAL + "r: {name: true}\n",
        "p.yaml:2: r.name: expected a text, not the boolean true",
        'quote it: "true"',
    ),
    "yes where a boolean is needed": (
        f"cre: {{{CRE}, adbc: yes}}\n",
        "p.yaml:1: cre.adbc: expected true or false, not the text `yes`",
        "write true or false",
    ),
    "no choice of the list": (
        f"cre: {{{CRE}, base_image_type: gpu}}\n",
        "p.yaml:1: cre.base_image_type: unknown value `gpu` (expected CPU, GPU)",
        "write `GPU` instead",
    ),
    "no date": (
        MINIMAL + "extras: {cran_snapshot: 2025-02-30}\n",
        "p.yaml:2: extras.cran_snapshot: `2025-02-30` is not a date",
        "write year, month and day: 2025-06-01",
    ),
    "no R package": (
        MINIMAL + "extras: {cran: [survival=3.5-8]}\n",
        "p.yaml:2: extras.cran[0]: `survival=3.5-8` is not an R package with a version",
        "write name, name==1.2.3 or name>=1.2, with a version of two numbers or more; a tarball goes under `tarballs`",
    ),
    "an R version of one number": (
        MINIMAL + "extras: {cran: [xts==99]}\n",
        "p.yaml:2: extras.cran[0]: `xts==99` is not an R package with a version",
        "write name, name==1.2.3 or name>=1.2, with a version of two numbers or more; a tarball goes under `tarballs`",
    ),
    "a tarball on this machine": (
        MINIMAL + "tarballs: {mine: 'file:///srv/mine.tar.gz'}\n",
        "p.yaml:2: tarballs.mine: `file:///srv/mine.tar.gz` is not an address of a tarball or a path in the project",
        "write https://…, or ./file for a file next to the profile",
    ),
    "a tarball of the image": (
        MINIMAL + "tarballs: {mine: /srv/mine.tar.gz}\n",
        "p.yaml:2: tarballs.mine: `/srv/mine.tar.gz` is not an address of a tarball or a path in the project",
        "write https://…, or ./file for a file next to the profile",
    ),
    "no requirement": (
        MINIMAL + "extras: {pip: ['rpy2=3.5']}\n",
        "p.yaml:2: extras.pip[0]: `rpy2=3.5` is not a Python requirement (PEP 508)",
        "write name, name==1.2.3 or name>=1.2,<2",
    ),
    "an empty text": (MINIMAL + "r: {name: ''}\n", "p.yaml:2: r.name: an empty text", None),
    "tarballs as a list": (
        MINIMAL + "tarballs: [a.tar.gz]\n",
        "p.yaml:2: tarballs: expected a mapping from R package to address or path, not a list",
        "write `name: https://…`",
    ),
    "a tarball's name that is none": (
        MINIMAL + "tarballs: {my_pkg: ./a.tar.gz}\n",
        "p.yaml:2: tarballs.my_pkg: `my_pkg` is not the name of an R package",
        None,
    ),
    "a password in an address": (
        MINIMAL + "tarballs: {zoo: 'https://user:secret@x.example/zoo.tar.gz'}\n",
        "p.yaml:2: tarballs.zoo: the address contains a user or password, which the lock must not contain",
        "put them into ~/.netrc",
    ),
    "a path out of the project": (
        MINIMAL + "tarballs: {zoo: ../zoo.tar.gz}\n",
        "p.yaml:2: tarballs.zoo: `../zoo.tar.gz` leads out of the project",
        "move the file into the project",
    ),
    "a reference in a profile": (
        MINIMAL + "r: {name: $(version)}\n",
        "p.yaml:2: r.name: `$(version)`: references are for a recipe's steps, gives, env and checks",
        None,
    ),
    "a field stated twice": (
        MINIMAL + "extras:\n  pip: [a]\n  cran: []\n  pip: [b]\n",
        "p.yaml:5: extras.pip: stated twice; the first is on line 3",
        None,
    ),
    "a required field that is missing": (
        "cre:\n  tag: v1\n  snowbooks_tag: '2.5.0'\n",
        "p.yaml:1: cre.r_version: `cre.r_version` is missing; stage `r` needs it",
        'the version of R, such as "4.5.2"',
    ),
    "a missing label": (
        "cre: {r_version: '4.5.2', snowbooks_tag: '2.5.0'}\n",
        "p.yaml:1: cre.tag: `cre.tag` or `cre.version_label` is missing",
        "write `tag: v1`",
    ),
    "a label that is no tag": (
        MINIMAL.replace("v1", "v 1"),
        "p.yaml:1: cre.tag: `v 1` cannot be used here",
        "letters, digits, `_`, `.` and `-`, at most 115 of them, and not `.` or `-` first",
    ),
    "an image with upper case": (
        f"cre: {{{CRE}, image: MyImage}}\n",
        "p.yaml:1: cre.image: `MyImage` cannot be used here",
        "use lower-case letters and digits, with `.`, `_` or `-` between them",
    ),
    "a name that Snowflake does not take": (
        f"cre: {{{CRE}, name: my-team}}\n",
        "p.yaml:1: cre.name: `my-team` cannot be used here",
        "use a letter or `_`, then letters, digits and `_`",
    ),
    "a registry with a scheme": (
        MINIMAL + "snowflake: {registry_url: 'https://x.example'}\n",
        "p.yaml:2: snowflake.registry_url: `https://x.example` cannot be used here",
        "write only the host, such as myorg-acct.registry.snowflakecomputing.com",
    ),
    "a section that is no mapping": (
        MINIMAL + "extras: [r-sf]\n",
        "p.yaml:2: extras: expected a mapping of fields, not a list",
        "write `extras: {field: value}`",
    ),
    "a profile that is no mapping": ("- a\n", "p.yaml:1: a profile must be a mapping, not a list", "begin with `cre:`"),
    "an empty profile": (
        "# nothing\n",
        "p.yaml: the file is empty",
        "begin with `cre: {tag: v1}`; `cregraph demo` writes one that works",
    ),
    "an unknown stage in with": (
        MINIMAL + "with: [micromanba]\n",
        "p.yaml:2: with[0]: unknown recipe `micromanba`",
        "write `micromamba` instead",
    ),
    "an unknown stage in without": (
        MINIMAL + "without: [tarball]\n",
        "p.yaml:2: without[0]: unknown stage `tarball`",
        "write `tarballs` instead",
    ),
    "a stage both in and out": (
        MINIMAL + "with: [adbc]\nwithout: [adbc]\n",
        "p.yaml:3: without[0]: `adbc` is in `with` too, on line 2",
        "remove one of them",
    ),
    "cre.adbc against without": (
        f"cre: {{{CRE}, adbc: true}}\nwithout: [adbc]\n",
        "p.yaml:1: cre.adbc: `without` on line 2 says the opposite",
        "remove one of them",
    ),
    "a name where a list of stages is needed": (
        MINIMAL + "with: duckdb\n",
        "p.yaml:2: with: expected a list of stages, not a text",
        "write `with: [duckdb]`",
    ),
    "a stage that others need": (
        MINIMAL + "without: [python]\n",
        "recipes/hook.yaml:3: needs[1]: stage `hook` needs `python`, which is switched off by without on line 2 of `p.yaml`",
        "switch `python` on, or `hook` off too",
    ),
    "no stage that brings an image": (
        'cre: {tag: v1, r_version: "4.5.2"}\nwithout: [snowbooks, r, cran, tarballs, adbc, python, hook]\n',
        "recipes/micromamba.yaml:3: needs[0]: stage `micromamba` needs `base`, which is not in this image",
        "add `base` to `with` in `p.yaml`",
    ),
    "two stages that bring an image": (
        MINIMAL + "with: [base]\nbase: {image: x}\n",
        "p.yaml:2: with[0]: stages `snowbooks` and `base` both bring the base image",
        "remove one of them: `without: [snowbooks]`",
    ),
    "a parent that is not there": (
        "extends: base.yaml\n",
        "p.yaml:1: extends: `base.yaml` cannot be read: No such file or directory",
        None,
    ),
    "a parent by absolute path": (
        "extends: /base.yaml\n",
        "p.yaml:1: extends: expected the path of a profile relative to this file",
        "write `extends: other.yaml`",
    ),
    "a syntax error": (
        MINIMAL + "r: name: x\n",
        "p.yaml:2: invalid YAML: mapping values are not allowed here (column 8)",
        "quote a text that contains `: `",
    ),
    "an alias": (
        "a: &x [1]\nb: *x\n",
        "p.yaml:1: `&x` is an anchor, and anchors are not allowed",
        "remove it, or quote a text that begins with `&`",
    ),
    "a key that is a number": (
        MINIMAL + "tarballs: {4: x}\n",
        "p.yaml:2: a key must be a text, not the number 4",
        'write "4":',
    ),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_refused(name: str) -> None:
    text, message, hint = PROFILES[name]
    assert refusal(text) == (message, hint)


RECIPES = {
    "an unknown key": ("step: []\n", "recipes/mine.yaml:2: step: a recipe has no key `step`", "write `steps` instead"),
    "an unknown key of a parameter": (
        "params:\n  a: {type: text, defualt: x, required: true}\nenv: {A: $(a)}\n",
        "recipes/mine.yaml:3: params.a.defualt: a parameter has no key `defualt`",
        "write `default` instead",
    ),
    "an unknown type": (
        "params:\n  a: {type: string, default: x}\nenv: {A: $(a)}\n",
        "recipes/mine.yaml:3: params.a.type: unknown type `string`",
        "write one of text, texts, path, boolean, choice, date, conda-specs, r-packages, r-tarballs, requirements",
    ),
    "a type nearly right": (
        "params:\n  a: {type: conda-spec, default: []}\nsteps: [{conda: {prefix: /p, specs: $(a)}}]\n",
        "recipes/mine.yaml:3: params.a.type: unknown type `conda-spec`",
        "write `conda-specs` instead",
    ),
    "a default of another type": (
        "params:\n  a: {type: texts, default: [x, 1.10]}\nsteps: [{conda: {prefix: /p, specs: $(a)}}]\n",
        "recipes/mine.yaml:3: params.a.default[1]: expected a text, but YAML reads 1.10 as a number",
        'quote it: "1.10"',
    ),
    "neither default nor required": (
        "params:\n  a: {type: text}\nenv: {A: $(a)}\n",
        "recipes/mine.yaml:3: params.a: a parameter needs either a default or `required: true`",
        "write `default: null` for a value that is not set",
    ),
    "a default that refers to no needed stage": (
        "needs: [r]\nparams:\n  a: {type: path, default: $(base.home)/x}\nenv: {A: $(a)}\n",
        "recipes/mine.yaml:4: params.a: `$(base.home)` in a default: no stage in `needs`",
        "write $(stage.give)",
    ),
    "a default that refers to what is not given": (
        "needs: [base]\nparams:\n  a: {type: path, default: $(base.hme)/x}\nenv: {A: $(a)}\n",
        "recipes/mine.yaml:4: a: stage `snowbooks` gives no `hme`",
        "write `$(base.home)` instead",
    ),
    "a default of a list that refers": (
        "needs: [base]\nparams:\n  a: {type: texts, default: [$(base.home)]}\nenv: {A: $(a)}\n",
        "recipes/mine.yaml:4: params.a.default[0]: `$(base.home)`: references are for a recipe's steps, gives, env and checks",
        None,
    ),
    "a parameter that nothing uses": (
        "params:\n  a: {type: text, default: x}\n",
        "recipes/mine.yaml:3: params.a: no step, give, variable or check refers to this parameter",
        "use $(a), or leave it out",
    ),
    "records that differ": (
        "params:\n  a:\n    type: choice\n    default: X\n    values: {X: {b: c}, Y: {d: e}}\nenv: {A: $(a)}\n",
        "recipes/mine.yaml:6: params.a.values.Y: this record has other fields than the first, which has b",
        None,
    ),
    "an unknown kind": (
        "steps:\n- cnda: {prefix: /p}\n",
        "recipes/mine.yaml:3: steps[0].cnda: unknown kind `cnda`",
        "write `conda` instead",
    ),
    "two kinds in one step": (
        "steps:\n- {conda: {prefix: /p, specs: []}, file: {at: /a, text: b}}\n",
        "recipes/mine.yaml:3: steps[0]: a step must have one kind with its fields",
        "write `- conda: {…}`; the kinds are archive, conda, file, image, python, r",
    ),
    "an unknown field of a kind": (
        "steps:\n- conda: {prefix: /p, specs: [], spec: [a]}\n",
        "recipes/mine.yaml:3: steps[0].conda.spec: kind `conda` has no field `spec`",
        "write `specs` instead",
    ),
    "a field of a kind that is missing": (
        "steps:\n- conda: {prefix: /p}\n",
        "recipes/mine.yaml:3: steps[0].conda: kind `conda` needs the field `specs`",
        None,
    ),
    "a field of a kind that is not set": (
        "params: {a: {type: path, default: null}}\nsteps:\n- conda: {prefix: $(a), specs: []}\n",
        "recipes/mine.yaml:4: steps[0].conda.prefix: kind `conda` needs this field, but it is not set",
        None,
    ),
    "a field of a step with a wrong type": (
        "steps:\n- conda: {prefix: [/p], specs: []}\n",
        "recipes/mine.yaml:3: steps[0].conda.prefix: expected a text, not a list",
        None,
    ),
    "a number in a step": (
        "steps:\n- file: {at: /a, text: x, mode: 0755}\n",
        "recipes/mine.yaml:3: steps[0].file.mode: expected a text, but YAML reads 0755 as a number",
        'quote it: "0755"',
    ),
    "a path out of the recipe's folder": (
        "steps:\n- file: {at: /a, from: ../secret}\n",
        "recipes/mine.yaml:3: steps[0].file.from: `../secret` is not a path below the folder of the recipe",
        "write ./file",
    ),
    "an unknown need": (
        "needs: [snowboks]\n",
        "recipes/mine.yaml:2: needs[0]: stage `mine` needs `snowboks`, which is an unknown recipe",
        "write `snowbooks` instead",
    ),
    "a reference to what is not needed": (
        "needs: [snowbooks]\nsteps:\n- conda: {prefix: $(r.prefix), specs: []}\n",
        "recipes/mine.yaml:4: steps[0].conda.prefix: stage `mine` does not need `r`",
        "add `r` to its needs",
    ),
    "a base that is not needed": (
        "needs: [python]\nsteps:\n- python: {into: $(snowbooks.python), requirements: []}\n",
        "recipes/mine.yaml:4: steps[0].python.into: stage `mine` does not need `snowbooks`",
        "add `snowbooks` to its needs",
    ),
    "a give that a stage does not have": (
        "needs: [r]\nsteps:\n- conda: {prefix: $(r.prefx), specs: []}\n",
        "recipes/mine.yaml:4: steps[0].conda.prefix: stage `r` gives no `prefx`",
        "write `$(r.prefix)` instead",
    ),
    "a fact that a base does not have": (
        "needs: [snowbooks]\nsteps:\n- python: {into: $(snowbooks.pyton), requirements: []}\n",
        "recipes/mine.yaml:4: steps[0].python.into: stage `snowbooks` gives no `pyton`",
        "write `$(snowbooks.python)` instead",
    ),
    "a reference to a stage that there is not": (
        "needs: [r]\nenv: {A: $(rr.prefix)}\n",
        "recipes/mine.yaml:3: env.A: unknown stage or choice `rr`",
        "write `$(r.prefix)` instead",
    ),
    "a reference to no parameter": (
        "params: {version: {type: text, default: x}}\nenv: {A: $(verson), B: $(version)}\n",
        "recipes/mine.yaml:3: env.A: unknown parameter or give `verson`",
        "write `$(version)` instead",
    ),
    "a field that a choice does not have": (
        "params: {a: {type: choice, default: X, values: {X: {path: c}}}}\nenv: {A: $(a.pth)}\n",
        "recipes/mine.yaml:3: env.A: the choice `a` has no field `pth`",
        "write `$(a.path)` instead",
    ),
    "a list in text": (
        "needs: [r]\nsteps:\n- conda: {prefix: /p, specs: ['r-sf $(r.channels)']}\n",
        "recipes/mine.yaml:4: steps[0].conda.specs[0]: `$(r.channels)` is a list and cannot stand inside text",
        "give it an item of its own in a list",
    ),
    "nothing in text": (
        "params: {a: {type: text, default: null}}\nenv: {A: x$(a)}\n",
        "recipes/mine.yaml:3: env.A: `$(a)` stands inside text and is not set (see recipes/mine.yaml:2: a)",
        None,
    ),
    "a fact of the base in text": (
        "needs: [snowbooks]\nsteps:\n- file: {at: '$(snowbooks.python)/x', text: y}\n",
        "recipes/mine.yaml:4: steps[0].file.at: `$(snowbooks.python)` is known only after locking and cannot stand inside text",
        "give it a value of its own",
    ),
    "a reference that computes": (
        "env: {A: '$(a + 1)'}\n",
        "recipes/mine.yaml:2: env.A: `$(a + 1)` is not a reference",
        "write $(param), $(give) or $(stage.give)",
    ),
    "a reference left open": (
        "env: {A: '$(a'}\n",
        "recipes/mine.yaml:2: env.A: `$(a` has no closing bracket",
        "write $(name)",
    ),
    "gives that lead back": (
        "gives:\n  a: $(b)\n  b: x$(a)\n",
        "recipes/mine.yaml:4: gives.b: a give refers to itself: `a` needs `b` needs `a`",
        None,
    ),
    "a give under a parameter's name": (
        "params: {a: {type: text, default: x}}\ngives: {a: y$(a)}\n",
        "recipes/mine.yaml:3: gives.a: `a` is a parameter too, so `$(a)` would be ambiguous",
        "rename it, or give $(a)",
    ),
    "a variable that another stage sets differently": (
        "env: {TZ: Europe/Berlin}\n",
        "recipes/mine.yaml:2: env.TZ: set to `Europe/Berlin` here, and to `UTC` by recipes/r.yaml:36: env.TZ",
        "remove one of the two, because a variable has one value",
    ),
    "a list as variable": (
        "needs: [r]\nenv: {A: $(r.channels)}\n",
        "recipes/mine.yaml:3: env.A: the value of a variable must be a text, not a list",
        None,
    ),
    "PATH": (
        "env: {PATH: /opt/bin}\n",
        "recipes/mine.yaml:2: env.PATH: an image may not set PATH: the base's own python and pip must stay first on it",
        "remove it",
    ),
    "LD_LIBRARY_PATH": (
        "env: {LD_LIBRARY_PATH: /opt/lib}\n",
        "recipes/mine.yaml:2: env.LD_LIBRARY_PATH: an image may not set LD_LIBRARY_PATH: "
        "every program of the base would load this image's libraries",
        "remove it",
    ),
    "R_HOME": (
        "env: {R_HOME: /opt/R}\n",
        "recipes/mine.yaml:2: env.R_HOME: an image may not set R_HOME: the kernel hook sets it, for the kernel's process only",
        "remove it",
    ),
    "LD_PRELOAD": (
        "env: {LD_PRELOAD: /x.so}\n",
        "recipes/mine.yaml:2: env.LD_PRELOAD: an image may not set LD_PRELOAD: every program of the base would load it",
        "remove it",
    ),
    "PYTHONPATH": (
        "env: {PYTHONPATH: /x}\n",
        "recipes/mine.yaml:2: env.PYTHONPATH: an image may not set PYTHONPATH: "
        "the base's Python would import other packages than its own",
        "remove it",
    ),
    "PYTHONHOME": (
        "env: {PYTHONHOME: /x}\n",
        "recipes/mine.yaml:2: env.PYTHONHOME: an image may not set PYTHONHOME: "
        "the base's Python would no longer find its library",
        "remove it",
    ),
    "HOME": (
        "env: {HOME: /x}\n",
        "recipes/mine.yaml:2: env.HOME: an image may not set HOME: the base decides whose home a session has",
        "remove it",
    ),
    "an unknown check": (
        "checks:\n- R: library(DBI)\n",
        "recipes/mine.yaml:3: checks[0].R: unknown check `R`",
        "write `r` instead",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_refused(name: str) -> None:
    text, message, hint = RECIPES[name]
    assert refusal(with_recipe(text)) == (message, hint)


def test_a_recipe_under_another_name_is_refused() -> None:
    files = {"p.yaml": MINIMAL + "with: [mine]\n", "recipes/mine.yaml": "recipe: yours\n"}
    assert refusal(files) == ("recipes/mine.yaml:1: recipe: `yours` is not the name of the file", "write `recipe: mine`")


def test_a_cycle_is_refused_with_its_path() -> None:
    files = {
        "p.yaml": MINIMAL + "with: [a, b, c]\n",
        "recipes/a.yaml": "recipe: a\nneeds: [r, b]\n",
        "recipes/b.yaml": "recipe: b\nneeds: [c]\n",
        "recipes/c.yaml": "recipe: c\nneeds: [a]\n",
    }
    assert refusal(files) == (
        "recipes/a.yaml:2: needs[1]: stages need each other: `a` needs `b` needs `c` needs `a`",
        "leave out one of these needs",
    )


def test_profiles_that_extend_each_other_are_refused_with_the_path() -> None:
    files = {"p.yaml": "extends: t/a.yaml\n", "t/a.yaml": "extends: b.yaml\n", "t/b.yaml": "with: []\nextends: a.yaml\n"}
    assert refusal(files) == (
        "t/b.yaml:2: extends: profiles extend each other: `t/a.yaml` extends `t/b.yaml` extends `t/a.yaml`",
        "leave out one `extends`",
    )


def test_a_stage_that_a_child_switches_off_names_the_childs_line() -> None:
    files = {
        "base.yaml": MINIMAL.replace("}", ", adbc: false}"),
        "p.yaml": "extends: base.yaml\nadbc: {version: 1.11.0}\n",
    }
    assert refusal(files) == (
        "p.yaml:2: adbc.version: read by stage `adbc`, which is switched off by cre.adbc on line 1 of `base.yaml`",
        "remove this field, or switch the stage on",
    )


def test_the_section_of_a_teams_recipe_that_is_not_in_the_image_is_refused() -> None:
    files = {"p.yaml": MINIMAL + "mine: {version: a}\n", "recipes/mine.yaml": "recipe: mine\n"}
    assert refusal(files) == (
        "p.yaml:2: mine.version: stage `mine` is not in this image",
        "add `with: [mine]`, or remove this field",
    )


def test_a_need_that_is_not_in_the_image_is_refused() -> None:
    files = with_recipe("needs: [other]\n") | {"recipes/other.yaml": "recipe: other\n"}
    assert refusal(files) == (
        "recipes/mine.yaml:2: needs[0]: stage `mine` needs `other`, which is not in this image",
        "add `other` to `with` in `p.yaml`",
    )


def test_a_label_dropped_from_the_parent_is_not_found_again() -> None:
    files = {
        "base.yaml": 'cre: {version_label: v1, r_version: "4.5.2", snowbooks_tag: "2.5.0"}\n',
        "p.yaml": "extends: base.yaml\ncre:\n  tag: v 2\n",
    }
    assert refusal(files)[0] == "p.yaml:3: cre.tag: `v 2` cannot be used here"


def test_several_problems_are_told_together_by_line_with_the_way_out_of_each() -> None:
    text = "cre:\n  tag: v1\n  r_version: 4.5\n  r_verson: x\n  snowbooks_tag: '2.5.0'\nextra: {pip: [x]}\nextras: {pip: x}\n"
    assert refusal(text) == (
        'p.yaml:3: cre.r_version: expected a text, but YAML reads 4.5 as a number (quote it: "4.5")\n'
        "p.yaml:4: cre.r_verson: unknown field (write `cre.r_version` instead)\n"
        "p.yaml:6: extra.pip: unknown field (write `extras.pip` instead)\n"
        "p.yaml:7: extras.pip: expected a list, not a text (write [x])",
        None,
    )


def test_a_thousand_problems_are_told_in_twenty_one_lines() -> None:
    message, _ = refusal(MINIMAL + "".join(f"x{i}: {{a: b}}\n" for i in range(1000)))
    assert message.count("\n") == 20
    assert message.endswith("\nand 980 more")


def test_a_message_shows_nothing_that_moves_the_cursor() -> None:
    message, _ = refusal(MINIMAL + '"a\\e[2Jb\\nc": {x: y}\n')
    assert message == "p.yaml:2: a\\x1b[2Jb\\nc.x: unknown field"


def test_the_message_that_the_docs_show_is_true() -> None:
    text = (ROOT / "docs" / "profile.md").read_text(encoding="utf-8")
    profile = PROFILES["an unknown field, with the nearest"][0]
    message, hint = refusal({"my_team.yaml": profile}, "my_team.yaml")
    assert f"error: {message}\nhint: {hint}\n" in text
