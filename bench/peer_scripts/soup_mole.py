"""Run by the bench inside Soup's own environment: its mixture and the bare base, timed in turn.

Arguments: base directory, folder of adapters "0", "1", …, prompt tokens, new tokens, runs.
Prints one JSON object: seconds of each, medians.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from peft import PeftModel
from soup_cli.utils.mole_routing import LoadedMole, MoleGatingConfig, build_gating_kernel
from transformers import AutoModelForCausalLM

base, folder, prompt, new, runs = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
names = sorted(path.name for path in folder.iterdir())
plain = AutoModelForCausalLM.from_pretrained(base).eval()
model = PeftModel.from_pretrained(
    AutoModelForCausalLM.from_pretrained(base), folder / names[0], adapter_name=names[0]
).eval()
for name in names[1:]:
    model.load_adapter(folder / name, adapter_name=name)
gate = build_gating_kernel(
    MoleGatingConfig(len(names), plain.config.hidden_size, temperature=1.0, top_k=2)
)
mole = LoadedMole(model, None, gate, names)
ids = torch.arange(3, 3 + prompt)[None]
mask = torch.ones_like(ids)
found: dict[str, list[float]] = {"base": [], "soup": []}
with torch.inference_mode():
    for _ in range(runs + 1):
        started = time.perf_counter()
        plain.generate(
            ids, attention_mask=mask, min_new_tokens=new, max_new_tokens=new, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        found["base"].append(time.perf_counter() - started)
        started = time.perf_counter()
        mole.generate(ids, mask, max_new_tokens=new)
        found["soup"].append(time.perf_counter() - started)
print(json.dumps({name: statistics.median(times[1:]) for name, times in found.items()}))
