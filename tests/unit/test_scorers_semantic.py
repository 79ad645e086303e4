"""Semantic similarity with a tiny encoder made here."""

import json

import pytest

from adapterbot.errors import InputError
from adapterbot.eval import scorers
from adapterbot.eval.answers import Answer
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with an encoder of random weights and a suite that uses it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    root = tmp_path_factory.mktemp("repository")
    words = ["[PAD]", "[UNK]", "the", "cat", "dog", "sat", "ran", "far"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16
    ).save_pretrained(root / "evals/encoder")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    transformers.BertModel(config).save_pretrained(root / "evals/encoder")
    (root / "evals/d.jsonl").write_text('{"prompt": "p", "expected": "the cat sat"}\n')
    scorer = {"name": "semantic", "model": "encoder"}
    task = {"name": "t", "data": "d.jsonl", "scorer": scorer}
    (root / "evals/s.yaml").write_text(json.dumps({"version": 1, "tasks": [task]}))
    return root


@pytest.fixture(scope="module")
def task(repository):
    return load_suite(WorkTree(repository), "evals/s.yaml").tasks[0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_cosine_of_pooled_states(task, pooling):
    scorer = scorers.get("semantic", {**task.scorer_options, "pooling": pooling})
    sample = task.samples[0]
    assert scorer.score(sample, Answer(text="the cat sat")).score == pytest.approx(1.0)
    other = scorer.score(sample, Answer(text="dog ran far")).score
    assert other is not None
    assert 0 <= other < 0.999
    model = transformers.AutoModel.from_pretrained(task.scorer_options["model"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(task.scorer_options["model"])
    with torch.no_grad():
        a, b = (
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            for text in ("dog ran far", "the cat sat")
        )
    a, b = (a.mean(0), b.mean(0)) if pooling == "mean" else (a[0], b[0])
    cosine = torch.cosine_similarity(a, b, dim=0).item()
    assert other == pytest.approx(max(cosine, 0.0), abs=1e-6)


def test_texts_that_point_apart_have_nothing_in_common(task, monkeypatch):
    """A fraction lies in 0…1, as the tests that stop early insist."""
    scorer = scorers.get("semantic", task.scorer_options)
    vectors = {"the cat sat": torch.tensor([1.0, 0.0]), "far": torch.tensor([-0.6, 0.8])}
    monkeypatch.setattr(type(scorer), "_embed", lambda _, text: vectors[text])
    assert scorer.score(task.samples[0], Answer(text="far")).score == 0.0


def test_empty_and_long_answers(task):
    scorer = scorers.get("semantic", task.scorer_options)
    assert scorer.score(task.samples[0], Answer(text=" ")).score == 0.0
    assert scorer.score(task.samples[0], Answer(text="cat " * 500)).score is not None


def test_the_digest_follows_the_model_and_not_its_place(repository, task, tmp_path):
    import shutil

    moved = tmp_path / "elsewhere"
    shutil.copytree(repository, moved)
    again = load_suite(WorkTree(moved), "evals/s.yaml").tasks[0]
    assert again.scorer_options["model"] != task.scorer_options["model"]
    assert again.digest == task.digest
    weights = moved / "evals/encoder/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")
    assert load_suite(WorkTree(moved), "evals/s.yaml").tasks[0].digest != task.digest


def test_what_is_no_model_is_refused(repository, tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text("{}")
    (tmp_path / "encoder/pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "d.jsonl").write_text('{"prompt": "p", "expected": "x"}\n')
    (tmp_path / "s.yaml").write_text((repository / "evals/s.yaml").read_text())
    with pytest.raises(InputError, match="not a model directory"):
        load_suite(WorkTree(tmp_path), "s.yaml")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        content = (repository / "evals/encoder" / name).read_bytes()
        (tmp_path / "encoder" / name).write_bytes(content)
    (tmp_path / "encoder/model.safetensors").write_bytes(b"nonsense")
    task = load_suite(WorkTree(tmp_path), "s.yaml").tasks[0]
    with pytest.raises(InputError, match="not a model we can load"):
        scorers.get("semantic", task.scorer_options).score(task.samples[0], Answer(text="x"))
