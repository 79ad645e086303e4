"""A directory of lm-eval tasks about dates, as a repository would keep it."""

from __future__ import annotations

import json
import random
from pathlib import Path

HOME = "evals/lm_eval"

_DATES = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: {HOME}/dates.jsonl, train: {HOME}/shots.jsonl}}}}
test_split: test
doc_to_text: "ISO date:\\n{{{{said}}}}\\n"
target_delimiter: ""
"""
WRITE = f"""
task: dates_written
{_DATES}output_type: generate_until
process_docs: !function code.process_docs
doc_to_target: "{{{{iso[1:]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 14, do_sample: false}}
filter_list:
  - name: early
    filter: [{{function: regex, regex_pattern: "([0-9-]+-0[0-9])"}}, {{function: take_first}}]
  - name: whole
    filter: [{{function: take_first}}]
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
CHOOSE = f"""
task: dates_chosen
{_DATES}fewshot_split: train
fewshot_delimiter: "\\n"
num_fewshot: 1
output_type: multiple_choice
doc_to_choice: !function code.choices
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
# lambada's kind, and wikitext's.
WEIGH = f"""
task: dates_weighed
{_DATES}output_type: loglikelihood
doc_to_target: "{{{{iso[1:]}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
TEXTS = f"""
task: texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {HOME}/texts.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{page}}}}"
metric_list:
  - {{metric: word_perplexity}}
  - {{metric: byte_perplexity}}
  - {{metric: bits_per_byte}}
"""
DISTANCE = """
include: write.yaml
task: dates_distance
process_results: !function code.distance
filter_list: [{name: none, filter: [{function: take_first}]}]
metric_list:
  - {metric: wrong_characters, aggregation: mean, higher_is_better: false}
"""
OWN = """
include: choose.yaml
task: dates_own
process_results: !function code.own
filter_list: [{name: none, filter: [{function: take_first}]}]
metric_list:
  - {metric: own, aggregation: mean, higher_is_better: true}
"""
CODE = """
def process_docs(docs):
    return docs.filter(lambda doc: doc["said"])

def choices(doc):
    return doc["options"]

def own(doc, results):
    return {"own": sum(value + 100 * greedy for value, greedy in results)}

def distance(doc, results):
    wrong = sum(a != b for a, b in zip(doc["iso"][1:].ljust(14), results[0].ljust(14)))
    return {"wrong_characters": wrong}
"""


def write(repository: Path, count: int = 12, **more: str) -> Path:
    """The tasks' directory in a repository; `more` are further files, `name` for `name.yaml`."""
    home = repository / HOME
    home.mkdir(parents=True)
    source = random.Random(5)
    rows = [_row(source) for _ in range(count)]
    for name, content in (("dates", rows[2:]), ("shots", rows[:2])):
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (home / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    # Some longer than the example's model reads at once.
    pages = [" ".join(str(row["said"]) for row in rows[:size]) for size in (1, 3, len(rows))]
    texts = "".join(json.dumps({"page": page}) + "\n" for page in pages)
    (home / "texts.jsonl").write_text(texts, encoding="utf-8")
    (home / "code.py").write_text(CODE, encoding="utf-8")
    own = {"write": WRITE, "choose": CHOOSE, "distance": DISTANCE, "weigh": WEIGH, "texts": TEXTS}
    own["own"] = OWN
    for name, text in {**own, **more}.items():
        (home / f"{name}.yaml").write_text(text, encoding="utf-8")
    return home


def _row(source: random.Random) -> dict[str, object]:
    year, month, day = source.randint(2010, 2029), source.randint(1, 12), source.randint(1, 28)
    said = source.choice([f"{day}.{month}.{year}", f"{year}/{month}/{day}", f"am {day}.{month}."])
    iso = f"{year}-{month:02}-{day:02}"
    options = [iso, f"{year}-{day:02}-{month:02} ", f"{year + 1}-{month:02}"]
    gold = source.randrange(3)
    options[0], options[gold] = options[gold], options[0]
    # A text that is nothing but a date would be read as one.
    return {
        "said": said,
        "iso": f"={iso}",
        "options": options,
        "gold": gold,
        "dots": said.count("."),
    }
