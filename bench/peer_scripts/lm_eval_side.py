"""Run by lm-eval's own Python, never by ours: one adapter, one process, the requests of a folder.

    python lm_eval_side.py '{"base": …, "adapter": …, "folder": …, "weigh": [8], …}'

Prints one JSON document: CPU seconds by batch size, and what each request got at the last size.
`first` bounds how many of the prompts are written to.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

started = time.process_time()

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    """Requests as lm-eval's tasks make them."""
    return [Instance(kind, {}, given, i) for i, given in enumerate(arguments)]


def main(base: str, adapter: str, folder: str, first: int | None = None, **sizes: Any) -> None:
    asked = json.loads((Path(folder) / "requests.json").read_text())
    settings = {"until": asked["stop"], "max_gen_toks": asked["limit"], "do_sample": False}
    model = HFLM(pretrained=base, peft=adapter, device="cpu", dtype="float32", batch_size=1)
    found: dict[str, Any] = {"start_up": time.process_time() - started}
    weigh = instances("loglikelihood", [tuple(pair) for pair in asked["weigh"]])
    write = instances("generate_until", [(prompt, settings) for prompt in asked["write"][:first]])
    for kind, run, given in (
        ("weigh", model.loglikelihood, weigh),
        ("write", model.generate_until, write),
    ):
        found[kind] = {"seconds": {}, "answers": []}
        for size in sizes[kind]:
            model.batch_size_per_gpu = size
            begun = time.process_time()
            answers = run(given, disable_tqdm=True)
            found[kind]["seconds"][size] = time.process_time() - begun
            found[kind]["answers"] = [a[0] for a in answers] if kind == "weigh" else answers
    print(json.dumps(found))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
