"""Our half of the engine's bench: both adapters in one process, the suite of a folder.

    python -m bench.our_side '{"base": …, "adapters": […], "folder": …}'

Prints one JSON document: CPU seconds by task for both adapters together, and what each request got.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

started = time.process_time()

from adapterbot.eval.answers import Answer  # noqa: E402
from adapterbot.eval.engine import Engine  # noqa: E402
from adapterbot.eval.local import LocalModel  # noqa: E402
from adapterbot.eval.questions import Question  # noqa: E402
from adapterbot.eval.settings import EngineSettings  # noqa: E402
from adapterbot.eval.suite import Task, load_suite  # noqa: E402
from adapterbot.files.tree import WorkTree  # noqa: E402
from adapterbot.weights import adapter_digest, read_adapter_dir  # noqa: E402

SETTINGS = EngineSettings(device="cpu", dtype="float32")


def answers(engine: Engine, tasks: dict[str, Task], adapter: Path) -> dict[str, Any]:
    """Log-likelihoods and texts, as raw as lm-eval gives them."""
    model, files = LocalModel(engine.base, SETTINGS), read_adapter_dir(adapter)
    found: dict[str, Any] = {}
    with model.under(files, adapter_digest(files.path)):
        for name, task in tasks.items():
            questions = [Question(task, sample) for sample in task.samples]
            said = dict(model.answers(questions))
            rows = [answer for i in range(len(questions)) if isinstance(answer := said[i], Answer)]
            if name == "choose":
                found["weigh"] = [value for row in rows for value in row.loglikelihoods]
            else:
                found["write"] = [row.text for row in rows]
    return found


def main(base: str, adapters: list[str], folder: str) -> None:
    engine = Engine(Path(base), SETTINGS)
    tasks = {task.name: task for task in load_suite(WorkTree(Path(folder)), "suite.yaml").tasks}
    engine.prepare(list(tasks.values()), [None])  # loads the base
    found: dict[str, Any] = {"start_up": time.process_time() - started, "seconds": {}}
    for name, task in tasks.items():
        begun = time.process_time()
        before = engine.evaluate([task], Path(adapters[0]))
        engine.evaluate([task], Path(adapters[1]), drafts=before)
        found["seconds"][name] = time.process_time() - begun
    found["answers"] = [answers(engine, tasks, Path(adapter)) for adapter in adapters]
    print(json.dumps(found))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
