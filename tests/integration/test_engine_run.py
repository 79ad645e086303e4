"""An engine evaluates adapters in turn on one base, remembers, resumes, and leaves no trace."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.eval import base_model, found_base
from adapterbot.eval.answers import Request, Sample
from adapterbot.eval.base_files import base_digest
from adapterbot.eval.base_model import load_base
from adapterbot.eval.cache import ScoreCache
from adapterbot.eval.engine import Engine
from adapterbot.eval.evaluation import Ask, Evaluation
from adapterbot.eval.found_base import identity
from adapterbot.eval.local import LocalModel
from adapterbot.eval.questions import Identity
from adapterbot.eval.settings import EngineSettings
from adapterbot.records import TaskResult
from adapterbot.weights import adapter_digest, read_adapter_dir
from tests import tiny_suite
from tests.programs import python
from tests.tiny_models import save_adapter, save_base

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

TASKS = (tiny_suite.generate(), tiny_suite.choices(), tiny_suite.likelihoods())
SETTINGS = EngineSettings(device="cpu", dtype="float32")
TOTAL = sum(len(task.samples) for task in TASKS)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    made = [
        save_adapter(base, root / str(seed), seed=seed, r=4, target_modules=["q_proj", "v_proj"])
        for seed in range(4)
    ]
    made.append(save_adapter(base, root / "dora", r=4, target_modules=["q_proj"], use_dora=True))
    return made


@pytest.fixture(scope="module")
def loaded(base: Path) -> LocalModel:
    return LocalModel(load_base(base, SETTINGS), SETTINGS)


@pytest.fixture(scope="module")
def alone(
    loaded: LocalModel, adapters: list[Path]
) -> dict[tuple[int, int], tuple[TaskResult, ...]]:
    """What each adapter says to each variant when nothing is cached."""
    return {
        (which, variant): Evaluation(loaded).evaluate([task], adapter)
        for which, adapter in enumerate((None, *adapters[:4]))
        for variant, task in enumerate(VARIANTS)
    }


def evaluate(engine: Engine, adapter: Path | None) -> tuple[TaskResult, ...]:
    return engine.evaluate(TASKS, adapter)


def test_results_are_in_suite_order_and_complete(base: Path, adapters: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    with Engine(base, SETTINGS) as engine:
        results = engine.evaluate(
            TASKS, adapters[0], progress=lambda done, total: seen.append((done, total))
        )
        assert engine.asked == TOTAL
        assert engine.cached == 0
    for task, result in zip(TASKS, results, strict=True):
        assert (result.task, result.scorer) == (task.name, task.scorer)
        assert [s.sample_id for s in result.samples] == [s.id for s in task.samples]
        assert all(s.score is not None for s in result.samples)
    assert seen[0] == (0, TOTAL)
    assert seen[-1] == (TOTAL, TOTAL)
    assert [done for done, _ in seen] == list(range(TOTAL + 1))
    assert results[1].samples[0].output in TASKS[1].samples[0].choices


def test_every_order_of_adapters_gives_the_same(base: Path, adapters: list[Path]) -> None:
    wanted: dict[Path | None, tuple[TaskResult, ...]] = {}
    for adapter in (None, *adapters):
        with Engine(base, SETTINGS) as engine:
            wanted[adapter] = evaluate(engine, adapter)
    assert len(set(wanted.values())) == len(wanted)
    with Engine(base, SETTINGS) as engine:
        order = [adapters[0], None, adapters[1], adapters[4], adapters[2], adapters[0], adapters[3]]
        last: tuple[TaskResult, ...] | None = None
        for adapter in (*order, None, adapters[4], adapters[1]):
            got = engine.evaluate(TASKS, adapter, drafts=last)
            assert got == wanted[adapter]
            last = got


def test_the_base_is_left_as_it_was(base: Path, adapters: list[Path]) -> None:
    engine = Engine(base, SETTINGS)
    model = engine.base.model
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = model(ids).logits
        for adapter in adapters:
            evaluate(engine, adapter)
            assert torch.equal(model(ids).logits, before)
    engine.close()
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_is_asked_twice(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        first = {adapter: evaluate(engine, adapter) for adapter in (None, *adapters)}
        assert engine.cached == 0
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        forbid(engine)
        for adapter in (None, *adapters):
            assert evaluate(engine, adapter) == first[adapter]
        assert engine.cached == engine.asked == TOTAL * (1 + len(adapters))


def test_a_run_whose_every_answer_is_cached_does_not_load_the_base(
    base: Path, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took seconds to minutes of a gate that had nothing to ask. Not transformers either."""
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        engine.prepare(TASKS, [None])
        assert engine.stats().seconds == 0.0, "loading is not evaluating"
        want = [evaluate(engine, adapter) for adapter in (None, *adapters)]
        stats = engine.stats()
    monkeypatch.setattr(base_model, "load_found", lambda _: pytest.fail("loaded"))
    ids = [sample.id for sample in TASKS[0].samples]
    files = [read_adapter_dir(adapter) for adapter in adapters]
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        engine.prepare(TASKS, [None, *files])
        assert [evaluate(engine, adapter) for adapter in (None, *adapters)] == want
        engine.evaluate_together([Ask(TASKS[0], one, ids) for one in files])
        again = engine.stats()
        assert again.cached == again.samples
        assert (again.device, again.dtype, again.gpus) == (stats.device, stats.dtype, stats.gpus)
    code = (
        "import sys; from pathlib import Path; from tests import tiny_suite;"
        "from adapterbot.eval.cache import ScoreCache;"
        "from adapterbot.eval.engine import Engine;"
        "from adapterbot.eval.settings import EngineSettings;"
        "settings = EngineSettings(device='cpu', dtype='float32');"
        f"engine = Engine({str(base)!r}, settings, cache=ScoreCache(Path({str(tmp_path)!r})));"
        "engine.evaluate([tiny_suite.generate()], None);"
        "print(engine.cached == engine.asked > 0, 'transformers' in sys.modules)"
    )
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = python("-c", code, env=threads, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_afresh_is_asked_again_and_kept_apart(
    base: Path, adapters: list[Path], tmp_path: Path
) -> None:
    chosen = {task.name: {sample.id for sample in task.samples[::3]} for task in TASKS}
    count = sum(map(len, chosen.values()))
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        first = evaluate(engine, adapters[0])
        again = engine.evaluate(TASKS, adapters[0], samples=chosen, afresh=True)
        assert engine.cached == 0
        for one, other in zip(first, again, strict=True):
            known = {sample.sample_id: sample for sample in one.samples}
            for sample in other.samples:
                assert sample.output == known[sample.sample_id].output
                assert sample.score == pytest.approx(known[sample.sample_id].score, abs=1e-4)
        forbid(engine)
        assert engine.evaluate(TASKS, adapters[0], samples=chosen, afresh=True) == again
        assert evaluate(engine, adapters[0]) == first
        assert engine.cached == count + TOTAL


def forbid(engine: Engine) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the model was asked")

    engine.base.model.model.register_forward_pre_hook(refuse)


def test_only_what_changed_is_asked_again(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        evaluate(engine, adapters[0])
        changed = (TASKS[0], tiny_suite.choices(seed=9), TASKS[2])
        engine.evaluate(changed, adapters[0])
        assert engine.cached == len(TASKS[0].samples) + len(TASKS[2].samples)
    other = EngineSettings(device="cpu", dtype="float32", token_budget=77)
    with ScoreCache(tmp_path) as cache, Engine(base, other, cache=cache) as engine:
        evaluate(engine, adapters[0])
        assert engine.cached == 0, "another batch composition is another measurement"


def test_a_killed_run_resumes(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done == 30:
            raise KilledError

    with Engine(base, SETTINGS) as engine:
        want = evaluate(engine, adapters[0])
    small = EngineSettings(device="cpu", dtype="float32", token_budget=100)
    with (
        ScoreCache(tmp_path) as cache,
        Engine(base, small, cache=cache) as engine,
        pytest.raises(KilledError),
    ):
        engine.evaluate(TASKS, adapters[0], progress=kill)
    with ScoreCache(tmp_path) as cache, Engine(base, small, cache=cache) as engine:
        got = evaluate(engine, adapters[0])
        assert engine.cached == 30
    assert [[s.output for s in r.samples] for r in got] == [
        [s.output for s in r.samples] for r in want
    ]


def test_a_selection_asks_only_what_it_names(
    base: Path, adapters: list[Path], tmp_path: Path
) -> None:
    with Engine(base, SETTINGS) as engine:
        whole = evaluate(engine, adapters[0])
    wanted = {task.name: [s.id for s in task.samples[3:8]] for task in TASKS[:2]}
    rest = {task.name: [s.id for s in task.samples] for task in TASKS}
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        some = engine.evaluate(TASKS, adapters[0], samples=wanted)
        assert [[s.sample_id for s in r.samples] for r in some] == [*wanted.values(), []]
        assert engine.asked == 10
        every = engine.evaluate(TASKS, adapters[0], samples=rest)
        assert engine.cached == 10, "a chunk is not asked again with the whole"
    assert [[s.output for s in r.samples] for r in every] == [
        [s.output for s in r.samples] for r in whole
    ]


def test_what_is_drawn_for_one_task_is_not_the_answer_to_its_namesake(
    base: Path, tmp_path: Path
) -> None:
    """Draws are seeded by the task's name, which its digest does not hold."""
    one = tiny_suite.generate(8, name="one", temperature=1.0)
    two = one.model_copy(update={"name": "two"})
    with Engine(base, SETTINGS) as engine:
        want = engine.evaluate([two], None)
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        drawn = engine.evaluate([one], None)
        assert [s.output for s in drawn[0].samples] != [s.output for s in want[0].samples]
        assert engine.evaluate([two], None) == want


SMALL = tiny_suite.generate(4)
# The same sample ids throughout: only the key tells these tasks apart.
VARIANTS = (
    SMALL,
    tiny_suite.generate(4, max_new_tokens=5),
    tiny_suite.generate(4, stop=("i",)),
    tiny_suite.generate(4, temperature=1.0, seed=1),
    tiny_suite.generate(4, temperature=1.0, seed=2),
    tiny_suite.generate(4, seed=5),
    tiny_suite.task("written", "length", Request.GENERATE, SMALL.samples),
)
ASKED = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, len(VARIANTS) - 1), st.booleans()),
    min_size=2,
    max_size=8,
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(asked=ASKED)
def test_the_cache_never_gives_one_adapter_the_scores_of_another(
    asked: list[tuple[int, int, bool]],
    loaded: LocalModel,
    adapters: list[Path],
    alone: dict[tuple[int, int], tuple[TaskResult, ...]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """lm-eval keys its cache on the request alone, and gave adapter B what A had said."""
    under = (None, *adapters[:4])
    place = tmp_path_factory.mktemp("cache")
    last: tuple[TaskResult, ...] | None = None
    for which, variant, drafted in asked:
        with ScoreCache(place) as cache:
            evaluation = Evaluation(loaded, cache=cache)
            last = evaluation.evaluate(
                [VARIANTS[variant]], under[which], drafts=last if drafted else None
            )
        assert last == alone[which, variant]


def test_every_setting_of_the_engine_is_in_the_key(base: Path) -> None:
    loaded = load_base(base, SETTINGS)
    other = {
        "device": "cuda:1",
        "dtype": "bfloat16",
        "token_budget": 77,
        "attn_implementation": "eager",
        "quantization": "4bit",
        "device_map": "auto",
        "deterministic": False,
    }
    assert other.keys() == EngineSettings.model_fields.keys(), "a new setting needs a line here"
    plain = LocalModel(loaded, EngineSettings()).identity()
    for name, value in other.items():
        changed = LocalModel(loaded, EngineSettings(**{name: value})).identity()
        # Where a base lies and how precise it is, the base itself knows best.
        assert (changed != plain) is (name not in ("device", "dtype"))
    precise = dataclasses.replace(loaded, dtype=torch.bfloat16)
    assert LocalModel(precise, EngineSettings()).identity() != plain
    elsewhere = dataclasses.replace(loaded, device=torch.device("meta"))
    assert LocalModel(elsewhere, EngineSettings()).identity() != plain
    changed_base = dataclasses.replace(loaded, digest="0" * 64)
    assert LocalModel(changed_base, EngineSettings()).identity() != plain


@pytest.mark.parametrize(
    ("settings", "package"),
    [
        ({}, "tokenizers"),
        ({}, "peft"),
        ({"quantization": "4bit"}, "bitsandbytes"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attn"),
    ],
)
def test_the_version_of_what_computes_is_in_the_key(
    settings: dict[str, str], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key() -> Identity:
        return identity("0", EngineSettings(**settings), torch.device("cpu"), torch.float32)

    before = key()
    monkeypatch.setattr(found_base, "version", lambda name: "9" if name == package else "1")
    newer = key()
    monkeypatch.setattr(found_base, "version", lambda _: "1")
    assert newer != key()
    assert newer.versions.keys() == before.versions.keys()


def test_a_cpu_of_other_instructions_has_answers_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cache that travels between runners: AVX2 and AVX-512 differ in the last digits."""
    keys = []
    for name in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        keys.append(identity("0", SETTINGS, torch.device("cpu"), torch.float32))
    assert keys[0] != keys[1]


def test_a_cpu_of_another_maker_has_answers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """MKL has other kernels for Intel's CPUs than for the others, and oneDNN serves fewer there."""
    keys = []
    for intel in (True, False):
        monkeypatch.setattr(found_base, "of_intel", lambda intel=intel: intel)
        keys.append(identity("0", SETTINGS, torch.device("cpu"), torch.float32))
    assert keys[0] != keys[1]


def test_a_byte_of_an_adapter_is_another_adapter(adapters: list[Path], tmp_path: Path) -> None:
    seen = {adapter_digest(adapter) for adapter in adapters}
    assert len(seen) == len(adapters)
    for name, at in (("adapter_model.safetensors", -1), ("adapter_config.json", 1)):
        copy = tmp_path / name
        shutil.copytree(adapters[0], copy)
        content = bytearray((copy / name).read_bytes())
        content[at] ^= 1
        (copy / name).write_bytes(content)
        assert adapter_digest(copy) not in seen


def test_drafts_of_text_alone(base: Path, adapters: list[Path]) -> None:
    with Engine(base, SETTINGS) as engine:
        baseline = evaluate(engine, adapters[0])
        want = evaluate(engine, adapters[1])
    with Engine(base, SETTINGS) as engine:
        assert engine.evaluate(TASKS, adapters[1], drafts=baseline) == want
        assert engine.evaluate(TASKS, adapters[1], drafts=want) == want


def test_a_sample_without_an_answer_says_why(base: Path) -> None:
    task = tiny_suite.task(
        "long", "exact", Request.GENERATE, (Sample(id="a", prompt="x" * 500, expected="y"),)
    )
    with Engine(base, SETTINGS) as engine:
        (result,) = engine.evaluate([task], None)
    assert result.samples[0].score is None
    assert result.samples[0].missing == "502 tokens, but the model has 256 positions"


def test_a_missing_score_is_not_kept(base: Path, tmp_path: Path) -> None:
    samples = (
        Sample(id="long", prompt="x" * 500, expected="y"),
        Sample(id="short", prompt="x", expected="y"),
    )
    task = tiny_suite.task("mixed", "exact", Request.GENERATE, samples)
    with ScoreCache(tmp_path) as cache, Engine(base, SETTINGS, cache=cache) as engine:
        first = engine.evaluate([task], None)
        assert engine.evaluate([task], None) == first
        assert engine.cached == 1


def test_errors_name_the_adapter_as_the_user_did(base: Path, tmp_path: Path) -> None:
    other = save_base("gpt2", tmp_path / "gpt2")
    foreign = save_adapter(other, tmp_path / "foreign", r=4, target_modules=["c_attn"])
    files = read_adapter_dir(foreign, shown="adapters/dates")
    with Engine(base, SETTINGS) as engine, pytest.raises(InputError) as caught:
        engine.evaluate(TASKS, files)
    assert caught.value.file == "adapters/dates/adapter_model.safetensors"


def test_no_tasks_and_no_samples(base: Path) -> None:
    empty = tiny_suite.task("empty", "exact", Request.GENERATE, ())
    with Engine(base, SETTINGS) as engine:
        assert engine.evaluate([], None) == ()
        assert engine.evaluate([empty], None)[0].samples == ()


def test_bad_adapters_and_bases_are_named(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    other = save_base("gpt2", tmp_path / "gpt2")
    foreign = save_adapter(other, tmp_path / "foreign", r=4, target_modules=["c_attn"])
    with Engine(base, SETTINGS) as engine:
        for bad, says in ((foreign, "is not a module"), (tmp_path / "none", "does not exist")):
            with pytest.raises(InputError, match=says):
                evaluate(engine, bad)
        evaluate(engine, adapters[0])
    with pytest.raises(InputError, match="is neither a directory nor a model that the Hub shows"):
        Engine(tmp_path / "nothing", SETTINGS)
    with pytest.raises(InputError, match="is an adapter, not a base model"):
        Engine(adapters[0], SETTINGS)
    code = json.loads((base / "config.json").read_text())
    hostile = save_base("llama", tmp_path / "hostile")
    code |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Own"}}
    (hostile / "config.json").write_text(json.dumps(code))
    (hostile / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="cannot be loaded"):
        _ = Engine(hostile, SETTINGS).base
    pickled = save_base("llama", tmp_path / "pickled")
    torch.save({}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        _ = Engine(pickled, SETTINGS).base


def test_the_base_digest_sees_weights_and_tokenizer(base: Path, tmp_path: Path) -> None:
    same = save_base("llama", tmp_path / "same")
    assert base_digest(same) == base_digest(base)
    assert base_digest(save_base("llama", tmp_path / "other", seed=1)) != base_digest(base)
    tokenizer = same / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert base_digest(same) != base_digest(base)


def test_plain_lora_imports_no_peft(base: Path, adapters: list[Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from tests import tiny_suite;"
        "from adapterbot.eval.engine import Engine;"
        f"engine = Engine({str(base)!r});"
        f"engine.evaluate([tiny_suite.generate(3)], Path({str(adapters[0])!r}));"
        "print('peft' in sys.modules)"
    )
    done = python("-c", code, check=True)
    assert done.stdout.strip() == "False"
