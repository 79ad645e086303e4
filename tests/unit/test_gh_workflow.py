"""Workflow commands against a re-implementation of the runner's parser.

The oracle follows github.com/actions/runner: ActionCommand.cs (both syntaxes),
ActionCommandManager.cs (stop-commands), FileCommandManager.cs (GITHUB_OUTPUT). Lines are split as
the runner's ReadLine splits them, at \\n, \\r and \\r\\n.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pydantic_core
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapterbot.errors import OurFailure
from adapterbot.gh import workflow
from adapterbot.gh.workflow import (
    ENDGROUP,
    Level,
    Note,
    annotation,
    append_summary,
    group,
    guarded,
    harmless,
    harmless_json,
    mask,
    write_outputs,
)

COMMANDS = {
    *("error", "warning", "notice", "debug", "group", "endgroup", "add-mask", "add-path"),
    *("set-output", "set-env", "save-state", "stop-commands", "echo", "add-matcher"),
}
# .NET's culture-sensitive comparison skips characters like these, so "\u200b::" starts with "::".
IGNORABLE = dict.fromkeys(map(ord, "\u00ad\u034f\u200b\u200c\u200d\u2060\ufe0f\ufeff"), None)


@dataclass
class Command:
    name: str
    properties: dict[str, str] = field(default_factory=dict)
    data: str = ""


def runner(log: str) -> list[Command]:
    """The commands that the runner would carry out while it reads this log."""
    carried_out, stop_token = [], None
    for line in re.split(r"\r\n|\r|\n", log):
        known = COMMANDS | ({stop_token} if stop_token else set())
        command = modern(line, known) or legacy(line, known)
        if command is None:
            continue
        if stop_token is not None:
            if command.name == stop_token:
                stop_token = None
        elif command.name == "stop-commands":
            stop_token = command.data
        else:
            carried_out.append(command)
    return carried_out


def modern(line: str, known: set[str]) -> Command | None:
    line = line.translate(IGNORABLE).lstrip()
    if not line.startswith("::") or "::" not in line[2:]:
        return None
    info, _, data = line[2:].partition("::")
    name, space, rest = info.partition(" ")
    if name.lower() not in known:
        return None
    pairs = (pair.partition("=") for pair in rest.strip().split(",") if pair) if space else ()
    return Command(
        name.lower(),
        {key: unescape(value, ":,") for key, _, value in pairs if value},
        unescape(data, ""),
    )


def legacy(line: str, known: set[str]) -> Command | None:
    line = line.translate(IGNORABLE)
    start = line.find("##[")
    end = line.find("]", start)
    if start < 0 or end < 0:
        return None
    name = line[start + 3 : end].partition(" ")[0].lower()
    return Command(name, data=line[end + 1 :]) if name in known else None


def unescape(text: str, more: str) -> str:
    for character in "\r\n" + more + "%":
        text = text.replace(f"%{ord(character):02X}", character)
    return text


HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            [
                *("::", ":", "##[", "##", "#", "[", "]", "%", "%0A", "%3A", "\n", "\r", "\r\n"),
                *("set-output name=a", "add-mask", "stop-commands", "endgroup", "error", " "),
                *("\u200b", "\u202e", "\x1b[2J", "\ufe0f", "\u2028", "\x00", "\ud800", ",", "="),
            ]
        ),
    ),
    max_size=12,
).map("".join)


def test_the_oracle_sees_the_attacks_when_nothing_guards():
    attacks = [
        "::set-env name=PATH::/tmp",
        "x ##[add-path]/tmp",
        " \u200b::error::no",
        "a\r::error::",
    ]
    assert [len(runner(attack)) for attack in attacks] == [1, 1, 1, 1]


@given(HOSTILE, HOSTILE, HOSTILE)
@example("x\n::set-output name=verdict::passed", "a,line=1::b", "t")
def test_annotation_text_stays_one_command_and_arrives_whole(message, file, title):
    (command,) = runner(annotation(Note(Level.ERROR, message, file=file, line=3, title=title)))
    assert command.name == "error"
    assert set(command.properties) <= {"file", "line", "title"}
    assert command.properties["line"] == "3"
    assert command.data == message.translate(IGNORABLE)
    assert command.properties.get("file", "").strip() == file.translate(IGNORABLE).strip()


def test_annotation_is_spelt_as_github_documents_it():
    assert (
        annotation(Note(Level.WARNING, "100% off\nby one", file="a:b,c.yaml", line=4))
        == "::warning file=a%3Ab%2Cc.yaml,line=4::100%25 off%0Aby one"
    )
    assert annotation(Note(Level.NOTICE, "hello")) == "::notice::hello"


@given(HOSTILE)
def test_group_titles_and_masks_are_one_command(text):
    assert [c.name for c in runner(f"{group(text)}\n{ENDGROUP}")] == ["group", "endgroup"]
    assert [c.data for c in runner(mask(text))] == [text.translate(IGNORABLE)]


@given(HOSTILE)
@example("::stop-commands::x\n::x::\n::set-env name=PATH::/tmp")
def test_model_output_in_a_guard_commands_nothing_and_commands_work_after_it(text):
    log = f"{guarded(text)}\n{annotation(Note(Level.NOTICE, 'after'))}"
    assert [c.name for c in runner(log)] == ["notice"]


@given(HOSTILE)
@example("::set-env name=PATH::/tmp")
@example("adapter ##[add-path]/tmp")
@example(":\u200b:error:\u200b:x")
def test_a_hostile_name_in_a_log_line_commands_nothing_and_stays_one_line(text):
    line = harmless(text)
    assert runner(line) == []
    assert runner(f"adapter {line} is new") == []
    assert len(re.split(r"[\r\n\u2028\u2029\x85]", line)) == 1
    assert "\x1b" not in line
    assert "\u202e" not in line


@given(HOSTILE.map(lambda text: text.replace("\ud800", "")))
@example("adapter ##[add-path]/tmp")
@example("#\u200b#[set-output name=verdict]passed")
@example("\\##[set-output name=verdict]passed")
def test_attack_a_json_document_commands_nothing_and_says_the_same(text):
    for plain in (json.dumps({text: [text]}, indent=2), pydantic_core.to_json([text]).decode()):
        document = harmless_json(plain)
        assert runner(document) == []
        assert json.loads(document) == json.loads(plain)


def test_ordinary_text_is_left_alone():
    text = "checkpoint-0110: 96.4 % → 81.0 % (#12, [a], 10:30)\té"
    assert harmless(text) == text


def read_outputs(text: str) -> dict[str, str]:
    """GITHUB_OUTPUT as the runner reads it."""
    outputs, lines = {}, text.split("\n")
    assert lines.pop() == ""
    while lines:
        line = lines.pop(0)
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            name, _, outputs[name] = line.partition("=")
            continue
        name, _, delimiter = line.partition("<<")
        end = lines.index(delimiter)
        outputs[name] = "\n".join(lines[:end])
        del lines[: end + 1]
    return outputs


@given(st.lists(HOSTILE, min_size=1, max_size=4))
@example(["x\nverdict=passed", "y\nEOF\nverdict<<EOF\npassed\nEOF"])
def test_an_output_value_cannot_set_another_output(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("outputs") / "output"
    outputs = {f"out-{index}": value for index, value in enumerate(values)}
    write_outputs(path, outputs)
    with path.open(newline="") as file:
        read = read_outputs(file.read())
    assert read == {name: value.replace("\ud800", "?") for name, value in outputs.items()}


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a<<b", "a\nb", "1st"])
def test_an_output_name_that_the_runner_would_misread_is_refused(tmp_path, name):
    with pytest.raises(OurFailure, match="not an output name"):
        write_outputs(tmp_path / "output", {name: "x"})


def test_outputs_are_appended_with_a_fresh_delimiter_each(tmp_path):
    path = tmp_path / "output"
    path.write_text("before=1\n")
    write_outputs(path, {"verdict": "passed", "note": "a\nb"})
    write_outputs(path, {"url": "https://x"})
    text = path.read_text()
    assert read_outputs(text) == {
        "before": "1",
        "verdict": "passed",
        "note": "a\nb",
        "url": "https://x",
    }
    assert len(set(re.findall(r"<<(adapterbot_\w{32})", text))) == 3


def test_a_file_that_cannot_be_written_is_our_failure_and_is_named(tmp_path):
    with pytest.raises(OurFailure, match=re.escape(str(tmp_path))):
        write_outputs(tmp_path, {"verdict": "passed"})


def test_summaries_are_appended(tmp_path):
    path = tmp_path / "summary"
    append_summary(path, "# one")
    append_summary(path, "# two\n\n")
    assert path.read_text() == "# one\n# two\n"


def test_a_summary_over_the_limit_is_cut_at_a_line_since_github_would_drop_all_of_it(tmp_path):
    path = tmp_path / "summary"
    append_summary(path, "Zeile für Zeile\n" * 70_000)
    size = path.stat().st_size
    assert workflow.SUMMARY_LIMIT - 100 < size <= workflow.SUMMARY_LIMIT
    lines = path.read_text().split("\n")
    assert set(lines[:-4]) == {"Zeile für Zeile"}
    assert "did not fit" in lines[-2]
    append_summary(path, "more")
    assert path.stat().st_size <= workflow.SUMMARY_LIMIT


def test_workflow_and_marker_start_without_pygithub():
    code = (
        "import sys, adapterbot.gh.workflow, adapterbot.marker; sys.exit('github' in sys.modules)"
    )
    root = Path(workflow.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
