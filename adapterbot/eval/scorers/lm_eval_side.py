"""lm-eval's own code, run by `python -I -c` in a process of its own and never imported by us.

It loads tasks, says what each asks (`show`), and judges answers line by line (`judge`). What the
tasks' code prints goes to standard error, so that it cannot pass for a reply.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What lm-eval's command line sets before it builds a task, and its model's longest answer.
_SEED, _FEWSHOT_SEED, _MAX_NEW_TOKENS = 0, 1234, 256
# Readers of `datasets` that take text files; every other name would be looked for on the Hub.
_LOCAL_READERS = ("csv", "json", "text")
# Metrics of a whole corpus that lm-eval makes of sums over its documents.
_WEIGHED, _ROLLING = "loglikelihood", "loglikelihood_rolling"
_OF_SUMS = {
    _WEIGHED: ("perplexity",),
    _ROLLING: ("word_perplexity", "byte_perplexity", "bits_per_byte"),
}


class Refused(Exception):
    """A task that is not for us; says why."""


class LocalOnly:
    """`datasets.load_dataset` for data files in the task's directory, and for nothing else."""

    def __init__(self, load: Callable[..., Any], directory: Path) -> None:
        self._load = load
        self._directory = directory

    def __call__(self, path: str, name: str | None = None, **kwargs: Any) -> Any:
        if path not in _LOCAL_READERS:
            raise Refused(
                f"its dataset_path is {path!r}; only {', '.join(_LOCAL_READERS)} with `data_files` "
                "in the task's directory are read, nothing is downloaded"
            )
        files = list(_leaves(kwargs.get("data_files")))
        if not files:
            raise Refused("its dataset_kwargs name no `data_files`")
        for file in files:
            where = Path(file).resolve()
            if "://" in file or not where.is_relative_to(self._directory) or not where.is_file():
                raise Refused(
                    f"{file!r} is no file in the task's directory; paths are relative to the "
                    "repository"
                )
        return self._load(path, name, **kwargs)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)


def load_task(directory: Path, name: str) -> Any:
    """The task with its requests built, exactly as `lm_eval --tasks` builds them."""
    import datasets
    import numpy as np
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

    if not isinstance(datasets.load_dataset, LocalOnly):
        datasets.load_dataset = LocalOnly(datasets.load_dataset, directory)
    random.seed(_SEED)
    np.random.seed(_FEWSHOT_SEED)  # noqa: NPY002 the generator that tasks written for lm-eval use
    manager = TaskManager(include_path=str(directory), include_defaults=False)
    if name not in manager.all_subtasks:
        what = "it is a group or a tag" if name in manager.all_tasks else "it is not there"
        raise Refused(f"{what}; tasks in this directory: {', '.join(manager.all_subtasks)}")
    (task,) = manager.load(name)["tasks"].values()
    if not isinstance(task, ConfigurableTask):
        raise Refused("it is a class of its own; only tasks written in YAML are read")
    for field, most in (("doc_to_image", None), ("doc_to_audio", None), ("repeats", 1)):
        if getattr(task.config, field) != most:
            raise Refused(f"it has `{field}`, which is not evaluated")
    if task.config.unsafe_code:
        raise Refused("it runs what the model writes (`unsafe_code`)")
    task.set_fewshot_seed(_FEWSHOT_SEED)
    task.build_all_requests()
    return task


def chosen(task: Any, metric: str | None, name: str | None) -> tuple[str, str]:
    """The metric and the filter that are meant, given or the only ones."""
    from lm_eval.api.registry import get_aggregation

    metrics = task.aggregation()
    filters = [ensemble.name for ensemble in task._filters]  # noqa: SLF001 no public way
    found = []
    for what, given, known in (("metric", metric, list(metrics)), ("filter", name, filters)):
        if given not in known and (given or len(known) != 1):
            which = f"no {what} {given!r}" if given else f"several {what}s and none is named"
            raise Refused(f"there is {which}; name one of {', '.join(known)}")
        found.append(given or known[0])
    mean = metrics[found[0]] is get_aggregation("mean")
    if not of_sums(task, found[0]) and not (mean and task.OUTPUT_TYPE != _ROLLING):
        raise Refused(f"its metric {found[0]} is not a mean over samples")
    return found[0], found[1]


def of_sums(task: Any, metric: str) -> bool:
    """Whether a metric is lm-eval's own of a whole corpus, aggregated as lm-eval does."""
    from lm_eval.api.registry import get_metric_aggregation

    return (
        metric in _OF_SUMS.get(task.OUTPUT_TYPE, ())
        and task.config.process_results is None
        and task.aggregation()[metric] is get_metric_aggregation(metric)
    )


def doc_digest(doc: Any) -> str:
    """What tells that two processes mean the same document."""
    return hashlib.sha256(json.dumps(doc, sort_keys=True, default=str).encode()).hexdigest()


def by_document(task: Any) -> dict[int, list[Any]]:
    """A task's requests by the number of their document, in order."""
    documents: dict[int, list[Any]] = {}
    for instance in task.instances:
        documents.setdefault(instance.doc_id, []).append(instance)
    return documents


def show(task: Any, metric: str, name: str) -> Iterator[dict[str, Any]]:
    """What the task is, then what it asks of each document."""
    facts: dict[str, Any] = {
        "output_type": task.OUTPUT_TYPE,
        "metric": metric,
        "filter": name,
        "higher_is_better": bool(task.higher_is_better()[metric]),
        "own_results": task.config.process_results is not None,
    }
    if task.OUTPUT_TYPE == "generate_until":
        facts |= generation(task.instances[0].args[1])
    yield facts
    for number, instances in by_document(task).items():
        doc = instances[0].doc
        whole = task.OUTPUT_TYPE == _ROLLING
        contexts = {"" if whole else instance.args[0] for instance in instances}
        if len(contexts) > 1:
            raise Refused(
                f"document {number} has choices behind different contexts (several inputs, or "
                "acc_mutual_info)"
            )
        row = {key: value for key, value in doc.items() if key not in ("messages", "text")}
        row |= {"id": str(number), "prompt": contexts.pop(), "doc_digest": doc_digest(doc)}
        target = task.doc_to_target(doc)
        row["choices"] = None
        if task.OUTPUT_TYPE == "multiple_choice":
            row["choices"] = [instance.args[1] for instance in instances]
        if task.config.doc_to_choice is not None and isinstance(target, int):
            target = task.doc_to_choice(doc)[target]
        row["expected"] = instances[0].args[-1] if task.OUTPUT_TYPE in _OF_SUMS else target
        if of_sums(task, metric):
            row["lm_eval_size"] = size(task, doc, metric)
        yield row


def size(task: Any, doc: Any, metric: str) -> int:
    """What the log-likelihood of a document is divided by."""
    if task.OUTPUT_TYPE == _WEIGHED:
        return 1
    _, count = task.process_results(doc, [0.0])[metric]
    return int(count)


def generation(given: dict[str, Any]) -> dict[str, Any]:
    """How the answers are to be written."""
    from lm_eval.models.utils import normalize_gen_kwargs

    asked = dict(normalize_gen_kwargs(given, _MAX_NEW_TOKENS))
    until, most = asked.pop("until"), asked.pop("max_gen_toks")
    if asked.pop("do_sample") or asked.pop("temperature", 0.0):
        raise Refused("its generation_kwargs ask for sampling; answers are written greedily")
    if asked:
        raise Refused(f"its generation_kwargs name {', '.join(sorted(asked))}")
    return {"until": [text for text in until if text], "max_new_tokens": most}


def judge(task: Any, metric: str, name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from answers of a document to its score, by the task's filters and metric."""
    documents = by_document(task)
    # Every other metric of lm-eval's own looks at the likelihoods only.
    own = task.config.process_results is not None
    needed = own or metric == "exact_match" or task.OUTPUT_TYPE == _WEIGHED

    def score(asked: dict[str, Any]) -> dict[str, Any]:
        instances = documents[int(asked["id"])]
        if doc_digest(instances[0].doc) != asked["doc_digest"]:
            return {"missing": "the task made other documents of the same files"}
        for instance, answer in zip(instances, asked["answers"], strict=True):
            if isinstance(answer, str):
                instance.resps = [answer]
                continue
            value, greedy = answer
            if greedy is None and needed:
                return {"missing": "the server does not tell which answer is the greedy one"}
            instance.resps = [(value, bool(greedy))]
        task._instances = instances  # noqa: SLF001 its filters run over these
        task.apply_filters()
        filtered = [instance.filtered_resps[name] for instance in instances]
        value = task.process_results(instances[0].doc, filtered).get(metric)
        if not isinstance(value, numbers.Real):
            return {"missing": f"{metric} is a {type(value).__name__}, not a number"}
        return {"score": float(value)}

    return score


def load(directory: Path, meant: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The judge of a task, after what it asks was written where it is wanted."""
    task = load_task(directory, meant["task"])
    which = chosen(task, meant["metric"], meant["filter"])
    if meant["to"] is not None:
        with Path(meant["to"]).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, default=str) + "\n" for row in show(task, *which))
    return judge(task, *which)


def main(directory: Path) -> None:
    """Reply on standard output, a line of JSON each."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    judges: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        if "load" not in asked:
            return judges[asked["task"]](asked)
        judges[asked["load"]["name"]] = load(directory, asked["load"])
        return {"ready": True}

    def reply(value: dict[str, Any]) -> None:
        replies.write(json.dumps(value, default=str) + "\n")
        replies.flush()

    reply({"ready": True})
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            reply(answer(asked))
        except Refused as error:
            reply({"fatal": str(error)})
        except Exception as error:  # noqa: BLE001 the task's own code: whatever it raises is told
            why = "fatal" if "load" in asked else "missing"
            reply({why: f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
