"""What the engine's benches ask: a base, two adapters and a suite, laid out in a folder."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.example import EXAMPLE

WORDS = ("invoice", "date", "from", "the", "12/03/2021", "of", "order", "paid", "May", "to", "is")


@dataclass(frozen=True)
class Workload:
    """A folder with `suite.yaml` (tasks `choose` and `write`), and for lm-eval the same as tasks in
    `lm_eval/` and as `requests.json`."""

    name: str
    folder: Path
    base: Path
    adapters: tuple[Path, Path]
    questions: int
    prompts: int


def lay_out(
    folder: Path,
    questions: list[dict[str, Any]],
    prompts: list[str],
    *,
    limit: int,
    stop: list[str],
) -> None:
    """Writes the suite, and the very same requests for a peer."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": prompt, "expected": "?"} for prompt in prompts]
    for name, lines in (("choose", questions), ("write", rows)):
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    generation = json.dumps({"max_new_tokens": limit, "stop": stop})
    (folder / "suite.yaml").write_text(
        "version: 1\ntasks:\n"
        "  - {name: choose, data: choose.jsonl, scorer: multiple_choice, margin: 0.05}\n"
        "  - {name: write, data: write.jsonl, scorer: exact, margin: 0.05,"
        f" generation: {generation}}}\n",
        encoding="utf-8",
    )
    for_lm_eval(folder, limit=limit, stop=stop)
    weigh = [(q["prompt"], choice) for q in questions for choice in q["choices"]]
    asked = {"weigh": weigh, "write": prompts, "limit": limit, "stop": stop}
    (folder / "requests.json").write_text(json.dumps(asked), encoding="utf-8")


def for_lm_eval(folder: Path, *, limit: int, stop: list[str]) -> None:
    """The suite as a user of lm-eval writes it: a directory of tasks, `--include_path`."""
    home = folder / "lm_eval"
    home.mkdir(exist_ok=True)
    choose = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}"}
    write = {
        "output_type": "generate_until",
        "generation_kwargs": {"until": stop, "max_gen_toks": limit, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    for name, own in (("choose", choose), ("write", write)):
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
            "test_split": "test",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{expected}}",
            "target_delimiter": "",
            **own,
        }
        (home / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")


def example(folder: Path) -> Workload:
    """examples/tiny: its prompts to answer, and each with four dates to choose from."""
    return _example(folder, "examples/tiny", shots=0)


def few_shot(folder: Path) -> Workload:
    """As `example`, the questions behind two that are answered, as multiple choice is asked."""
    return _example(folder, "examples/tiny, two-shot questions", shots=2)


def _example(folder: Path, name: str, *, shots: int) -> Workload:
    rows = [
        json.loads(line)
        for path in sorted((EXAMPLE / "evals").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    dates = sorted({row["expected"] for row in rows})
    source = random.Random(0)
    questions = []
    header = "".join(f"{row['prompt']}{row['expected']}\n" for row in rows[:shots])
    for row in rows[shots:]:
        others = source.sample([date for date in dates if date != row["expected"]], 3)
        choices = [row["expected"], *others]
        questions.append({"prompt": header + row["prompt"], "choices": choices, "expected": 0})
    lay_out(folder, questions, [row["prompt"] for row in rows], limit=16, stop=["\n"])
    history = sorted((EXAMPLE / "history" / "poisoned").glob("checkpoint-*"))
    adapters = (EXAMPLE / "adapters" / "dates", history[-1])
    return Workload(name, folder, EXAMPLE / "base", adapters, len(questions), len(rows))


def llama(folder: Path) -> Workload:
    """A random Llama of hidden size 256 and 4 layers, with two random adapters."""
    base = random_llama(folder / "base", hidden=256, layers=4)
    adapters = (
        random_adapter(base, folder / "adapter-1", 1),
        random_adapter(base, folder / "adapter-2", 2),
    )
    lay_out(folder, *requests(questions=60, prompts=64), limit=32, stop=["\n\n"])
    return Workload("random Llama, hidden 256, 4 layers", folder, base, adapters, 60, 64)


def requests(*, questions: int, prompts: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Questions of four options, and prompts to write to, of random words."""
    source = random.Random(0)

    def words(count: int) -> str:
        return " ".join(source.choices(WORDS, k=count))

    asked = [
        {
            "prompt": words(source.randint(20, 60)),
            "choices": [f" {first} {words(2)}" for first in source.sample(WORDS, 4)],
            "expected": 0,
        }
        for _ in range(questions)
    ]
    return asked, [words(source.randint(10, 40)) for _ in range(prompts)]


def random_llama(
    folder: Path, *, hidden: int, layers: int, dtype: Any = None, **options: Any
) -> Path:
    """A Llama with random weights and the example's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings = {
        "hidden_size": hidden,
        "intermediate_size": hidden * 11 // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": hidden // 64,
        "vocab_size": 512,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **options}))
    with torch.no_grad():
        # Random models repeat one token; larger weights make them babble instead.
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3.0)
    model.to(dtype or torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(EXAMPLE / "base" / name, folder / name)
    return folder


def random_adapter(
    base: Path, folder: Path, seed: int, *, rank: int = 8, size: float = 0.02
) -> Path:
    """A LoRA adapter with random factors on the query and value projections."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    width, heads = config["hidden_size"], config["num_attention_heads"]
    narrow = width // heads * config["num_key_value_heads"]
    source = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module, out in (("q_proj", width), ("v_proj", narrow)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}.lora"
            tensors[f"{name}_A.weight"] = torch.randn(rank, width, generator=source) * size
            tensors[f"{name}_B.weight"] = torch.randn(out, rank, generator=source) * size
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    options = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(options), encoding="utf-8")
    return folder
