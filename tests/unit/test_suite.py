"""A suite of ours: what it means, and what it refuses, by file, field and line."""

import json
import textwrap
from typing import Any

import jsonschema
import pytest

from adapterbot.errors import InputError
from adapterbot.eval.suite import load_suite
from adapterbot.eval.suite_file import json_schema
from adapterbot.files.tree import WorkTree
from adapterbot.records import Direction, ScoreKind, Unit
from tests.programs import python

ROWS = [
    {"prompt": "3. März 2024", "expected": "2024-03-03", "category": "eu", "doc": "a"},
    {"prompt": "03/04/24 (US)", "expected": "2024-03-04", "category": "us", "doc": "a"},
    {"prompt": "2024-05-06", "expected": "2024-05-06", "category": "iso", "doc": "b"},
]


@pytest.fixture
def load(tmp_path):
    """Write a suite and its data, and load it."""

    def run(suite, rows=ROWS, **files):
        folder = tmp_path / "evals"
        folder.mkdir(exist_ok=True)
        (folder / "suite.yaml").write_text(textwrap.dedent(suite), encoding="utf-8")
        if rows is not None:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            (folder / "dates.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name, content in files.items():
            target = folder / name.replace("__", ".")
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_suite(WorkTree(tmp_path), "evals/suite.yaml")

    return run


def one(extra="", scorer="exact"):
    """A suite with one task."""
    return (
        f"version: 1\ntasks:\n  - name: dates\n    data: dates.jsonl\n    scorer: {scorer}\n"
        + textwrap.indent(textwrap.dedent(extra), "    ")
    )


def test_a_task_with_nothing_but_the_necessary(load):
    (task,) = load(one()).tasks
    assert (task.name, task.scorer, task.kind, task.unit) == (
        "dates",
        "exact",
        ScoreKind.BINARY,
        Unit.FRACTION,
    )
    assert (task.direction, task.gated, task.margin, task.least_effect, task.weight) == (
        Direction.HIGHER,
        True,
        0.02,
        0.0,
        1.0,
    )
    assert [s.prompt for s in task.samples] == [row["prompt"] for row in ROWS]
    assert [s.slice for s in task.samples] == ["eu", "us", "iso"]
    assert task.samples[0].cluster is None
    assert task.samples[0].fields["doc"] == "a"


def test_rows_that_ask_the_same_are_one_cluster(load):
    """Attack: 20 questions, each five times over, would count as 100 samples, and an adapter that
    is no worse would be called regressed in one run of five."""
    rows = [{"prompt": f"p{i % 2}", "expected": f"e{i}", "id": f"r{i}"} for i in range(4)]
    (task,) = load(one(), [*rows, {"prompt": "p", "expected": "e0", "id": "alone"}]).tasks
    assert [s.cluster for s in task.samples] == ["r0", "r1", "r0", "r1", None]
    # The suite's own word counts, and what is asked may be the choices, or the text itself.
    (task,) = load(one("cluster: expected"), rows).tasks
    assert [s.cluster for s in task.samples] == ["e0", "e1", "e2", "e3"]
    (task,) = load(one("gated: false", scorer="perplexity"), rows).tasks
    assert {s.cluster for s in task.samples} == {None}
    chosen = [{**row, "choices": ["x", row["expected"]]} for row in rows]
    (task,) = load(one(scorer="multiple_choice"), chosen).tasks
    assert {s.cluster for s in task.samples} == {None}


def test_everything_a_task_may_say(load):
    suite = load(
        """
        version: 1
        description: dates
        defaults:
          data: [dates.jsonl, more.jsonl]
          scorer: exact
          margin: 0.05
          generation: {max_new_tokens: 12, stop: ["\\n"]}
        tasks:
          - name: by-text
            cluster: doc
            slice: [category, doc]
            limit: 3
            template: "Date: {{ prompt }} ({{ row['doc'] }})"
          - name: by-number
            scorer: {name: numeric, tolerance: 0.5}
            fields: {prompt: doc, expected: n}
            data: more.jsonl
            direction: lower
            margin: 1
            least_effect: 0.5
            gated: false
            weight: 2
            generation: {temperature: 0.7, seed: 3}
        """,
        more__jsonl='{"prompt": "p", "expected": "x", "doc": "c", "category": "eu", "n": 4}\n',
    )
    text, number = suite.tasks
    assert len(text.samples) == 3
    assert text.samples[0].prompt.startswith("Date: ")
    assert {s.cluster for s in text.samples} <= {"a", "b", "c"}
    assert all(" / " in s.slice for s in text.samples)
    assert (text.margin, text.generation.max_new_tokens, text.generation.stop) == (
        0.05,
        12,
        ("\n",),
    )
    (sample,) = number.samples
    assert (sample.prompt, sample.expected) == ("c", "4")
    assert (number.direction, number.margin, number.least_effect) == (Direction.LOWER, 1.0, 0.5)
    assert (number.gated, number.weight) == (False, 2.0)
    assert (number.generation.max_new_tokens, number.generation.temperature) == (12, 0.7)


def test_the_suite_names_every_file_it_read(load):
    suite = load(
        """
        version: 1
        tasks:
          - {name: a, data: [dates.jsonl, more.jsonl], scorer: exact}
          - {name: b, data: dates.jsonl, scorer: {name: json_schema, schema: schema.json}}
          - {name: c, data: dates.jsonl, scorer: "python:check:score", margin: 1}
        """,
        more__jsonl='{"prompt": "p", "expected": "x"}\n',
        schema__json="{}",
        check__py="",
        unused__py="",
    )
    names = ("check.py", "dates.jsonl", "more.jsonl", "schema.json", "suite.yaml")
    assert suite.files == tuple(f"evals/{name}" for name in names)


def test_messages_and_choices_of_a_row_reach_its_sample(load):
    rows = [
        {
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "choices": ["red", 2],
            "expected": 1,
        }
    ]
    (sample,) = load(one(scorer="multiple_choice"), rows).tasks[0].samples
    assert [m.role for m in sample.messages] == ["system", "user"]
    assert sample.prompt == "system: s\nuser: u"
    assert sample.choices == ("red", "2")


def test_a_key_of_a_message_that_is_null_is_not_there(load):
    """Attack: in Parquet every message has the keys of all others, and none could be used."""
    messages = [{"role": "user", "content": "u", "name": None, "tool_calls": None}]
    (sample,) = load(one(), [{"messages": messages, "expected": "x"}]).tasks[0].samples
    assert [(m.role, m.content) for m in sample.messages] == [("user", "u")]


def test_a_template_prints_no_null(load):
    """Attack: a column of Parquet that some rows lack; their prompts said "None"."""
    rows = [{"said": "a", "hint": None, "expected": "x"}]
    with pytest.raises(InputError, match="prints what is null") as caught:
        load(one("template: '{{ said }} {{ hint }}'"), rows)
    assert caught.value.field == "line 1"
    asked = load(one("template: '{{ said }}{% if hint %} {{ hint }}{% endif %}'"), rows)
    assert asked.tasks[0].samples[0].prompt == "a"


def test_likelihood_takes_whole_texts(load):
    suite = load(one("margin: 0.1", "perplexity"), [{"text": "once upon"}])
    (sample,) = suite.tasks[0].samples
    assert (sample.prompt, sample.expected) == ("", "once upon")
    assert suite.tasks[0].unit is Unit.NUMBER


def test_ids_come_from_content_and_survive_edits(load):
    before = {s.prompt: s.id for s in load(one()).tasks[0].samples}
    after = {
        s.prompt: s.id
        for s in load(one(), [{"prompt": "new", "expected": "x"}, *ROWS]).tasks[0].samples
    }
    assert {prompt: after[prompt] for prompt in before} == before
    doubled = load(one(), [ROWS[0], ROWS[0]]).tasks[0].samples
    assert doubled[1].id == f"{doubled[0].id}.2"


def test_limit_does_not_depend_on_the_order_of_the_file(load):
    rows = [{"prompt": f"p{i}", "expected": "x"} for i in range(50)]
    chosen = {s.prompt for s in load(one("limit: 10"), rows).tasks[0].samples}
    assert chosen == {s.prompt for s in load(one("limit: 10"), rows[::-1]).tasks[0].samples}
    assert len(chosen) == 10
    assert chosen != {f"p{i}" for i in range(10)}


class TestDigest:
    """It changes with what decides the scores, and with nothing else."""

    @pytest.mark.parametrize(
        "extra",
        ["margin: 0.5", "weight: 3", "gated: false", "least_effect: 0.1", "direction: lower"],
    )
    def test_policy_does_not_change_a_tasks_digest(self, load, extra):
        plain, changed = load(one()), load(one(extra))
        assert plain.tasks[0].digest == changed.tasks[0].digest
        assert plain.digest != changed.digest

    @pytest.mark.parametrize(
        ("extra", "scorer"),
        [
            ("limit: 2", "exact"),
            ("template: '{{ prompt }} '", "exact"),
            ("generation: {max_new_tokens: 9}", "exact"),
            ("generation: {seed: 1}", "exact"),
            ("slice: doc", "exact"),
            ("", "contains"),
            ("", "{name: exact, ignore_case: true}"),
        ],
    )
    def test_content_changes_it(self, load, extra, scorer):
        assert load(one()).tasks[0].digest != load(one(extra, scorer)).tasks[0].digest

    def test_data_changes_it(self, load):
        changed = [{**ROWS[0], "expected": "2024-03-04"}, *ROWS[1:]]
        assert load(one()).tasks[0].digest != load(one(), changed).tasks[0].digest

    def test_name_and_defaults_written_out_keep_it(self, load):
        long = one(scorer="{name: exact, strip: true}").replace("name: dates", "name: other")
        assert load(one()).tasks[0].digest == load(long).tasks[0].digest


REFUSED = {
    "no version": ("tasks: []", "version", "is missing"),
    "other version": ("version: 2\ntasks: []", "version (line 1)", "is 2; it must be 1"),
    "no task": ("version: 1\ntasks: []", "tasks (line 2)", "is empty"),
    "a list": ("- a", None, "not a mapping"),
    "empty": ("", None, "not a mapping"),
    "not YAML": ("version: [", "line", "not YAML"),
    "unknown key": (one("slcie: a"), "tasks[0].slcie (line 6)", "did you mean 'slice'?"),
    "unknown generation": (
        one("generation: {max_tokens: 3}"),
        "tasks[0].generation.max_tokens (line 6)",
        "did you mean 'max_new_tokens'?",
    ),
    "unknown scorer": (one(scorer="exat"), "tasks[0].scorer (line 5)", "did you mean 'exact'?"),
    "unknown option": (
        one(scorer="{name: numeric, tolerence: 1}"),
        "tasks[0].scorer.tolerence (line 5)",
        "did you mean 'tolerance'?",
    ),
    "negative tolerance": (
        one(scorer="{name: numeric, tolerance: -1}"),
        "tasks[0].scorer.tolerance (line 5)",
        "is -1; it must be at least 0",
    ),
    "scorer a number": (one(scorer="3"), "tasks[0].scorer (line 5)", "write the scorer's name"),
    "scorer with a colon": (one(scorer="'shell:ls'"), "tasks[0].scorer (line 5)", "only python:"),
    "no scorer": (one().replace("    scorer: exact\n", ""), "tasks[0].scorer (line 3)", "missing"),
    "no data": (one().replace("    data: dates.jsonl\n", ""), "tasks[0].data (line 3)", "missing"),
    "margin in percent": (one("margin: 5%"), "tasks[0].margin (line 6)", "is '5%', not a number"),
    "NaN margin": (one("margin: .nan"), "tasks[0].margin (line 6)", "finite"),
    "infinite margin": (one("margin: .inf"), "tasks[0].margin (line 6)", "finite"),
    "negative margin": (
        one("margin: -1"),
        "tasks[0].margin (line 6)",
        "is -1; it must be at least 0",
    ),
    "no weight": (one("weight: 0"), "tasks[0].weight (line 6)", "is 0; it must be more than 0"),
    "no margin": (one(scorer="perplexity"), "tasks[0].margin (line 3)", "is missing"),
    "bad direction": (one("direction: up"), "tasks[0].direction (line 6)", "'higher' or 'lower'"),
    "key twice": (one("scorer: exact"), "line 6", "twice"),
    "two of a name": (one() + one()[len("version: 1\ntasks:\n") :], "the file", "'dates'"),
    "path escapes": (
        one().replace("dates.jsonl", "../../etc/passwd"),
        "tasks[0].data (line 4)",
        "evals/suite.yaml: tasks[0].data (line 4): evals/../../etc/passwd leaves the repository",
    ),
    "absolute path": (one().replace("dates.jsonl", "/etc/passwd"), "tasks[0].data", "absolute"),
    "no such file": (one().replace("dates.jsonl", "nope.jsonl"), None, "does not exist"),
    "unknown suffix": (one().replace("dates.jsonl", "suite.yaml"), None, "not a data file"),
    "template syntax": (one("template: '{{ prompt'"), "tasks[0] (line 3).template", "not a Jinja"),
    "cluster unknown": (one("cluster: dco"), "line 1", "did you mean 'doc'?"),
    "field unknown": (one("fields: {prompt: promt}"), "line 1", "did you mean 'prompt'?"),
    "filled in by us": (
        one("margin: 1", "{name: command, argv: [a], contents: {}}"),
        "tasks[0].scorer.contents (line 5)",
        "filled in",
    ),
    "python short form": (one("margin: 1", "'python:score'"), "tasks[0].scorer", "module:function"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(load, case):
    suite, field, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        load(suite)
    assert message in str(caught.value)
    assert field is None or field in (caught.value.field or "")
    assert caught.value.file
    assert caught.value.fix
    assert "\n" not in str(caught.value)


BAD_ROWS: dict[str, tuple[list[Any], str]] = {
    "no prompt": ([{"promt": "x", "expected": "y"}], "did you mean 'promt'?"),
    "empty prompt": ([{"prompt": "", "expected": "y"}], "has no `prompt`"),
    "no expected": ([{"prompt": "x"}], "has no `expected`"),
    "a null expected": ([{"prompt": "x", "expected": None}], "has no `expected`"),
    "ids twice": ([{"id": 1, **ROWS[0]}, {"id": "1", **ROWS[1]}], "repeats the id '1'"),
    "id a list": ([{"id": [1], **ROWS[0]}], "neither text nor a whole number"),
    "id too long": ([{"id": "x" * 201, **ROWS[0]}], "more than 200"),
    "messages text": ([{"messages": "hi", "expected": "x"}], "not a list"),
    "message without role": ([{"messages": [{"content": "x"}], "expected": "x"}], "role"),
    "choices text": ([{"choices": "ab", **ROWS[0]}], "`choices` that are not a list"),
    "long slice": ([{**ROWS[0], "category": "x" * 201}], "slice of 201"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_refused_with_their_line(load, case):
    rows, message = BAD_ROWS[case]
    with pytest.raises(InputError, match=r"dates\.jsonl") as caught:
        load(one(), rows)
    assert message in str(caught.value)
    assert f"line {len(rows)}" in (caught.value.field or "")


def test_too_many_slices(load):
    rows = [{"prompt": f"p{i}", "expected": "x", "category": str(i)} for i in range(101)]
    with pytest.raises(InputError, match="more than 100 slices"):
        load(one(), rows)
    assert load(one("slice: []"), rows).tasks[0].samples[0].slice is None


class TestHostile:
    def test_alias_bomb(self, load):
        bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
        for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
            bomb += f"{name}: &{name} [{', '.join([f'*{previous}'] * 9)}]\n"
        with pytest.raises(InputError, match="aliases"):
            load("version: 1\n" + bomb)

    @pytest.mark.parametrize(
        "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!x 1"]
    )
    def test_a_tag_that_makes_objects_is_refused(self, load, tag):
        with pytest.raises(InputError):
            load(f"version: 1\ntasks: {tag}\n")

    @pytest.mark.parametrize(
        "template",
        [
            "{{ ''.__class__.__mro__ }}",
            "{{ ().__class__.__base__.__subclasses__() }}",
            "{{ self._TemplateReference__context }}",
            "{{ row.update({'prompt': 'x'}) }}",
            "{{ cycler.__init__.__globals__.os.system('true') }}",
            "{{ nothing }}",
            "{{ 1 / 0 }}",
            "{{ prompt + 1 }}",
            "{% for i in range(1000000000) %}{{ i }}{% endfor %}",
            "{% include '/etc/passwd' %}",
        ],
    )
    def test_templates_stay_in_the_sandbox(self, load, template):
        with pytest.raises(InputError, match="template"):
            load(one(f"template: {json.dumps(template)}"))

    def test_a_prompt_that_explodes(self, load):
        loop = "{% for i in range(1000) %}{% for j in range(1000) %}xx{% endfor %}{% endfor %}"
        with pytest.raises(InputError, match="prompt of 2,000,000 characters"):
            load(one(f"template: '{loop}'"))

    def test_symbolic_link(self, load, tmp_path):
        (tmp_path / "evals").mkdir()
        (tmp_path / "evals" / "dates.jsonl").symlink_to("/etc/passwd")
        with pytest.raises(InputError, match="symbolic link"):
            load(one(), rows=None)

    def test_a_suite_too_large(self, load):
        with pytest.raises(InputError, match="more than the 262,144"):
            load("version: 1\n" + "#" * 300_000)

    def test_deep_nesting(self, load):
        with pytest.raises(InputError, match="nested too deeply"):
            load("version: " + "[" * 5000 + "]" * 5000)


def test_the_published_schema_agrees_with_the_loader(load):
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = {
        "version": 1,
        "defaults": {"data": "dates.jsonl"},
        "tasks": [
            {"name": "a", "scorer": "exact"},
            {"name": "b", "scorer": {"name": "numeric", "tolerance": 0.1}, "margin": 0.1},
            {"name": "c", "scorer": "python:checks:score", "margin": 1, "slice": []},
            {"name": "d", "scorer": {"name": "json_schema", "schema": "s.json"}},
        ],
    }
    assert list(validator.iter_errors(good)) == []
    changes: tuple[dict[str, Any], ...] = (
        {"tasks": []},
        {"version": 2},
        {"tasks": [{"name": "a", "scorer": "exat"}]},
        {"tasks": [{"name": "a", "scorer": {"name": "numeric", "tolerence": 1}}]},
        {"tasks": [{"name": "a", "scorer": {"name": "command", "argv": ["x"], "contents": {}}}]},
        {"tasks": [{"name": "a", "slcie": "x"}]},
        {"extra": 1},
    )
    for change in changes:
        assert not validator.is_valid({**good, **change})


def test_loading_a_suite_needs_neither_torch_nor_time(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "expected": "b"}\n')
    (tmp_path / "s.yaml").write_text("version: 1\ntasks: [{name: a, data: d.jsonl, scorer: exact}]")
    program = """
        import sys, time, pydantic, yaml, pathlib, subprocess, hashlib, tempfile
        import adapterbot.records  # every command pays for these three
        started = time.process_time()
        from adapterbot.eval.suite import load_suite
        took = time.process_time() - started
        from adapterbot.files.tree import WorkTree
        load_suite(WorkTree(pathlib.Path(sys.argv[1])), "s.yaml")
        heavy = {"torch", "transformers", "numpy", "jsonschema", "sacrebleu", "requests", "regex"}
        print(sorted(heavy & set(sys.modules)), took)
    """
    times = []
    for _ in range(3):
        done = python("-c", textwrap.dedent(program), str(tmp_path), check=True)
        loaded, took = done.stdout.rsplit(" ", 1)
        assert loaded == "[]"
        times.append(float(took))
    assert min(times) < 0.15
