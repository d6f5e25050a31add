"""The data of one stage: its rows chosen and tokenised, in a cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from dschat.code_execution.long_integers import dump_json
from dschat.config.data import DataConfig, PromptStyle, SplitBy
from dschat.data.base import RawDataset, Row
from dschat.data.cache import cached_folder, code_key, content_key, quiet_datasets
from dschat.data.raw_datasets import find_raw_dataset
from dschat.data.report import DataReport, RowCounts, check_kept
from dschat.data.splits import parse_proportions, part_indices
from dschat.data.stages import DataStage, Text
from dschat.data.tokenise import Sample, Tally, TextEncoder
from dschat.errors import UserError

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 1_000


@dataclass(frozen=True)
class DataSource:
    """Which data, in plain values."""

    data_path: tuple[str, ...]
    """Hub names, local paths, `pydoc-tldr` or `tiny-apps`; several are put together."""
    data_format: str | None
    """Supported dataset whose columns local data has; None to tell from the path or the columns."""
    data_split: str
    """Proportions of steps 1, 2 and 3, such as "2,4,4"."""
    split_by: SplitBy
    """"row" for the published split, "group" to keep all rows of a post or problem in one step."""
    seed: int
    cache_dir: Path
    end_of_conversation: str | None
    """Text of the one token that ends an answer; None for the tokenizer's EOS."""
    apps_prompt: PromptStyle = DataConfig.apps_prompt
    """What the prompts of programming problems say; see `dschat.data.apps`."""
    skip_bad_rows: int = 0
    """Rows of each dataset's JSON files that may be left out because they cannot be read."""


@dataclass(frozen=True)
class StageData:
    """Tokenised rows of one stage, memory-mapped: integers index rows, dicts of the columns `stage.features`."""

    train: Sequence[dict[str, Any]]
    evaluation: Sequence[dict[str, Any]]
    report: DataReport
    key: str
    """Stands for the content of these rows, whatever code made them."""


def build_stage_data(
    source: DataSource, *, stage: DataStage, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> StageData:
    """Select and tokenise the rows of one stage, or find them in the cache.

    Several processes may call this at once. The evaluation split is divided by the same proportions as the train split
    (it is used whole where it is too small to divide), so stages never share evaluation rows either.

    Args:
        source: which data.
        stage: what it takes of them.
        tokenizer: of the model that is trained.
        max_length: most tokens of prompt and answer together; of the prompt where the stage has prompts alone.
    Raises:
        UserError: data that is missing, malformed, lacks a column, or of which nothing is left; for prompts alone also
            when none fits uncut.
    """
    parse_proportions(source.data_split, part=stage.part)  # before anything is read
    encoder = TextEncoder.create(tokenizer, end_of_conversation=source.end_of_conversation, max_length=max_length)
    parts = _raw_parts(source, stage)
    key = content_key(
        {
            "code": code_key(),
            "stage": stage.name,
            "rows": [[raw.fingerprint(), split] for raw, split in parts],
            "split_by": source.split_by,
            "seed": source.seed,
            "skip_bad_rows": source.skip_bad_rows,
            "needs_tests": stage.needs_tests,
            "encoder": encoder.fingerprint(),
        }
    )
    folder = cached_folder(
        source.cache_dir, f"{stage.name}_{key}", lambda aside: _write(aside, parts, source, stage, encoder)
    )
    report = json.loads((folder / "report.json").read_text())
    return StageData(
        train=datasets.load_from_disk(str(folder / "train")),
        evaluation=datasets.load_from_disk(str(folder / "evaluation")),
        report=DataReport(stage, max_length, RowCounts(**report["train"]), RowCounts(**report["evaluation"])),
        key=report["content"],
    )


def _raw_parts(source: DataSource, stage: DataStage) -> list[tuple[RawDataset, str]]:
    """Each dataset of a stage with its split."""
    named = [(path, source.data_split) for path in source.data_path]
    whole = ",".join(["0"] * stage.part + ["1"])
    named += [(path, whole) for path in stage.more_paths]
    if not named:
        raise UserError("--data_path is empty; name a dataset, a local file or folder, or pydoc-tldr")
    return [
        (
            find_raw_dataset(
                path,
                data_format=source.data_format,
                seed=source.seed,
                cache_dir=source.cache_dir,
                split_by=source.split_by,
                apps_prompt=source.apps_prompt,
                skip_bad_rows=source.skip_bad_rows,
            ),
            split,
        )
        for path, split in named
    ]


def _write(
    folder: Path, parts: Sequence[tuple[RawDataset, str]], source: DataSource, stage: DataStage, encoder: TextEncoder
) -> None:
    """Fill a cache folder: train, evaluation, report.json."""
    tokenised: dict[str, list[Dataset]] = {"train": [], "evaluation": []}
    tallies: dict[str, Tally] = {"train": Counter(), "evaluation": Counter()}
    for raw, split in parts:
        splits = raw.load(stage.texts)
        for count in ("rows", "unreadable"):
            tallies["train"][count] += raw.unreadable_rows
        sides = (("train", splits.train, stage.every_answer), ("evaluation", splits.evaluation, False))
        for name, rows, every_answer in sides:
            chosen = _rows_of_stage(raw, rows, stage, split, source)
            if len(chosen) == 0 and name == "evaluation":
                chosen = rows
            tokenised[name].append(_tokenise(raw, chosen, stage, encoder, tallies[name], every_answer=every_answer))
    labels = ", ".join(raw.label for raw, _ in parts)
    check_kept(
        tallies["train"],
        tallies["evaluation"],
        stage,
        max_length=encoder.max_length,
        split=source.data_split,
        labels=labels,
    )
    report: dict[str, Any] = {}
    content = hashlib.sha256()
    for name, pieces in tokenised.items():
        table = datasets.concatenate_datasets(pieces)
        if len(parts) > 1:
            table = table.select(np.random.RandomState(source.seed).permutation(len(table)))
        with quiet_datasets():
            table.save_to_disk(str(folder / name))
        repeated = 0 if stage.answers else len(table) - len({tuple(ids) for ids in table["input_ids"]})
        report[name] = asdict(RowCounts(**tallies[name], repeated_prompts=repeated))
        for rows in table.iter(_ROWS_AT_ONCE):
            content.update(json.dumps([name, rows]).encode())
    report["content"] = content.hexdigest()[:32]
    (folder / "report.json").write_text(json.dumps(report))


def _rows_of_stage(raw: RawDataset, rows: Dataset, stage: DataStage, split: str, source: DataSource) -> Dataset:
    """The rows of a stage, in permuted order."""
    groups = [raw.group(row) for row in rows] if source.split_by == "group" else None
    indices = part_indices(
        len(rows), stage.part, data_split=split, seed=source.seed, split_by=source.split_by, groups=groups
    )
    return rows.select(indices)


def _tokenise(
    raw: RawDataset, rows: Dataset, stage: DataStage, encoder: TextEncoder, tally: Tally, *, every_answer: bool
) -> Dataset:
    """Token ids of rows, as Arrow, some rows at a time so that Python lists stay few."""
    pieces = []
    samples: list[Sample] = []
    for row in rows:
        found = raw.expand(row) if every_answer else [row]
        samples.extend(_sample(raw, each, stage) for each in found)
        if len(samples) >= _ROWS_AT_ONCE:
            pieces.append(_encoded(samples, stage, encoder, tally))
            samples = []
    pieces.append(_encoded(samples, stage, encoder, tally))
    return datasets.concatenate_datasets(pieces)


def _encoded(samples: Sequence[Sample], stage: DataStage, encoder: TextEncoder, tally: Tally) -> Dataset:
    items = list(encoder.encode(samples, stage, tally))
    columns = {name: [item[name] for item in items] for name in stage.features}
    return Dataset.from_dict(columns, features=stage.features)


def _sample(raw: RawDataset, row: Mapping[str, Any], stage: DataStage) -> Sample:
    """The texts of a row that a stage needs; columns of other stages are not touched, they may not exist."""
    prompt = raw.prompt(row)
    answer_of: dict[Text, Callable[[Row], str | None]] = {"chosen": raw.chosen, "rejected": raw.rejected}
    return Sample(
        prompt=prompt,
        answers=tuple(answer_of[text](row) for text in stage.answers),
        cue=raw.cue(prompt) if prompt else "",
        record=dump_json(raw.record(row), default=str) if "record" in stage.texts else "{}",
        lacks_tests=stage.needs_tests and not raw.has_tests(row),
    )
