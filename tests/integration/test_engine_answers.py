"""The engine says what transformers and PEFT say, one sample at a time, whatever shares a batch."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count as counted
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.answers import Answer, Message, Request, Sample
from adapterbot.eval.base_model import load_base
from adapterbot.eval.engine import Engine
from adapterbot.eval.forward import Forward
from adapterbot.eval.local import LocalModel
from adapterbot.eval.prompts import Prompts
from adapterbot.eval.questions import Question, Unanswered
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import Task
from adapterbot.eval.trees import scores
from adapterbot.weights import adapter_digest, read_adapter_dir
from tests import tiny_suite
from tests.example import EXAMPLE
from tests.tiny_models import EOS, save_adapter, save_base, save_peft

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

BUDGET = EngineSettings(token_budget=400)
TASKS = (tiny_suite.generate(), tiny_suite.choices(), tiny_suite.likelihoods())

# Each for a trap of its own.
ARCHITECTURES: Mapping[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},  # learned positions, Conv1D, tied head, no beginning-of-text token
    "mistral": {"sliding_window": 8},  # a window narrower than the prompts
    "gemma2": {"head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 2.0},
    "qwen2": {},  # biases
    "cohere": {"logit_scale": 0.3},  # arithmetic behind the head
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},  # the head calls the decoder, not the model
    "bloom": {"n_layer": 2, "n_head": 4},  # positions from the mask
    "llama4_text": {
        "head_dim": 8,
        "num_local_experts": 2,
        "attention_chunk_size": 8,
        "intermediate_size_mlp": 64,
    },
    "mamba": {},  # a state instead of keys and values
    "falcon_h1": {  # both
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_n_groups": 1,
        "mamba_d_state": 8,
    },
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {
        name: save_base(name, root / name, **options)
        for name, options in ARCHITECTURES.items()
        if name in ("llama", "gpt2")
    }


def respondent(base: Path, budget: int = 400) -> tuple[LocalModel, Any]:
    loaded = load_base(base, EngineSettings(dtype="float32", device="cpu"))
    return LocalModel(loaded, EngineSettings(token_budget=budget)), loaded.model


def ask(
    one: LocalModel, tasks: Sequence[Task], drafts: Mapping[str, Answer] | None = None
) -> dict[str, Answer]:
    """Every sample's answer by id; ids are unique over the tasks used here."""
    questions = [
        Question(task, sample, partial(getattr, drafts[sample.id], "token_ids") if drafts else None)
        for task in tasks
        for sample in task.samples
    ]
    found = {}
    with torch.inference_mode():
        for index, answer in one.answers(questions):
            assert isinstance(answer, Answer)
            assert questions[index].sample.id not in found
            found[questions[index].sample.id] = answer
    assert len(found) == len(questions)
    return found


def naive_ids(model: Any, tokenizer: Any, prompt: str, **options: Any) -> tuple[int, ...]:
    ids = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        written = model.generate(
            input_ids=ids.input_ids,
            attention_mask=ids.attention_mask,
            do_sample=False,
            **{"max_new_tokens": 12, **options},
        )
    return tuple(written[0, ids.input_ids.shape[1] :].tolist())


def naive_text(model: Any, tokenizer: Any, prompt: str, **options: Any) -> str:
    text: str = tokenizer.decode(
        list(naive_ids(model, tokenizer, prompt, **options)), skip_special_tokens=True
    )
    return text


def naive_loglikelihood(model: Any, context: Sequence[int], continuation: Sequence[int]) -> float:
    # Without the last token, as lm-eval: with LongRoPE one more may change all before it.
    read = torch.tensor([[*context, *continuation[:-1]]])
    with torch.no_grad():
        logits = model(read).logits[0].float().log_softmax(-1)
    return float(
        sum(logits[len(context) + i - 1, token].double() for i, token in enumerate(continuation))
    )


def assert_as_naive(
    answers: Mapping[str, Answer],
    model: Any,
    base: Path,
    tasks: Sequence[Task] = TASKS,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts = Prompts(tokenizer, "base")
    for task in tasks:
        for sample in task.samples:
            answer = answers[sample.id]
            if task.request is Request.GENERATE:
                length = task.generation.max_new_tokens
                want = naive_text(model, tokenizer, sample.prompt, max_new_tokens=length)
                assert answer.text == want
                continue
            texts = sample.choices or (sample.expected,)
            assert answer.byte_counts == tuple(len(text.encode()) for text in texts)
            ((context, continuations),) = prompts.contexts_and_continuations([(sample, texts)])
            for continuation, value, count in zip(
                continuations, answer.loglikelihoods, answer.token_counts, strict=True
            ):
                assert count == len(continuation)
                assert value == pytest.approx(
                    naive_loglikelihood(model, context, continuation), abs=1e-4
                )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_same_answers_as_transformers_one_by_one(name: str, tmp_path: Path) -> None:
    base = save_base(name, tmp_path / name, **ARCHITECTURES[name])
    one, _ = respondent(base)
    answers = ask(one, TASKS)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    assert_as_naive(answers, model, base)
    assert len({a.text for a in answers.values()}) > 5, "the test model babbles"
    drafted = ask(one, TASKS, answers)
    assert {k: v.token_ids for k, v in drafted.items()} == {
        k: v.token_ids for k, v in answers.items()
    }


def behind_a_header(task: Task) -> Task:
    """The task with a header before every second prompt, and another before the rest."""
    headers = ("the thing is in the bin and then ", "this is a thin inn with a thing in it ")
    samples = tuple(
        sample.model_copy(
            update={"id": f"h{sample.id}", "prompt": headers[i % 2] + (sample.prompt or "a")}
        )
        for i, sample in enumerate(task.samples)
    )
    return task.model_copy(update={"samples": samples})


@pytest.mark.parametrize("name", ["llama", "mistral", "bloom"])
def test_what_prompts_share_is_read_once_and_changes_nothing(name: str, tmp_path: Path) -> None:
    base = save_base(name, tmp_path / name, **ARCHITECTURES[name])
    one, model = respondent(base, 1500)
    read: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: read.append(args[0].numel())
    )
    tasks = [behind_a_header(task) for task in TASKS]
    answers = ask(one, tasks)
    together = sum(read)
    read.clear()
    alone: dict[str, Answer] = {}
    for task in tasks:
        for sample in task.samples:
            alone |= ask(one, [task.model_copy(update={"samples": (sample,)})])
    for name_, answer in alone.items():
        assert answers[name_].token_ids == answer.token_ids
        assert answers[name_].loglikelihoods == pytest.approx(answer.loglikelihoods, abs=1e-4)
    drafted = ask(one, tasks, answers)
    assert {k: a.token_ids for k, a in drafted.items()} == {
        k: a.token_ids for k, a in alone.items()
    }
    if name == "llama":
        assert together < 0.7 * sum(read), "positions read, against one sample at a time"


def test_the_options_of_a_question_are_read_in_one_pass(bases: dict[str, Path]) -> None:
    one, model = respondent(bases["llama"])
    task = tiny_suite.choices(1)
    read: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: read.append(args[0].numel())
    )
    (answer,) = ask(one, [task]).values()
    (sample,) = task.samples
    prompts = Prompts(AutoTokenizer.from_pretrained(bases["llama"]), "base")
    ((context, options),) = prompts.contexts_and_continuations([(sample, sample.choices)])
    begun = {option[:size] for option in options for size in range(1, len(option))}
    assert read == [len(context) + len(begun)]
    assert answer.greedy == (), "nobody asked"


def test_end_of_text_ends_an_answer(bases: dict[str, Path]) -> None:
    settings = EngineSettings(dtype="float32", device="cpu")
    base = load_base(bases["llama"], settings)
    free = ask(LocalModel(base, BUDGET), TASKS[:1])
    # Tokens that come first in one answer and later in others, so that rows end at every length.
    ends = {answer.token_ids[index % 12] for index, answer in enumerate(free.values())}
    ended = ask(LocalModel(replace(base, eos=frozenset(ends)), BUDGET), TASKS[:1])
    tokenizer = AutoTokenizer.from_pretrained(bases["llama"])
    for sample in TASKS[0].samples:
        want = naive_ids(base.model, tokenizer, sample.prompt, eos_token_id=list(ends))
        assert ended[sample.id].token_ids == (want[:-1] if want[-1] in ends else want)
    assert len({len(answer.token_ids) for answer in ended.values()}) > 3
    assert min(len(answer.token_ids) for answer in ended.values()) == 0


def test_eager_attention(bases: dict[str, Path]) -> None:
    settings = EngineSettings(dtype="float32", device="cpu", attn_implementation="eager")
    answers = ask(LocalModel(load_base(bases["llama"], settings), BUDGET), TASKS)
    assert_as_naive(answers, AutoModelForCausalLM.from_pretrained(bases["llama"]), bases["llama"])


QV = ["q_proj", "v_proj"]
FEW = (tiny_suite.generate(5), tiny_suite.choices(3), tiny_suite.likelihoods(4))

# Every option of PEFT's LoRA that changes what a model says, each with what it is a trap for.
OPTIONS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "rslora": ("llama", {"target_modules": QV, "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": "all-linear",
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp.*": 6},
            "alpha_pattern": {"v_proj": 3, "layers.0.self_attn.q_proj": 11},
        },
    ),
    "a pattern for targets": ("llama", {"target_modules": r".*layers\.1.*\.(q|up)_proj"}),
    "layers": (
        "llama",
        {"target_modules": QV, "layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    "excluded": ("llama", {"target_modules": "all-linear", "exclude_modules": ["down_proj"]}),
    "embeddings and head": ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "embeddings of a tied base": ("gpt2", {"target_modules": ["wte", "c_proj"]}),
    "modules to save": ("llama", {"target_modules": QV, "modules_to_save": ["lm_head", "norm"]}),
    "a trained embedding": ("llama", {"target_modules": QV, "modules_to_save": ["embed_tokens"]}),
    "every bias": ("gpt2", {"target_modules": ["c_attn", "wte"], "bias": "all"}),
    "its own biases": ("gpt2", {"target_modules": ["c_attn"], "bias": "lora_only"}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "dora": ("llama", {"target_modules": [*QV, "lm_head"], "use_dora": True}),
    "dora on Conv1D": ("gpt2", {"target_modules": ["c_attn"], "use_dora": True, "bias": "all"}),
    "bias of B": ("gpt2", {"target_modules": ["c_attn"], "lora_bias": True}),
    "trained tokens": ("llama", {"target_modules": QV, "trainable_token_indices": [97, 98, 99]}),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_same_answers_as_peft_one_by_one(
    kind: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    name, options = OPTIONS[kind]
    directory = save_adapter(bases[name], tmp_path / "a", r=4, **options)
    assert_as_peft(bases[name], directory)


def test_the_same_answers_as_peft_outside_of_lora(bases: dict[str, Path], tmp_path: Path) -> None:
    config = peft.IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    )
    fresh = AutoModelForCausalLM.from_pretrained(bases["llama"])
    directory = save_peft(peft.get_peft_model(fresh, config), tmp_path / "a")
    assert_as_peft(bases["llama"], directory)


def assert_as_peft(base: Path, directory: Path, loader: Any = AutoModelForCausalLM) -> None:
    """The engine's own way of attaching, all in one batch, against PEFT's one sample at a time."""
    loaded = load_base(base, EngineSettings(dtype="float32", device="cpu"))
    model = LocalModel(loaded, BUDGET)
    files = read_adapter_dir(directory)
    with torch.inference_mode():
        bare = ask(model, FEW)
    with model.under(files, adapter_digest(files.path)):
        answers = ask(model, FEW)
        drafted = ask(model, FEW, bare)
    assert {k: a.token_ids for k, a in drafted.items()} == {
        k: a.token_ids for k, a in answers.items()
    }
    assert answers != bare
    reference = peft.PeftModel.from_pretrained(loader.from_pretrained(base), directory).eval()
    assert_as_naive(answers, reference, base, FEW)


def test_answers_do_not_depend_on_who_shares_the_batch(bases: dict[str, Path]) -> None:
    one, _ = respondent(bases["llama"], 400)
    want = ask(one, TASKS)
    for budget in (1, 90, 100_000):
        other, _ = respondent(bases["llama"], budget)
        shuffled = [
            task.model_copy(
                update={
                    "samples": tuple(
                        random.Random(budget).sample(task.samples, k=len(task.samples))
                    )
                }
            )
            for task in reversed(TASKS)
        ]
        got = ask(other, shuffled)
        for name, answer in want.items():
            assert got[name].token_ids == answer.token_ids
            assert got[name].loglikelihoods == pytest.approx(answer.loglikelihoods, abs=1e-4)


DRAFTS = {
    "none at all": lambda answer: (),
    "right": lambda answer: answer,
    "right and longer": lambda answer: (*answer, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13),
    "too short": lambda answer: answer[: len(answer) // 2],
    "wrong from the first": lambda answer: tuple((t + 1) % 250 for t in answer),
    "wrong at the fourth": lambda answer: (*answer[:3], *((t + 1) % 250 for t in answer[3:])),
    "with an end in it": lambda answer: (*answer[:2], EOS, *answer[2:]),
}


@pytest.mark.parametrize("kind", DRAFTS)
@pytest.mark.parametrize(
    "generation",
    [
        {},
        {"max_new_tokens": 1},
        {"stop": ("th", "\x11")},
        {"temperature": 0.8, "top_p": 0.9, "seed": 3},
    ],
    ids=["greedy", "one token", "stop", "sampled"],
)
def test_drafts_never_change_an_answer(
    kind: str, generation: dict[str, Any], bases: dict[str, Path]
) -> None:
    task = tiny_suite.generate(40, **generation)
    one, _ = respondent(bases["llama"])
    want = ask(one, [task])
    drafts = {
        name: replace(answer, token_ids=DRAFTS[kind](answer.token_ids))
        for name, answer in want.items()
    }
    assert ask(one, [task], drafts) == want


def test_drafts_that_hold_cost_one_pass(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_suite.generate(40)
    one, model = respondent(bases["llama"], 100_000)
    passes: list[int] = []
    model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    want = ask(one, [task])
    # The head's own passes leave the body out, and the hook with it is still called: two a step.
    plain = len(passes)
    passes.clear()
    assert ask(one, [task], want) == want
    assert len(passes) <= 2 * (2 + 4), "a pilot and the rest, each read once, the rest in groups"
    assert plain >= 2 * 12
    passes.clear()
    wrong = {
        n: replace(a, token_ids=tuple((t + 1) % 250 for t in a.token_ids)) for n, a in want.items()
    }
    assert ask(one, [task], wrong) == want
    assert len(passes) <= plain + 2 * 2, "drafts that fail are given up after the pilot"


def test_memory_that_ends_changes_nothing(bases: dict[str, Path]) -> None:
    """The real model in batches that do not fit, as a GPU would say it."""
    one, model = respondent(bases["llama"], 2000)
    want = ask(one, TASKS)
    small, model = respondent(bases["llama"], 2000)
    refused: list[int] = []

    def full(_: object, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        rows = len(options["input_ids"])
        if rows > 5:
            refused.append(rows)
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.model.register_forward_pre_hook(full, with_kwargs=True)
    got = ask(small, TASKS)
    assert len(refused) >= 2
    for name, answer in want.items():
        assert got[name].token_ids == answer.token_ids
        assert got[name].loglikelihoods == pytest.approx(answer.loglikelihoods, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_no_memory_is_read_that_was_not_written(bases: dict[str, Path], kind: str) -> None:
    """So it need not be filled: with NaN in every new tensor all answers are what they were."""
    one, _ = respondent(bases[kind])
    want = ask(one, TASKS)
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(9).isnan().all()
        assert ask(one, TASKS) == want
        assert ask(one, TASKS, want) == want
    finally:
        torch.use_deterministic_algorithms(False)


def test_time_is_shared_by_the_samples_of_a_batch(bases: dict[str, Path]) -> None:
    one, _ = respondent(bases["llama"], 2000)
    started = time.perf_counter()
    answers = ask(one, TASKS)
    wall = time.perf_counter() - started
    seconds = [answer.seconds for answer in answers.values()]
    assert all(s is not None and s > 0 for s in seconds)
    assert 0.3 * wall < sum(s for s in seconds if s) <= wall


def test_a_draft_does_not_falsify_a_time(bases: dict[str, Path]) -> None:
    one, model = respondent(bases["llama"], 100_000)
    task = tiny_suite.task(
        "slow", "latency", Request.GENERATE, tiny_suite.generate(40).samples, max_new_tokens=12
    )
    passes: list[int] = []
    want = ask(one, [task])
    model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    assert ask(one, [task], want) == want
    assert len(passes) >= 12, "decoded, as if there were no draft"


def test_stop_strings_end_the_text(bases: dict[str, Path]) -> None:
    one, _ = respondent(bases["llama"])
    free = ask(one, [tiny_suite.generate(24)])
    letters = sorted({text[3] for a in free.values() if len(text := a.text) > 5})[:3]
    stop = tuple(letters)
    stopped = ask(one, [tiny_suite.generate(24, stop=stop)])
    cut = 0
    for name, answer in free.items():
        first = min((at for s in stop if (at := answer.text.find(s)) >= 0), default=None)
        assert stopped[name].text == (answer.text if first is None else answer.text[:first])
        cut += first is not None
        if first is not None:
            assert len(stopped[name].token_ids) <= len(answer.token_ids)
    assert cut > 3


def test_sampling_is_seeded_and_paired(bases: dict[str, Path]) -> None:
    one, _ = respondent(bases["llama"])
    drawn = ask(one, [tiny_suite.generate(24, temperature=1.0, seed=1)])
    again = ask(
        respondent(bases["llama"], 50)[0], [tiny_suite.generate(24, temperature=1.0, seed=1)]
    )
    other = ask(one, [tiny_suite.generate(24, temperature=1.0, seed=2)])
    assert drawn == again
    assert sum(drawn[name].token_ids == other[name].token_ids for name in drawn) < 4


def test_what_does_not_fit_the_model_has_no_answer(bases: dict[str, Path]) -> None:
    one, _ = respondent(bases["gpt2"])
    long, short = "x" * 200, "x" * 120
    tasks = [
        tiny_suite.task(
            "g",
            "exact",
            Request.GENERATE,
            (Sample(id="long", prompt=long), Sample(id="short", prompt=short)),
            max_new_tokens=50,
        ),
        tiny_suite.task(
            "l", "perplexity", Request.LIKELIHOOD, (Sample(id="text", prompt="", expected=long),)
        ),
    ]
    questions = [Question(task, sample) for task in tasks for sample in task.samples]
    found = dict(one.answers(questions))
    assert found[0] == Unanswered("201 tokens, but the model has 128 positions")
    assert found[2] == Unanswered("200 tokens, but the model has 128 positions")
    assert isinstance(found[1], Answer)
    assert len(found[1].token_ids) <= 8, "an answer ends where the positions do"


def test_what_is_no_token_long_spoils_no_other(bases: dict[str, Path]) -> None:
    one, _ = respondent(bases["llama"])
    sound = tiny_suite.choices(4)
    empty = Sample(id="empty", prompt="in", choices=("", "th"), expected="1")
    task = sound.model_copy(update={"samples": (*sound.samples, empty)})
    found = dict(one.answers([Question(task, sample) for sample in task.samples]))
    assert found.pop(4) == Unanswered("the text to score has no token")
    assert {task.samples[i].id: answer for i, answer in found.items()} == ask(one, [sound])


def test_a_chat_without_a_template_is_refused(bases: dict[str, Path]) -> None:
    prompts = Prompts(AutoTokenizer.from_pretrained(bases["llama"]), "models/base")
    with pytest.raises(InputError, match="has no chat template") as caught:
        prompts.prompts([Sample(id="a", prompt="x", messages=(Message(role="user", content="x"),))])
    assert caught.value.file == "models/base"


def chat_tokenizer(base: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return tokenizer


def test_chats_are_written_by_the_template(bases: dict[str, Path]) -> None:
    tokenizer = chat_tokenizer(bases["llama"])
    prompts = Prompts(tokenizer, "base")
    sample = Sample(
        id="a",
        prompt="in the inn",
        messages=(Message(role="user", content="in the inn"),),
        expected="x",
    )
    want = tokenizer.apply_chat_template(
        [{"role": "user", "content": "in the inn"}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    assert prompts.prompts([sample]) == [tuple(want)]
    ((context, (continuation,)),) = prompts.contexts_and_continuations([(sample, ["x"])])
    assert context == tuple(want)
    assert continuation == tuple(tokenizer("x", add_special_tokens=False)["input_ids"])


def test_seams_are_tokenised_as_lm_eval_does(bases: dict[str, Path]) -> None:
    with_bos = Prompts(AutoTokenizer.from_pretrained(bases["llama"]), "base")
    without = Prompts(AutoTokenizer.from_pretrained(bases["gpt2"]), "base")
    bos, th, space_th = 256, 259, 261
    assert with_bos.prefix == (bos,)
    assert without.prefix == ()
    # A space at the context's end belongs to the continuation, where it makes one token of " th".
    (space, melting) = with_bos.contexts_and_continuations(
        [(Sample(id="a", prompt="a "), ["th"]), (Sample(id="b", prompt="t"), ["h"])]
    )
    context, (continuation,) = space
    assert continuation == (space_th,)
    assert with_bos.text(context) == "a"
    # "t" + "h" would melt into one token: the two are kept apart.
    context, (continuation,) = melting
    assert len(context) == 2
    assert len(continuation) == 1
    assert th not in context + continuation
    # Nothing before the first token: the end-of-text token stands in for a beginning.
    ((context, _),) = without.contexts_and_continuations([(Sample(id="a", prompt=""), ["a"])])
    assert context == (EOS,)


def test_bfloat16_runs(bases: dict[str, Path]) -> None:
    settings = EngineSettings(dtype="bfloat16", device="cpu")
    answers = ask(LocalModel(load_base(bases["llama"], settings), BUDGET), TASKS)
    assert len(answers) == sum(len(task.samples) for task in TASKS)


def test_a_mask_that_another_kernel_reads_forbids_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU computes a pass with a mask by another kernel than one without."""
    unmasked = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(module: Any, q: Any, k: Any, v: Any, mask: Any, **options: Any) -> Any:
        if mask is None:
            return unmasked(module, q, k, v, mask, **options)
        seen = mask if mask.dtype == torch.bool else mask >= 0
        added = scores(seen, q.dtype)
        return eager_attention_forward(module, q, k, v, added, scaling=options["scaling"])

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", attention)
    base = save_base("llama", tmp_path / "base", hidden_size=128, num_hidden_layers=8)
    model = load_base(base, EngineSettings(dtype="bfloat16", device="cpu")).model
    forward = Forward(model)
    assert forward.tolerates_holes(100)
    assert forward.tolerates_trees(100)
    assert not forward.recurrent


def _masks_ignored(_: Any, __: Any, given: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
    return (), {**given, "attention_mask": None}


def _positions_ignored(_: Any, __: Any, given: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
    return (), {**given, "position_ids": None}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("hook", [_masks_ignored, _positions_ignored])
def test_what_a_trained_base_reads_wrong_is_found_out_in_any_dtype(dtype: str, hook: Any) -> None:
    model = load_base(EXAMPLE / "base", EngineSettings(dtype=dtype, device="cpu")).model
    assert Forward(model).tolerates_trees(100)
    model.model.register_forward_pre_hook(hook, with_kwargs=True)
    wrong = Forward(model)
    assert not wrong.tolerates_holes(100)
    wrong.__dict__["_reads_past_holes"] = True  # and trees for themselves
    assert not wrong._sees_trees()


@pytest.mark.parametrize("probe", range(6))
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_that_ends_says_nothing_of_the_architecture(
    bases: dict[str, Path], probe: int, error: Exception
) -> None:
    base = load_base(bases["llama"], EngineSettings(dtype="float32", device="cpu"))
    passes = counted()

    def full(*_: object) -> None:
        if next(passes) == probe:
            raise error

    base.model.model.layers[0].register_forward_pre_hook(full)
    with pytest.raises(OurFailure, match="too little of the device's memory for a single text"):
        Forward(base.model)


def test_an_error_that_is_kept_leaves_the_body_as_it_was(bases: dict[str, Path]) -> None:
    """Whoever holds an error holds its frames, and with them whatever is half done there."""
    model = load_base(bases["llama"], EngineSettings(dtype="float32", device="cpu")).model
    forward = Forward(model)
    logits = forward.logits(torch.zeros(1, 32))
    next(logits)
    assert "forward" not in model.model.__dict__


def test_what_overflows_is_no_answer(tmp_path: Path) -> None:
    """As fp16 does, which ends at 65,504, decoding as well as reading a draft."""
    base = save_base("llama", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    for name in (name for name in weights if "up_proj" in name):
        weights[name] *= 3e4
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    tasks = [tiny_suite.generate(8), tiny_suite.choices(4)]
    wide, narrow = (
        Engine(base, EngineSettings(device="cpu", dtype=dtype)) for dtype in ("float32", "float16")
    )
    said, chosen = wide.evaluate(tasks, None)
    assert all(sample.missing is None for sample in (*said.samples, *chosen.samples))
    for drafts in (None, [said]):
        lost, unweighed = narrow.evaluate(tasks, None, drafts=drafts)
        assert {sample.missing for sample in lost.samples} == {"its logits are not finite"}
        assert {s.missing for s in unweighed.samples} == {"its log-likelihood is not finite"}
