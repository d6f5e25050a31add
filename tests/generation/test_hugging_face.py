"""The library's `generate` behind the generator: what shapes tokens, what never comes out, and how it ends."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import closing

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.generation.logits_process import SuppressTokensLogitsProcessor

from dschat.data.batches import PromptBatch
from dschat.errors import UserError
from dschat.generation import EndTokens, RowSeed, Sampling
from dschat.generation.hugging_face import HuggingFaceGenerator, RealTokens
from dschat.models.causal_lm import real_logits
from dschat.models.tokenizer import Vocabulary
from tests.generation.engines import PlainEngine
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer, make_tokenizer_with_gaps

TOKENIZER = make_tokenizer()
PAD, EOS = int(TOKENIZER.pad_token_id), int(TOKENIZER.eos_token_id)
GREEDY = Sampling(temperature=0, top_k=0, top_p=1, max_new_tokens=12)
PROMPTS = [TOKENIZER(text)["input_ids"] for text in ("list value", "the sum of all the values", "a")]


def batch(rows: list[list[int]] = PROMPTS) -> PromptBatch:
    return PromptBatch.of_ids(rows, pad_token_id=PAD)


def generator(model: PreTrainedModel, *, size: int | None = None) -> HuggingFaceGenerator:
    return HuggingFaceGenerator(model, EndTokens((EOS,), PAD, Vocabulary(size or len(TOKENIZER))))


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return make_causal_lm("llama", vocab_size=len(TOKENIZER) + 5)


def without_cache(model: PreTrainedModel, prompt: list[int], length: int, *, size: int) -> list[int]:
    """The likeliest continuation by whole forwards."""
    ids = list(prompt)
    for _ in range(length):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1, :size].argmax()))
        if ids[-1] == EOS:
            break
    return ids[len(prompt) :]


def test_greedy_answers_equal_whole_forwards_row_by_row(model: PreTrainedModel) -> None:
    expected = [without_cache(model, row, 12, size=len(TOKENIZER)) for row in PROMPTS]
    assert generator(model).generate(batch(), GREEDY).ids() == expected
    assert generator(PlainEngine(model)).generate(batch(), GREEDY).ids() == expected


@pytest.mark.parametrize("sampling", [Sampling(0.7, 20, 0.9, 9), Sampling(1.0, 0, 1.0, 9), Sampling(1.3, 3, 1.0, 9)])
def test_sampling_is_the_librarys_with_the_same_fields_and_random_state(
    model: PreTrainedModel, sampling: Sampling
) -> None:
    prompts = batch()
    torch.manual_seed(5)
    found = generator(model).generate(prompts, sampling)
    torch.manual_seed(5)
    settings = GenerationConfig(
        do_sample=True, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
        max_new_tokens=9, eos_token_id=[EOS], pad_token_id=PAD, suppress_tokens=list(range(len(TOKENIZER), 305)),
    )  # fmt: skip
    expected = model.generate(
        input_ids=prompts.input_ids, attention_mask=prompts.attention_mask, generation_config=settings
    )
    assert torch.equal(found.tokens, expected[:, prompts.input_ids.shape[1] :])
    assert found.finite.all()


def test_a_row_with_its_own_seed_answers_alike_alone_and_among_others(model: PreTrainedModel) -> None:
    sampling, seeds = Sampling(1.0, 0, 0.95, 9), [RowSeed(1, row) for row in range(3)]
    together = generator(model).generate(batch(), sampling, seeds=seeds).ids()
    alone = [
        generator(model).generate(batch([row]), sampling, seeds=[seed]).ids()[0]
        for row, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == alone
    assert generator(model).generate(batch(), sampling, seeds=[RowSeed(2, row) for row in range(3)]).ids() != alone


def favour(model: PreTrainedModel, token: int) -> None:
    """Make a token the likeliest after PROMPTS[0]."""
    with torch.no_grad():
        last = model.model(torch.tensor([PROMPTS[0]])).last_hidden_state[0, -1]
        model.lm_head.weight[token] = last * 100


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0, 0, 1.0, 12)])
def test_a_likely_row_beyond_the_tokenizer_is_never_sampled(sampling: Sampling) -> None:
    model = make_causal_lm("llama", vocab_size=len(TOKENIZER) + 5)
    favour(model, 304)
    assert generator(model, size=305).generate(batch(PROMPTS[:1]), GREEDY).ids()[0][0] == 304
    for seeds in (None, [RowSeed(0, 0)]):
        tokens = generator(model).generate(batch(PROMPTS[:1]), sampling, seeds=seeds).tokens
        assert int(tokens.max()) < len(TOKENIZER)


def test_a_high_id_with_a_token_is_sampled_and_the_gaps_before_it_are_not() -> None:
    tokenizer = make_tokenizer_with_gaps(eos=900)
    model = make_causal_lm("llama", vocab_size=1024)
    ends = EndTokens((900,), PAD, Vocabulary.of(tokenizer))
    sampling = Sampling(1.0, 0, 1.0, 40)
    rows = batch(PROMPTS[:1] * 8)
    torch.manual_seed(0)
    tokens = HuggingFaceGenerator(model, ends).generate(rows, sampling).tokens
    assert len(tokens.unique()) > 50 and set(tokens.unique().tolist()) <= set(tokenizer.get_vocab().values())
    favour(model, 900)
    assert HuggingFaceGenerator(model, ends).generate(rows, sampling).ids() == [[900]] * 8
    favour(model, 500)
    assert HuggingFaceGenerator(model, ends).generate(rows, GREEDY).tokens[0, 0] != 500


@pytest.mark.parametrize("gaps", [(), (0, 3, 200)])
def test_sampling_draws_from_what_is_scored(model: PreTrainedModel, gaps: tuple[int, ...]) -> None:
    scores = 5 * torch.randn(3, 305, generator=torch.Generator().manual_seed(0))
    vocabulary = Vocabulary(299, gaps)
    sampled = RealTokens(vocabulary)(torch.zeros(3, 1, dtype=torch.long), scores).softmax(-1)
    torch.testing.assert_close(sampled[:, :299], real_logits(scores, vocabulary).softmax(-1))
    assert sampled[:, [*gaps, *range(299, 305)]].eq(0).all()


def test_leaving_rows_out_equals_the_librarys_list_of_suppressed_ids() -> None:
    scores = torch.randn(3, 305, generator=torch.Generator().manual_seed(0))
    ids = torch.zeros(3, 1, dtype=torch.long)
    expected = SuppressTokensLogitsProcessor([7, *range(301, 305)])(ids, scores)
    processor = RealTokens(Vocabulary(301, (7,)))
    for _ in range(2):
        assert torch.equal(processor(ids, scores), expected)
    assert torch.equal(processor(ids, scores[:, :302]), expected[:, :302])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.5, 0, 1.0, 12), Sampling(0.5, 5, 0.5, 12)])
def test_rows_with_broken_logits_are_named_and_the_others_go_on(value: float, sampling: Sampling) -> None:
    model = make_causal_lm("llama", vocab_size=len(TOKENIZER))
    seeds = [RowSeed(0, row) for row in range(3)]
    whole = generator(model).generate(batch(), sampling, seeds=seeds)
    only_in_the_second = next(token for token in PROMPTS[1] if token not in {*PROMPTS[0], *PROMPTS[2]})
    with torch.no_grad():
        model.model.embed_tokens.weight[only_in_the_second] = value
    answers = generator(model).generate(batch(), sampling, seeds=seeds)
    assert answers.finite.tolist() == [True, False, True]
    for row in (0, 2):
        assert answers.tokens[row].tolist() == whole.tokens[row].tolist()
    assert generator(model).generate(batch(), sampling).finite.tolist() == [True, False, True]
    with pytest.raises(UserError, match="NaN or infinite"):
        list(generator(model).stream(batch(PROMPTS[1:2]), sampling, TOKENIZER))


def test_training_mode_is_refused(model: PreTrainedModel) -> None:
    model.train()
    try:
        with pytest.raises(RuntimeError, match="call eval"):
            generator(model).generate(batch(), GREEDY)
    finally:
        model.eval()


@pytest.mark.parametrize("fails", [False, True])
def test_the_models_own_generation_config_is_back_afterwards(model: PreTrainedModel, fails: bool) -> None:
    own = model.generation_config
    content = own.to_dict()
    if fails:
        with pytest.raises(ValueError, match="top_k"):
            generator(model).generate(batch(), Sampling(1.0, -3, 1.0, 4))
    else:
        generator(model).generate(batch(), GREEDY)
    assert model.generation_config is own and own.to_dict() == content


def test_pieces_of_a_stream_are_the_answer(model: PreTrainedModel) -> None:
    expected = generator(model).generate(batch(PROMPTS[:1]), GREEDY).ids()[0]
    pieces = list(generator(model).stream(batch(PROMPTS[:1]), GREEDY, TOKENIZER))
    assert "".join(pieces) == TOKENIZER.decode(expected, skip_special_tokens=True) and len(pieces) > 2


def test_a_stream_ends_at_a_stop_string(model: PreTrainedModel) -> None:
    whole = "".join(generator(model).stream(batch(PROMPTS[:1]), GREEDY, TOKENIZER))
    tokens = generator(model).generate(batch(PROMPTS[:1]), GREEDY).ids()[0]
    stop = next(text for text in map(TOKENIZER.decode, tokens[1:]) if text.isalpha())
    cut = "".join(generator(model).stream(batch(PROMPTS[:1]), GREEDY, TOKENIZER, stop_strings=[stop]))
    assert cut == whole[: whole.index(stop) + len(stop)]


def slowed(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, step: Callable[[], None]) -> None:
    """Have the model do something before every forward."""
    forward = model.forward

    def slow(*args: object, **inputs: object) -> object:
        step()
        return forward(*args, **inputs)

    monkeypatch.setattr(model, "forward", slow)


def test_an_abandoned_stream_generates_no_further(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    slowed(model, monkeypatch, lambda: steps.append(1))
    before = threading.active_count()
    long = Sampling(1.0, 0, 1.0, 100)
    with closing(HuggingFaceGenerator(model, EndTokens((), PAD, Vocabulary(300))).stream(
        batch(PROMPTS[:1]), long, TOKENIZER
    )) as pieces:  # fmt: skip
        next(pieces)
    assert threading.active_count() == before
    made = len(steps)
    assert made < 100
    assert len(steps) == made


def test_a_failure_while_streaming_is_raised_and_does_not_hang(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    slowed(model, monkeypatch, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(generator(model).stream(batch(PROMPTS[:1]), GREEDY, TOKENIZER))


def test_a_processor_list_of_the_library_takes_ours() -> None:
    processors = LogitsProcessorList([RealTokens(Vocabulary(2))])
    found: Tensor = processors(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 3))
    assert found.tolist() == [[0.0, 0.0, -math.inf]]
