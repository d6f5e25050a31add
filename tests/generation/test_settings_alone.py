"""Tokens depend on the arguments alone, whatever a model folder's generation_config.json says.

The list holds every field of the library's GenerationConfig: a new one fails the last test until it is here, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from dschat.answering import chat, prompt_eval
from dschat.data.batches import PromptBatch
from dschat.errors import UserError
from dschat.generation import EndTokens, HuggingFaceSettings, RowSeed, Sampling, build_generator
from dschat.models.causal_lm import load_causal_lm
from dschat.models.checked import check_model
from dschat.runtime.model_folders import save_model
from tests.generation.engines import PlainEngine
from toys.jobs import Job, make_folders, ppo_arguments, run_job, without_times
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer

TOKENIZER = make_tokenizer()
PROMPT = TOKENIZER("list value list value list value")["input_ids"]
PAD = int(TOKENIZER.pad_token_id)
LENGTH = 12
COMMON = [5, 16, 70, 71, 72, 73, 74, 75]
"""Tokens that most answers hold one of."""

ODD: dict[str, dict[str, Any]] = {
    "max_length": {"max_length": len(PROMPT) + 1},
    "max_new_tokens": {"max_new_tokens": 1},
    "min_length": {"min_length": 100},
    "min_new_tokens": {"min_new_tokens": LENGTH},
    "early_stopping": {"early_stopping": True, "num_beams": 2},
    "max_time": {"max_time": 1e-9},
    "stop_strings": {"stop_strings": list("abcdefghijklmnopqrstuvwxyz")},
    "do_sample": {"do_sample": True},
    "num_beams": {"num_beams": 4},
    "use_mtp": {"use_mtp": True},
    "use_cache": {"use_cache": False},
    "cache_implementation": {"cache_implementation": "static"},
    "cache_config": {"cache_implementation": "quantized", "cache_config": {"backend": "quanto"}},
    "max_cache_len": {"cache_implementation": "static", "max_cache_len": 8},
    "temperature": {"do_sample": True, "temperature": 0.1},
    "top_k": {"do_sample": True, "top_k": 2},
    "top_p": {"do_sample": True, "top_p": 0.1},
    "min_p": {"do_sample": True, "min_p": 0.9},
    "top_h": {"do_sample": True, "top_h": 0.1},
    "typical_p": {"do_sample": True, "typical_p": 0.1},
    "epsilon_cutoff": {"do_sample": True, "epsilon_cutoff": 0.2},
    "eta_cutoff": {"do_sample": True, "eta_cutoff": 0.5},
    "repetition_penalty": {"repetition_penalty": 3.0},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 9.0},
    "length_penalty": {"num_beams": 3, "length_penalty": 5.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": [[token] for token in COMMON]},
    "renormalize_logits": {"renormalize_logits": True},
    "forced_bos_token_id": {"forced_bos_token_id": 7},
    "forced_eos_token_id": {"forced_eos_token_id": 7},
    "remove_invalid_values": {"remove_invalid_values": True},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [1, 3.0]},
    "suppress_tokens": {"suppress_tokens": list(range(10, 290))},
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(10, 290))},
    "sequence_bias": {"sequence_bias": [[[token], 50.0] for token in COMMON]},
    "token_healing": {"token_healing": True},
    "guidance_scale": {"guidance_scale": 5.0},
    "watermarking_config": {"watermarking_config": {"bias": 20.0}},
    "num_return_sequences": {"do_sample": True, "num_return_sequences": 2},
    "output_attentions": {"return_dict_in_generate": True, "output_attentions": True},
    "output_hidden_states": {"return_dict_in_generate": True, "output_hidden_states": True},
    "output_scores": {"return_dict_in_generate": True, "output_scores": True},
    "output_logits": {"return_dict_in_generate": True, "output_logits": True},
    "return_dict_in_generate": {"return_dict_in_generate": True},
    "pad_token_id": {"pad_token_id": 9},
    "bos_token_id": {"bos_token_id": 9},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "decoder_start_token_id": {"decoder_start_token_id": 9},
    "is_assistant": {"is_assistant": True, "assistant_confidence_threshold": 0.99},
    "num_assistant_tokens": {"num_assistant_tokens": 1},
    "num_assistant_tokens_schedule": {"num_assistant_tokens_schedule": "heuristic"},
    "assistant_confidence_threshold": {"assistant_confidence_threshold": 0.99},
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 2},
    "max_matching_ngram_size": {"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 1},
    "assistant_early_exit": {"assistant_early_exit": 1},
    "assistant_lookbehind": {"assistant_lookbehind": 1},
    "target_lookbehind": {"target_lookbehind": 1},
    "assistant_ensemble_weight": {"assistant_ensemble_weight": 0.5},
    "speculation_type": {"speculation_type": "dflash"},
    "disable_compile": {"disable_compile": False, "cache_implementation": "static"},
    "low_memory": {"low_memory": True, "penalty_alpha": 0.5, "top_k": 4},
    "penalty_alpha": {"penalty_alpha": 0.6, "top_k": 4},
    "dola_layers": {"dola_layers": "high"},
    "diversity_penalty": {"diversity_penalty": 0.5, "num_beams": 4, "num_beam_groups": 2},
    "num_beam_groups": {"num_beams": 4, "num_beam_groups": 2},
    "constraints": {"constraints": [[7]], "num_beams": 2},
    "force_words_ids": {"force_words_ids": [[7]], "num_beams": 2},
    "prefill_chunk_size": {"prefill_chunk_size": 2},
    "a field that the library does not have yet": {"repetition_penalty_of_2030": 2.0},
}
NO_SAMPLING = {
    "eos_token_id",  # the one exception: it joins the end tokens
    "compile_config", "continuous_batching_config",  # objects, which the library reads from no file
    "transformers_version", "_from_model_config",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What every program answers."""

    ppo: list[list[int]]
    greedy: list[list[int]]
    sampled: list[list[int]]
    chat: str
    prompt_eval: list[str]


def answers(folder: Path) -> Found:
    """The answers of the model in a folder, by every way to ask it."""
    checked = check_model("model", str(folder))
    ends = EndTokens.of(checked)
    model = load_causal_lm(checked, dtype=torch.float32).eval()
    plain = build_generator(model, ends, HuggingFaceSettings())
    words = ["--path", str(folder), "--max_new_tokens", str(LENGTH), "--device", "cpu"]
    bot = chat.load_chatbot(chat.parse_arguments(words))
    rows = PromptBatch.of_ids([PROMPT] * 8, pad_token_id=PAD)
    one = PromptBatch.of_ids([PROMPT, PROMPT[:3]], pad_token_id=PAD)
    sampling = Sampling(1.0, 0, 1.0, LENGTH)
    torch.manual_seed(0)
    return Found(
        ppo=build_generator(PlainEngine(model), ends, HuggingFaceSettings()).generate(rows, sampling).ids(),
        greedy=plain.generate(one, Sampling(0, 0, 1.0, LENGTH)).ids(),
        sampled=plain.generate(one, sampling, seeds=[RowSeed(1, 0), RowSeed(1, 1)]).ids(),
        chat="".join(bot.answer([{"role": "user", "content": "a cat"}])),
        prompt_eval=prompt_eval.greedy_answers(
            "model", str(folder), ["list value"], max_new_tokens=LENGTH, end_token=None
        ),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    save_model(make_causal_lm("llama", vocab_size=len(TOKENIZER)), TOKENIZER, place / "model")
    return place / "model"


@pytest.fixture(scope="module")
def expected(folder: Path) -> Found:
    (folder / "generation_config.json").write_text("{}")
    return answers(folder)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore")
def test_a_models_own_setting_changes_no_token(name: str, folder: Path, expected: Found) -> None:
    (folder / "generation_config.json").write_text(json.dumps(ODD[name]))
    assert answers(folder) == expected


def test_every_field_of_the_library_is_tried() -> None:
    assert set(vars(GenerationConfig())) - NO_SAMPLING == set(ODD) & set(vars(GenerationConfig()))


def test_step_3_trains_alike_and_passes_the_file_on(tmp_path: Path, process_group: torch.device) -> None:
    paths = make_folders(tmp_path)
    file = Path(paths["sft"]) / "generation_config.json"
    lines = []
    # without do_sample the library calls the temperature a mistake
    odd = {"temperature": 0.3, "num_beams": 3, "stop_strings": ["a"], "return_dict_in_generate": True, "min_p": 0.5}
    for number, content in enumerate(({}, odd)):
        file.write_text(json.dumps(content))
        arguments = ppo_arguments(paths, tmp_path / f"{number}", "--max_steps 2")
        lines.append(without_times(run_job(Job("ppo", arguments))))
    assert lines[0] == lines[1]
    saved = json.loads((tmp_path / "1" / "actor" / "generation_config.json").read_text())
    assert saved.items() >= odd.items()


@pytest.mark.parametrize(
    "content",
    [{"num_return_sequences": 2}, {"cache_implementation": "none"}, {"max_new_tokens": "12"},
     {"watermarking_config": {"colour": 1}}, {"compile_config": {}}],
)  # fmt: skip
def test_a_file_that_the_library_refuses_is_a_sentence(content: dict[str, Any], folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"generation_config\.json cannot be read"):
        answers(folder)
