"""Every flag of the published step-3 programs changes the settings, or is refused or answered with advice."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.retired import RETIRED_FLAGS
from dschat.config.steps import PPOConfig, parse_ppo_config
from dschat.errors import UserError

BASE = "--actor_model_name_or_path a --critic_model_name_or_path c --output_dir o".split()
PROGRAMS = {"main.py": DivergenceConfig, "main_wpr.py": WassersteinConfig}

# Each flag with a value that asks for something, and what it needs beside it.
SHARED = """
--data_path pydoc-tldr
--data_split 1,1,8
--data_output_path elsewhere
--unsupervised_dataset_name wikitext
--unsupervised_dataset_config_name wikitext-2-raw-v1 --unsupervised_dataset_name wikitext
--unsup_coef 3.5 --unsupervised_dataset_name wikitext
--actor_model_name_or_path other
--critic_model_name_or_path other
--num_padding_at_beginning 1
--per_device_generation_batch_size 32
--per_device_training_batch_size 8
--generation_batches 2
--ppo_epochs 2
--max_prompt_seq_len 100
--max_answer_seq_len 100
--actor_learning_rate 1e-4
--critic_learning_rate 1e-4
--actor_weight_decay 0.1
--critic_weight_decay 0.1
--num_train_epochs 2
--lr_scheduler_type linear
--gradient_accumulation_steps 2
--num_warmup_steps 5
--warmup_ratio 0.3
--output_dir other
--seed 7
--preprocessing_num_workers 2 --unsupervised_dataset_name wikitext
--local_rank 1
--enable_hybrid_engine
--unpin_actor_parameters
--release_inference_cache
--inference_tp_size 2
--tp_gather_partition_size 4
--offload
--offload_reference_model
--dtype bf16
--actor_zero_stage 2
--critic_zero_stage 3
--actor_gradient_checkpointing
--critic_gradient_checkpointing
--actor_dropout 0.0
--critic_dropout 0.0
--actor_lora_dim 8
--critic_lora_dim 8
--actor_lora_module_name layers. --actor_lora_dim 8
--critic_lora_module_name layers. --critic_lora_dim 8
--only_optimize_lora --actor_lora_dim 8
--actor_lora_learning_rate 1e-3 --actor_lora_dim 8
--critic_lora_learning_rate 1e-3 --critic_lora_dim 8
--enable_ema
--enable_mixed_precision_lora
--compute_fp32_loss
--enable_tensorboard
--tensorboard_path elsewhere --enable_tensorboard
--add_eot_token
--align_overflow
--print_answers
--print_answers_interval 3 --print_answers
--enable_test_mode
--test_stop_step 3
--save_steps 7
--end_of_conversation_token <eos>
--kl_ctl 0.2
--gamma 0.9
--lam 0.9
--temperature 1.0
--enable_zero3_generation_gather false
--termination_condition ppl
--ngram 5
--repeat_times 3 --termination_condition randomized
--parser_cutoff 5 --termination_condition parsing
--value_function position
--f_div js
--f_div_alpha 0.3 --f_div alpha
--f_div_low_var
--deepspeed
"""
WASSERSTEIN = """
--block_size 512
--cost_dim 64
--cost_type cos
--cost_emb apps
--epsilon 0.1
--max_iter 20
--tol 1e-3
--top_k 64
--lam_length 0.5
--normalize
--gaussian_perturb 0.1
"""


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def parse(words: list[str], section: type) -> PPOConfig:
    return parse_ppo_config(words, regularizer=section)


def outcome(line: str, section: type, logged: Callable[[], str]) -> str:
    """What happens to a flag: changed, refused with a sentence that names it, answered with advice, or ignored."""
    words = line.split()
    name = words[0].removeprefix("--")
    flag, companions = [], words[1:]
    while companions and not companions[0].startswith("--"):
        flag.append(companions.pop(0))
    try:
        without = parse([*BASE, *companions], section)
    except UserError:
        without = None  # the companion needs the flag
    try:
        config = parse([*BASE, *companions, f"--{name}", *flag], section)
    except UserError as error:
        assert any(word in str(error) for word in (f"--{name}", *companions) if word.startswith("--"))
        assert "\n" not in str(error)
        return "refused"
    if config != without:
        return "changed"
    return "answered" if name in RETIRED_FLAGS and RETIRED_FLAGS[name].advice in logged() else "ignored"


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("line", lines(SHARED) + lines(WASSERSTEIN), ids=lambda line: line.split()[0])
def test_no_published_flag_is_silently_ignored(line: str, program: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert outcome(line, PROGRAMS[program], lambda: caplog.text) != "ignored"


@pytest.mark.parametrize(
    ("line", "program"),
    [(line, "main.py") for line in lines(SHARED) if line.split()[0].removeprefix("--") not in RETIRED_FLAGS]
    + [(line, "main_wpr.py") for line in lines(WASSERSTEIN) if line.split()[0].removeprefix("--") not in RETIRED_FLAGS],
    ids=str,
)
def test_a_flag_that_is_a_setting_changes_it(line: str, program: str) -> None:
    assert outcome(line, PROGRAMS[program], str) == "changed"


def test_the_table_has_each_flag_once() -> None:
    names = [line.split()[0] for line in lines(SHARED) + lines(WASSERSTEIN)]
    assert len(names) == len(set(names))
    assert len(names) > 80
