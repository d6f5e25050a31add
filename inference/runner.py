"""Inference from checked options to a result file."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dschat.data.cache import content_key
from dschat.data.tokenise import Sample, TextEncoder
from dschat.errors import UserError
from dschat.models.causal_lm import load_causal_lm
from dschat.models.reward_model import check_has_head, load_token_scorer
from dschat.models.tokenizer import check_model_path, load_config, load_tokenizer
from inference.console import progress_bar
from inference.devices import choose_device, choose_dtype
from inference.journal import Finished, Journal, finished_before, length_batches
from inference.options import Options
from inference.prompts import PromptRow, load_prompts
from inference.sampling import EndTokens, Sampling, answer_batch
from inference.scoring import RewardScorer

logger = logging.getLogger(__name__)

LONGEST_ROW = 2**20
"""For reward models whose config sets no limit."""
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Policy:
    """The model that answers."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoder: TextEncoder
    """Its max_length is the longest prompt."""
    ends: EndTokens


def run(options: Options) -> str:
    """Answer and score every prompt, or what an earlier run left of them, and write the result file.

    Returns:
        The closing line.
    Raises:
        UserError: models, data or options that cannot work; nothing is overwritten.
    """
    device = choose_device(options.device, options.gpu)
    dtype = choose_dtype(options.dtype, device)
    reward_path = check_model_path("reward-model", options.reward_model)
    check_has_head("reward-model", reward_path)
    model_path = None if options.ref_scores else policy_path(options)
    prompts = load_prompts(options)
    settings = run_settings(options, prompts, dtype=dtype, model_path=model_path, reward_path=reward_path)
    before = finished_before(options.output, settings)
    if before is not None:
        logger.info("%s is finished already", options.output)
        return closing_line(options.output, before)
    scorer = load_scorer(reward_path, options, device=device, dtype=dtype)
    policy = None if model_path is None else load_policy(model_path, options, device=device, dtype=dtype)
    with Journal(options.output, settings) as journal:
        worked = answer_all(prompts, policy, scorer, options, journal)
        closing = closing_numbers(journal.finished.values(), worked)
        journal.finish(closing)
    return closing_line(options.output, closing)


def policy_path(options: Options) -> str:
    """The policy's folder or name.

    Raises:
        UserError: it is not there; where it is in --model itself, the message says which flag helps.
    """
    if not options.no_actor_folder and not Path(options.model_folder).is_dir():
        if (Path(options.model) / "config.json").is_file():
            raise UserError(f"--model {options.model} has no actor folder but is a model; add --no-actor-folder")
        raise UserError(
            f"--model {options.model}: there is no folder {Path(options.model_folder).absolute()}; pass the step-<n> "
            "folder that step 3 wrote, or add --no-actor-folder"
        )
    return check_model_path("model", options.model_folder)


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
    if model_path is None:
        return shared
    return shared | {
        "model": model_path,
        "model_files": weights_key(model_path),
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "max_new_tokens": options.max_new_tokens,
        "max_prompt_length": options.max_prompt_length,
        "seed": options.seed,
    }


def weights_key(path: str) -> str | None:
    """Stands for the weight files of a folder (names, sizes and times), None for a name on the hub."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    files = [(file.name, file.stat()) for kind in ("*.safetensors", "*.bin") for file in sorted(folder.glob(kind))]
    return content_key({name: [state.st_size, state.st_mtime_ns] for name, state in files})


def load_policy(path: str, options: Options, *, device: torch.device, dtype: torch.dtype) -> Policy:
    """The model that answers, its tokenizer, and how many tokens of a prompt it can take."""
    end = options.end_of_conversation_token
    tokenizer = load_tokenizer(
        "model", path, end_of_conversation_token=end, trust_remote_code=options.trust_remote_code
    )
    model = load_causal_lm(
        path,
        tokenizer_length=len(tokenizer),
        dtype=dtype,
        dropout=None,
        trust_remote_code=options.trust_remote_code,
    )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or LONGEST_ROW
    longest = min(options.max_prompt_length, positions - options.max_new_tokens)
    if longest < 1:
        raise UserError(
            f"--max-new-tokens {options.max_new_tokens} leaves no room for a prompt: {path} has {positions} positions"
        )
    encoder = TextEncoder.create(tokenizer, end_of_conversation=end, max_length=longest)
    declared = model.generation_config.eos_token_id
    more = [] if declared is None else declared if isinstance(declared, list) else [declared]
    ends = EndTokens(
        stop=tuple(dict.fromkeys([encoder.end_id, int(tokenizer.eos_token_id), *more])),
        pad=int(tokenizer.pad_token_id),
        vocab_size=len(tokenizer),
    )
    return Policy(cast(PreTrainedModel, model.to(device).eval()), tokenizer, encoder, ends)


def load_scorer(path: str, options: Options, *, device: torch.device, dtype: torch.dtype) -> RewardScorer:
    """The reward model and its own tokenizer."""
    end = options.end_of_conversation_token
    remote = options.trust_remote_code
    tokenizer = load_tokenizer("reward-model", path, end_of_conversation_token=end, trust_remote_code=remote)
    config = load_config("reward-model", path, trust_remote_code=remote).get_text_config()
    scorer = load_token_scorer(
        path,
        fresh_head=False,
        tokenizer_length=len(tokenizer),
        pad_token_id=int(tokenizer.pad_token_id),
        dtype=dtype,
        dropout=None,
        trust_remote_code=remote,
    )
    longest = getattr(config, "max_position_embeddings", None) or LONGEST_ROW
    encoder = TextEncoder.create(tokenizer, end_of_conversation=end, max_length=longest)
    return RewardScorer(scorer.to(device).eval(), encoder)


@dataclass(frozen=True)
class Worked:
    """What this run did, as far as its speed goes."""

    tokens: int
    seconds: float


def answer_all(
    prompts: Sequence[PromptRow], policy: Policy | None, scorer: RewardScorer, options: Options, journal: Journal
) -> Worked:
    """Answer and score, batch by batch, what the journal lacks; without a policy the dataset's answers are scored."""
    if policy is None:
        lengths = [len(row.prompt) + len(row.chosen or "") for row in prompts]
        ids: list[list[int]] = [[] for _ in prompts]
    else:
        ids = prompt_ids(prompts, policy.encoder)
        lengths = [len(row) for row in ids]
    todo = journal.missing(length_batches(lengths, options.batch_size))
    left = sum(len(batch) for batch in todo)
    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.max_new_tokens, options.seed)
    started, tokens = time.monotonic(), 0
    with progress_bar("scoring" if policy is None else "answering", len(prompts), done=len(prompts) - left) as advance:
        for batch in todo:
            rows = [prompts[row] for row in batch]
            if policy is None:
                finished = _scored_references(batch, rows, scorer)
            else:
                answers = answer_batch(policy.model, [ids[row] for row in batch], batch, sampling, policy.ends)
                tokens += sum(len(answer) for answer in answers)
                finished = _scored_answers(batch, rows, answers, policy.tokenizer, scorer)
            for each in finished:
                journal.append(each)
            advance(len(batch))
    return Worked(tokens, time.monotonic() - started)


def prompt_ids(prompts: Sequence[PromptRow], encoder: TextEncoder) -> list[list[int]]:
    """Token ids of each prompt, cut at the front to the encoder's length, never in the cue.

    Raises:
        UserError: not even a row's cue fits.
    """
    found = []
    tally: Counter[Any] = Counter()
    for number, row in enumerate(prompts, start=1):
        fitted = next(encoder.encode([Sample(row.prompt, cue=row.cue)], "ppo", tally), None)
        if fitted is None:
            raise UserError(
                f"prompt {number} does not fit {encoder.max_length} tokens, not even the words that ask for the "
                "answer; raise --max-prompt-length or lower --max-new-tokens"
            )
        found.append(fitted["input_ids"])
    if tally["shortened_prompts"]:
        logger.info("%d prompts are cut at the front to %d tokens", tally["shortened_prompts"], encoder.max_length)
    return found


def _scored_answers(
    batch: Sequence[int], rows: Sequence[PromptRow], answers: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase, scorer: RewardScorer,
) -> list[Finished]:  # fmt: skip
    texts = [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
    scores = _score(rows, texts, scorer)
    return [
        Finished(number, len(answer), {"prompt": row.prompt, "response": text, "reward": score})
        for number, row, answer, text, score in zip(batch, rows, answers, texts, scores, strict=True)
    ]


def _scored_references(batch: Sequence[int], rows: Sequence[PromptRow], scorer: RewardScorer) -> list[Finished]:
    chosen, rejected = [row.chosen or "" for row in rows], [row.rejected or "" for row in rows]
    columns = zip(
        batch, rows, chosen, _score(rows, chosen, scorer), rejected, _score(rows, rejected, scorer), strict=True
    )
    return [
        Finished(
            number,
            0,
            {
                "prompt": row.prompt,
                "response": better,
                "reward": score,
                "rejected_response": worse,
                "rejected_reward": worse_score,
            },
        )
        for number, row, better, score, worse, worse_score in columns
    ]


def _score(rows: Sequence[PromptRow], texts: Sequence[str], scorer: RewardScorer) -> list[float | None]:
    return scorer.score(
        [scorer.token_ids(row.prompt, text, cue=row.cue) for row, text in zip(rows, texts, strict=True)]
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
        numbers["tokens_per_second"] = worked.tokens / worked.seconds if worked.tokens else None
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
