"""Tasks of lm-eval as tasks of ours: its requests become samples, its metrics the scores.

Everything that lm-eval decides (prompts, few-shot examples, choices, filters, metrics) is computed
by its own code, in a process that sees only the task's directory as the suite's tree holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from pydantic import JsonValue

from adapterbot.eval.answers import GenerationSettings
from adapterbot.eval.data import ROW_LIMIT, Row
from adapterbot.eval.samples import Plan
from adapterbot.eval.scorers.base import Files
from adapterbot.eval.scorers.lm_eval import (
    LmEval,
    LmEvalBits,
    LmEvalChoices,
    LmEvalGreedy,
    LmEvalLikelihood,
    LmEvalMatch,
    LmEvalPerplexity,
    LmEvalRolling,
    LmEvalText,
    LmEvalWeighed,
    directory_of,
)
from adapterbot.eval.suite_file import TaskSpec
from adapterbot.files.yamlfile import Path, YamlFile
from adapterbot.records import Direction


def plan(
    spec: TaskSpec, file: YamlFile, at: Path, files: Files, kept: ExitStack, *, run: bool
) -> tuple[Plan, ...]:
    """The plan of a `kind: lm_eval` task.

    Args:
        files: those beside the suite.
        kept: keeps lm-eval's process for other tasks of the same directory.
        run: whether its code may run; if not, its files are read and there is no plan.

    Raises:
        InputError: lm-eval cannot load the task, or it is of a kind that we cannot evaluate.
        OurFailure: lm-eval is not installed.
    """
    if not run:
        directory_of(str(spec.path), files)
        return ()
    given: dict[str, JsonValue] = {"path": spec.path, "task": spec.task}
    given |= {"metric": spec.metric, "filter": spec.filter}
    reader = LmEvalText.model_validate(LmEvalText.resolve(given, files))
    kept.callback(reader.close)
    (_, facts), *rows = reader.rows()
    scorer, generation = _asked(facts)
    if len(rows) > ROW_LIMIT:
        raise file.error((*at, "task"), f"has more than {ROW_LIMIT:,} rows", "sample it down")
    higher = Direction.HIGHER if facts["higher_is_better"] else Direction.LOWER
    meant = {**given, "metric": facts["metric"], "filter": facts["filter"]}
    own = spec.model_copy(
        update={
            "scorer": {"name": scorer.name, **meant},
            "direction": spec.direction or higher,
            "generation": generation,
            "template": None,
            "fields": {},
        }
    )
    return (Plan(own, tuple(Row(reader.home, line - 1, values) for line, values in rows), at),)


def _asked(facts: Mapping[str, JsonValue]) -> tuple[type[LmEval], GenerationSettings]:
    # What a task's own process_results calls exact_match, or acc, may be anything.
    metric, own = facts["metric"], facts["own_results"]
    match facts["output_type"]:
        case "multiple_choice":
            return LmEvalWeighed if own else LmEvalChoices, GenerationSettings()
        case "loglikelihood" if metric == "perplexity" and not own:
            return LmEvalPerplexity, GenerationSettings()
        case "loglikelihood":
            return LmEvalLikelihood if own else LmEvalGreedy, GenerationSettings()
        case "loglikelihood_rolling":
            bits = metric == "bits_per_byte"
            return LmEvalBits if bits else LmEvalRolling, GenerationSettings()
    asked = {"max_new_tokens": facts["max_new_tokens"], "stop": facts["until"]}
    written = LmEvalMatch if metric == "exact_match" and not own else LmEvalText
    return written, GenerationSettings.model_validate(asked)
