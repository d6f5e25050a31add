"""The held-out rows that inference answers: always the same ones, in the same order, for every model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from dschat.answering.dataset_names import HUB_NAMES, unknown_dataset
from dschat.answering.options import GenerationOptions, Options
from dschat.config.data import PromptStyle
from dschat.data.base import RawDataset
from dschat.data.raw_datasets import SummarizeFeedback, find_raw_dataset
from dschat.data.stages import REWARD
from dschat.errors import UserError

logger = logging.getLogger(__name__)

SHUFFLE_SEED = 1234
"""Of the published choice of rows; not a flag, so that every model's file holds the same prompts."""
ARTICLE_HEADER = "ARTICLE\n"


@dataclass(frozen=True)
class PromptRow:
    """One row of the evaluation split."""

    prompt: str
    cue: str
    """End of the prompt that must not be cut."""
    chosen: str | None
    rejected: str | None


def load_prompts(options: Options) -> list[PromptRow]:
    """The first `--num-samples` rows of the shuffled evaluation split.

    A prompt that many rows share is answered once; with --ref-scores every pair counts. News articles, which TL;DR's
    evaluation split also holds and no model is trained on, are left out unless --keep-articles is set.

    Raises:
        UserError: the data is missing, unknown or malformed, or no row is usable.
    """
    dataset = find_dataset(options)
    rows = dataset.load(REWARD.texts if options.ref_scores else ()).evaluation.shuffle(seed=SHUFFLE_SEED)
    found: list[PromptRow] = []
    seen: set[str] = set()
    articles = repeated = 0
    for row in rows:
        if len(found) == options.num_samples:
            break
        prompt = dataset.prompt(row)
        if not prompt or not prompt.strip():
            continue
        if isinstance(dataset, SummarizeFeedback) and prompt.startswith(ARTICLE_HEADER) and not options.keep_articles:
            articles += 1
            continue
        pair = (dataset.chosen(row), dataset.rejected(row)) if options.ref_scores else (None, None)
        if options.ref_scores and not all(pair):
            continue
        if not options.ref_scores and prompt in seen:
            repeated += 1
            continue
        seen.add(prompt)
        found.append(PromptRow(prompt, dataset.cue(prompt), *pair))
    if not found:
        raise UserError(f"--dataset {options.dataset}: no row of the evaluation split is usable; check the data")
    logger.info(
        "%d prompts of %s (%d articles and %d repeated prompts left out)", len(found), dataset.label, articles, repeated
    )
    return found


def find_dataset(options: GenerationOptions, *, apps_prompt: PromptStyle = "full") -> RawDataset:
    """The dataset that the flags mean; nothing is read yet.

    Args:
        options: name and place.
        apps_prompt: what the prompts of programming problems say.
    """
    hub_name = HUB_NAMES.get(options.dataset)
    path = options.data_path or hub_name or options.dataset
    if options.data_path is None and hub_name is None and "/" not in path and not Path(path).exists():
        raise unknown_dataset(options.dataset)
    data_format = options.data_format
    if data_format is None and options.data_path is not None and path not in HUB_NAMES.values():
        data_format = hub_name
    return find_raw_dataset(
        path,
        data_format=data_format,
        seed=SHUFFLE_SEED,
        cache_dir=options.data_output_path,
        apps_prompt=apps_prompt,
    )
