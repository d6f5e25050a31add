"""Every number has its bounds, which the check of every step reads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import pytest

from dschat.config.bounds import check_bounds, value_types
from dschat.config.flag import Flag, Section, flag, flags_of
from dschat.config.runtime import LARGEST_SEED
from dschat.errors import UserError
from tests.config.commands import STEPS, parsed, refusal, section_classes

ANY_FINITE_NUMBER = {
    "reward_model_weight": "a negative weight turns a score into a penalty",
    "reward_function_weight": "likewise",
}


@dataclass(frozen=True)
class Number:
    """A field that holds a number."""

    section: type[Section]
    name: str
    kind: type
    flag: Flag

    @property
    def bounds(self) -> list[float]:
        return [b for b in (self.flag.at_least, self.flag.above, self.flag.at_most, self.flag.below) if b is not None]

    def outside(self) -> list[float]:
        """The nearest values that the bounds exclude."""
        flag = self.flag
        values = [flag.at_least is not None and self.next(flag.at_least, -1), flag.above]
        values += [flag.at_most is not None and self.next(flag.at_most, 1), flag.below]
        return [value for value in values if value is not None and value is not False]

    def inside(self) -> list[float]:
        """The last values that they allow."""
        flag = self.flag
        values = [flag.at_least, flag.above is not None and self.next(flag.above, 1)]
        values += [flag.at_most, flag.below is not None and self.next(flag.below, -1)]
        return [value for value in values if value is not None and value is not False]

    def next(self, value: float, direction: int) -> float:
        return int(value) + direction if self.kind is int else math.nextafter(value, direction * math.inf)

    def holding(self, value: float) -> Section:
        """A section whose other fields are left out."""
        required = {f.name: "m" for f in dataclasses.fields(self.section) if f.default is f.default_factory}
        return self.section(**required | {self.name: [value] if "weight" in self.name and self.is_list else value})

    @property
    def is_list(self) -> bool:
        return get_origin(value_types(self.section)[self.name]) is list


def numbers() -> Iterator[Number]:
    for section in section_classes():
        for name, kind in value_types(section).items():
            item = get_args(kind)[0] if get_origin(kind) is list else kind
            if item in (int, float):
                yield Number(section, name, item, flags_of(section)[name])


def choices() -> Iterator[tuple[type[Section], str, tuple[Any, ...]]]:
    for section in section_classes():
        for name, kind in value_types(section).items():
            if get_origin(kind) is Literal:
                yield section, name, get_args(kind)


every_number = pytest.mark.parametrize("number", list(numbers()), ids=lambda number: number.name)


@every_number
def test_every_number_has_a_bound_or_a_reason_for_none(number: Number) -> None:
    assert bool(number.bounds) != (number.name in ANY_FINITE_NUMBER)


def test_no_reason_is_given_for_a_field_that_is_not_there() -> None:
    names = {number.name for number in numbers()}
    assert set(ANY_FINITE_NUMBER) <= names
    assert len(names) > 60


@every_number
def test_a_value_just_outside_is_refused_by_name_and_one_just_inside_is_taken(number: Number) -> None:
    assert len(number.outside()) == len(number.inside()) == len(number.bounds)
    for value in number.outside():
        with pytest.raises(UserError, match=f"^--{number.name} must .*, got {value}"):
            check_bounds(number.holding(value))
    for value in number.inside():
        check_bounds(number.holding(value))


@every_number
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(number: Number, value: float) -> None:
    with pytest.raises(UserError, match=f"^--{number.name} must be finite, got {value}"):
        check_bounds(number.holding(value))


@pytest.mark.parametrize("step", STEPS)
def test_every_step_reads_the_bounds_of_all_its_numbers(step: str) -> None:
    sections = [getattr(parsed(step), field.name) for field in dataclasses.fields(parsed(step))]
    refused = 0
    for number in numbers():
        if any(type(section) is number.section for section in sections):
            for value in number.outside():
                assert refusal(step, f"--{number.name}={value!r}").startswith(f"--{number.name} must ")
                refused += 1
    assert refused > 25


def test_choices_of_settings_made_in_code_are_checked_too() -> None:
    seen = 0
    for section, name, allowed in choices():
        required = {f.name: "m" for f in dataclasses.fields(section) if f.default is f.default_factory}
        for choice in allowed:
            check_bounds(section(**required | {name: choice}))
        for wrong in ("?", 4, -1):
            with pytest.raises(UserError, match=f"^--{name} must be .* or {allowed[-1]}, got"):
                check_bounds(section(**required | {name: wrong}))
        seen += 1
    assert seen > 15


@dataclass(frozen=True)
class Worded(Section):
    left_out: int | None = flag(None, at_least=1, help="May be left out.")
    high: float = flag(0.0, at_most=1, help="Bounded above.")
    low: float = flag(0.0, below=1, advice="0 is usual", help="Bounded above, without the bound.")
    items: list[float] = flag([], above=2, help="Bounded one by one.")


def test_bounds_in_words() -> None:
    check_bounds(Worded())
    for section, sentence in (
        (Worded(left_out=0), "--left_out must be at least 1, got 0"),
        (Worded(high=2), "--high must be at most 1, got 2"),
        (Worded(low=1.0), "--low must be below 1, got 1.0; 0 is usual"),
        (Worded(items=[3.0, 2.0]), "--items must be above 2, got 2.0"),
    ):
        with pytest.raises(UserError) as caught:
            check_bounds(section)
        assert str(caught.value) == sentence


def test_a_seed_is_one_that_every_generator_takes() -> None:
    assert parsed("sft", f"--seed {LARGEST_SEED}").runtime.seed == LARGEST_SEED
    assert "--seed must be between 0 and 4294967295" in refusal("sft", f"--seed {LARGEST_SEED + 1}")


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("wpr", "--top_k 0", "--top_k must be at least 1, got 0; the paper's commands use 128"),
        ("wpr", "--epsilon 0", "--epsilon must be above 0, got 0.0; the paper's commands use 0.01"),
        ("wpr", "--epsilon -1", "--epsilon must be above 0"),
        ("ppo", "--f_div_alpha 1", "--f_div_alpha must lie between 0 and 1, got 1.0"),
        ("ppo", "--temperature 0", "--temperature must be above 0"),
        ("ppo", "--sampling_top_p 0", "--sampling_top_p must be above 0 and at most 1"),
        ("ppo", "--gamma 1.5", "--gamma must be between 0 and 1"),
        ("sft", "--lora_dim -1", "--lora_dim must not be negative, got -1"),
        ("sft", "--lora_dim 8 --lora_learning_rate 0", "--lora_learning_rate must be above 0"),
        ("sft", "--lora_dim 8 --lora_alpha 0", "--lora_alpha must be above 0"),
        ("ppo", "--reward_model_weight nan", "--reward_model_weight must be finite"),
        ("ppo", "--dual_clip 1", "--dual_clip must be above 1, got 1.0; 3 is usual"),
        ("ppo", "--value_loss_coef 0", "--value_loss_coef must be above 0"),
        ("ppo", "--entropy_coef -1", "--entropy_coef must not be negative"),
        ("ppo", "--max_tokens_per_micro_batch 0", "--max_tokens_per_micro_batch must be at least 1"),
        ("ppo", "--early_stop_kl 0", "--early_stop_kl must be above 0"),
        ("ppo", "--missing_eos_penalty -1", "--missing_eos_penalty must not be negative"),
        ("ppo", "--penalty_target 0", "--penalty_target must be above 0"),
        ("ppo", "--penalty_horizon 0", "--penalty_horizon must be at least 1"),
        ("wpr", "--penalty_clip -1", "--penalty_clip must not be negative"),
        ("ppo", "--ngram 0", "--ngram must be at least 1, got 0"),
        ("ppo", "--termination_condition parsing --parser_cutoff 0", "--parser_cutoff must be at least 1, got 0"),
        ("ppo", "--enable_ema --ema_decay 1", "--ema_decay must be at least 0 and below 1, got 1.0"),
        ("ppo", "--unsup_coef -1", "--unsup_coef must not be negative, got -1.0"),
        ("ppo", "--preprocessing_num_workers 0", "--preprocessing_num_workers must be at least 1"),
        ("ppo", "--actor_zero_stage 4", "--actor_zero_stage must be 0, 1, 2 or 3, got 4"),
        ("apps", "--test_time_limit 0", "--test_time_limit must be above 0, got 0.0"),
        ("apps", "--test_memory_limit_mb 64", "--test_memory_limit_mb must be at least 256, got 64"),
        ("apps", "--max_tests -1", "--max_tests must not be negative"),
        ("apps", "--grading_workers -1", "--grading_workers must not be negative"),
        ("sft", "--zero_stage 5", "--zero_stage must be 0, 1, 2 or 3, got 5"),
        ("sft", "--learning_rate 0", "--learning_rate must be above 0"),
        ("sft", "--gradient_accumulation_steps 0", "--gradient_accumulation_steps must be at least 1"),
        ("ppo", "--actor_weight_decay -1", "--actor_weight_decay must not be negative, got -1.0"),
        ("ppo", "--critic_weight_decay nan", "--critic_weight_decay must be finite, got nan"),
        ("ppo", "--actor_dropout 5", "--actor_dropout must be at least 0 and below 1, got 5.0"),
        ("ppo", "--num_warmup_steps -3", "--num_warmup_steps must not be negative, got -3"),
        ("sft", "--seed -1", "--seed must be between 0 and 4294967295, got -1"),
        ("sft", "--dropout 5", "--dropout must be at least 0 and below 1, got 5.0"),
        ("sft", "--dist_timeout 0", "--dist_timeout must be above 0, got 0.0"),
        ("reward", "--warmup_ratio 1", "--warmup_ratio must be at least 0 and below 1"),
    ],
)
def test_values_out_of_bounds_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)
