"""Answers scored by a reward model: from checked options to a result file."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from dschat.answering.answering import Answer, AnswerSource, GeneratedAnswers, ReferenceAnswers, Worked, answer_all
from dschat.answering.devices import choose_device, choose_dtype
from dschat.answering.journal import Finished, Journal, finished_before
from dschat.answering.options import Options
from dschat.answering.policy import LONGEST_ROW, load_policy, policy_path, sampling_settings, weights_key
from dschat.answering.prompts import PromptRow, load_prompts
from dschat.answering.reward_scores import RewardScorer
from dschat.data.cache import content_key
from dschat.data.tokenise import TextEncoder
from dschat.models.checked import CheckedModel, check_model
from dschat.models.reward_model import check_has_head, load_token_scorer

logger = logging.getLogger(__name__)

NORMAL_95 = 1.96


def run(options: Options) -> str:
    """Answer and score every prompt, or what an earlier run left of them, and write the result file.

    Returns:
        The closing line.
    Raises:
        UserError: models, data or options that cannot work; nothing is overwritten.
    """
    device = choose_device(options.device, options.gpu)
    dtype = choose_dtype(options.dtype, device)
    reward_model = check_model(
        "reward-model",
        options.reward_model,
        end_of_conversation_token=options.end_of_conversation_token,
        trust_remote_code=options.trust_remote_code,
    )
    check_has_head(reward_model)
    model_path = None if options.ref_scores else policy_path(options)
    prompts = load_prompts(options)
    settings = run_settings(options, prompts, dtype=dtype, model_path=model_path, reward_path=reward_model.path)
    before = finished_before(options.output, settings)
    if before is not None:
        logger.info("%s is finished already", options.output)
        return closing_line(options.output, before)
    scorer = load_scorer(reward_model, options, device=device, dtype=dtype)
    source: AnswerSource = ReferenceAnswers(prompts)
    if model_path is not None:
        source = GeneratedAnswers(load_policy(model_path, options, device=device, dtype=dtype), prompts, options)
    judge = RewardModelJudge(scorer, prompts, with_rejected=options.ref_scores)
    with Journal(options.output, settings) as journal:
        worked = answer_all(source, judge, journal, batch_size=options.batch_size)
        closing = closing_numbers(journal.finished.values(), worked)
        journal.finish(closing)
    return closing_line(options.output, closing)


def run_settings(
    options: Options, prompts: Sequence[PromptRow], *, dtype: torch.dtype, model_path: str | None, reward_path: str
) -> dict[str, Any]:
    """Everything that shapes a result file, JSON-serialisable."""
    shared = {
        "dataset": options.dataset,
        "prompts": content_key({"rows": [[row.prompt, row.chosen, row.rejected] for row in prompts]}),
        "num_samples": len(prompts),
        "reward_model": reward_path,
        "reward_model_files": weights_key(reward_path),
        "end_of_conversation_token": options.end_of_conversation_token,
        "dtype": str(dtype).removeprefix("torch."),
        "batch_size": options.batch_size,
        "ref_scores": options.ref_scores,
    }
    return shared if model_path is None else shared | sampling_settings(options, model_path)


def load_scorer(checked: CheckedModel, options: Options, *, device: torch.device, dtype: torch.dtype) -> RewardScorer:
    """The reward model and its own tokenizer."""
    scorer = load_token_scorer(checked, fresh_head=False, dtype=dtype)
    encoder = TextEncoder.create(
        checked.tokenizer,
        end_of_conversation=options.end_of_conversation_token,
        max_length=checked.num_positions or LONGEST_ROW,
    )
    return RewardScorer(scorer.to(device).eval(), encoder)


class RewardModelJudge:
    """Scores answers, and with them the answers that the dataset does not prefer."""

    batches_ahead = 0

    def __init__(self, scorer: RewardScorer, prompts: Sequence[PromptRow], *, with_rejected: bool) -> None:
        self._scorer = scorer
        self._prompts = prompts
        self._with_rejected = with_rejected

    def begin(self, numbers: Sequence[int], answers: Sequence[Answer]) -> Callable[[], list[dict[str, Any]]]:
        """See `answering.Judge`."""
        rows = [self._prompts[number] for number in numbers]
        texts = [answer.text for answer in answers]
        records: list[dict[str, Any]] = [
            {"prompt": row.prompt, "response": text, "reward": score}
            for row, text, score in zip(rows, texts, self._score(rows, texts), strict=True)
        ]
        if self._with_rejected:
            rejected = [row.rejected or "" for row in rows]
            for record, text, score in zip(records, rejected, self._score(rows, rejected), strict=True):
                record |= {"rejected_response": text, "rejected_reward": score}
        return lambda: records

    def _score(self, rows: Sequence[PromptRow], texts: Sequence[str]) -> list[float | None]:
        return self._scorer.score(
            [self._scorer.token_ids(row.prompt, text, cue=row.cue) for row, text in zip(rows, texts, strict=True)]
        )


def closing_numbers(finished: Iterable[Finished], worked: Worked) -> dict[str, Any]:
    """Mean reward with its 95 % interval (normal approximation), mean length in tokens, and this run's speed."""
    rows = list(finished)
    numbers: dict[str, Any] = {"rows": len(rows)}
    for name in ("reward", "rejected_reward"):
        if name in rows[0].record:
            scores = [row.record[name] for row in rows]
            known = [score for score in scores if score is not None]
            numbers[name] = mean_interval(known)
            numbers[f"{name}_missing"] = len(scores) - len(known)
    if worked.tokens or any(row.tokens for row in rows):
        numbers["mean_tokens"] = statistics.fmean(row.tokens for row in rows)
        numbers["tokens_per_second"] = worked.tokens_per_second
    return numbers


def mean_interval(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and the half width of its 95 % interval, None without values."""
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "half_width": NORMAL_95 * spread / math.sqrt(len(values))}


def closing_line(output: Path, numbers: dict[str, Any]) -> str:
    """The numbers in one line."""
    parts = [f"{output}: {numbers['rows']} rows"]
    for name, label in (("reward", "mean reward"), ("rejected_reward", "mean rejected reward")):
        if numbers.get(name):
            mean, half = numbers[name]["mean"], numbers[name]["half_width"]
            parts.append(f"{label} {mean:.4f} (95 % interval {mean - half:.4f} to {mean + half:.4f})")
        if numbers.get(f"{name}_missing"):
            parts.append(f"{numbers[f'{name}_missing']} too long to score")
    if "mean_tokens" in numbers:
        parts.append(f"mean length {numbers['mean_tokens']:.1f} tokens")
        if numbers["tokens_per_second"] is not None:
            parts.append(f"{numbers['tokens_per_second']:.0f} tokens/s")
    return ", ".join(parts)
