"""What every dataset class shares: loading, the check of its columns, and the texts it offers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from datasets import Dataset, Features, LargeList, List, Value

from dschat.config.data import DataConfig, SplitBy
from dschat.data.cache import content_key
from dschat.data.column_hints import is_text, renaming_hint
from dschat.data.sources import FileSource, Source
from dschat.data.splits import grouped_parts, permutation_parts
from dschat.data.stages import Text
from dschat.errors import UserError

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]

HUMAN = " Human: "
ASSISTANT = " Assistant:"


@dataclass(frozen=True)
class RawSplits:
    """The rows of a dataset as they were published."""

    train: Dataset
    evaluation: Dataset


class RawDataset:
    """One dataset: where it comes from, and how a row becomes a prompt, a chosen and a rejected answer.

    `prompt + chosen` is the training text. Most datasets are described by the class variables alone: the first of the
    columns, between fixed texts. An accessor returns None where the row has no such text; the row is then left out of
    the steps that need it. A column is written as a path: `info.post` is a field of a struct, `summaries[].text` a
    field of every struct in a list (the first one, where a single text is wanted).
    """

    name: ClassVar[str]
    """Key in caches, unique to the class."""
    hub_name: ClassVar[str]
    """What the user calls it."""
    repository: ClassVar[str | None] = None
    """Its repository on the hub where that has another name."""
    hub_config: ClassVar[str | None] = None
    built_in: ClassVar[bool] = False
    """Whether its rows are made here, so that no file of the user's is of its kind."""
    prompt_columns: ClassVar[tuple[str, ...]]
    chosen_columns: ClassVar[tuple[str, ...]]
    rejected_columns: ClassVar[tuple[str, ...]] = ()
    record_columns: ClassVar[tuple[str, ...]] = ()
    """Needed by PPO's records beyond the prompt."""
    untyped_columns: ClassVar[frozenset[str]] = frozenset()
    """Columns that need not hold text."""
    before_prompt: ClassVar[str] = ""
    after_prompt: ClassVar[str] = ""
    before_answer: ClassVar[str] = ""
    cues: ClassVar[tuple[str, ...]] = ()
    """Ends of prompts, besides `after_prompt`, that ask for the answer; shortening never cuts them."""
    evaluation_splits: ClassVar[tuple[str, ...]] = ("test", "validation")
    """Where to look for the evaluation rows, in this order."""
    carve: ClassVar[tuple[float, float]] = (9, 1)
    """Proportions of train and evaluation where there is no evaluation split."""

    def __init__(self, source: Source, *, label: str, seed: int, split_by: SplitBy = DataConfig.split_by) -> None:
        """
        Args:
            source: where the rows are.
            label: what the user called it, for messages.
            seed: of the permutation that carves out an evaluation split.
            split_by: "group" to keep the rows of a group on one side of that cut.
        """
        self.source = source
        self.label = label
        self._seed = seed
        self._split_by: SplitBy = split_by

    @classmethod
    def required_columns(cls) -> tuple[str, ...]:
        """All columns that some step needs."""
        columns = (*cls.prompt_columns, *cls.chosen_columns, *cls.rejected_columns, *cls.record_columns)
        return tuple(dict.fromkeys(columns))

    def columns_for(self, texts: Sequence[Text]) -> tuple[str, ...]:
        """The columns that the prompt and further texts need."""
        columns_of: dict[Text, tuple[str, ...]] = {
            "chosen": self.chosen_columns,
            "rejected": self.rejected_columns,
            "record": self.record_columns,
        }
        return tuple(dict.fromkeys((*self.prompt_columns, *chain.from_iterable(columns_of[text] for text in texts))))

    def load(self, texts: Sequence[Text] = ()) -> RawSplits:
        """Read the rows, and carve an evaluation split out of the train split where there is none.

        Args:
            texts: what a row must offer besides its prompt, see `DataStage.texts`.
        Raises:
            UserError: not readable, a column is lacking or does not hold text, or a split holds no row.
        """
        columns = self.columns_for(texts)
        flat_text = [name for name in columns if name not in self.untyped_columns and not set(name) & {".", "["}]
        splits = self.source.splits(flat_text)
        names = [name for name in self.evaluation_splits if name in splits]
        if "train" not in splits:
            raise UserError(f"dataset {self.label} has no train split (found: {', '.join(splits)}); add one")
        train = splits["train"]
        if len(train) == 0:
            raise UserError(f"{self._place('train')} has no row; add rows, or pass a dataset that has some")
        self._check_columns(train.features, columns)
        if not names:
            return self._carved(train)
        for name in set(splits) - {"train", names[0]}:
            logger.info("%s (%s rows) is not used: evaluation is on %s",
                        self._place(name), f"{len(splits[name]):,}", self._place(names[0]))  # fmt: skip
        evaluation = splits[names[0]]
        if len(evaluation) == 0:
            raise UserError(
                f"{self._place(names[0])} has no row; add rows, or remove it, and a part of the training rows is held "
                "out instead"
            )
        self._check_columns(evaluation.features, columns)
        return RawSplits(train=train, evaluation=evaluation)

    def _place(self, split: str) -> str:
        """Where the rows of a split are, for messages."""
        if isinstance(self.source, FileSource):
            return self.source.names(split)
        return f"the {split} split of dataset {self.label}"

    def _carved(self, train: Dataset) -> RawSplits:
        """Cut an evaluation split off, at least one row of it."""
        if len(train) < 2:
            raise UserError(f"dataset {self.label} has one row and no evaluation split; add rows or an eval file")
        if self._split_by == "group":
            kept, carved = grouped_parts([self.group(row) for row in train], self.carve, self._seed)
        else:
            kept, carved = permutation_parts(len(train), self.carve, self._seed)
        if len(carved) == 0:
            kept, carved = kept[:-1], kept[-1:]
        return RawSplits(train=train.select(kept), evaluation=train.select(carved))

    def _check_columns(self, features: Features, columns: tuple[str, ...]) -> None:
        for column in columns:
            feature = feature_at(features, column)
            if feature is None:
                hint = renaming_hint(features, columns)
                raise UserError(
                    f"dataset {self.label} lacks column '{column}'; found: {', '.join(features)}; "
                    f"{hint}it is read as {self.hub_name}, pass another --data_format if it is something else"
                )
            if column not in self.untyped_columns and not is_text(feature):
                kind = feature.dtype if isinstance(feature, Value) else type(feature).__name__
                raise UserError(
                    f"dataset {self.label} has a column '{column}' of type {kind} where text is needed; convert it"
                )

    @property
    def unreadable_rows(self) -> int:
        """Rows that `load` left out because they could not be read."""
        return self.source.bad_rows.count if isinstance(self.source, FileSource) else 0

    def fingerprint(self) -> str:
        """Key of the rows: content, class, and how an evaluation split is carved."""
        return content_key(
            {
                "class": self.name,
                "source": self.source.fingerprint(),
                "carve": [*self.carve, self._seed, self._split_by],
            }
        )

    def expand(self, row: Row) -> Iterator[Row]:
        """A row for each right answer that a row holds; itself, unless the class says otherwise."""
        yield row

    def prompt(self, row: Row) -> str | None:
        """The text to answer."""
        return wrapped(self.before_prompt, value_at(row, self.prompt_columns[0]), self.after_prompt)

    def chosen(self, row: Row) -> str | None:
        """The better answer."""
        return wrapped(self.before_answer, value_at(row, self.chosen_columns[0]))

    def rejected(self, row: Row) -> str | None:
        """The worse answer; None throughout where the dataset has no pairs."""
        return wrapped(self.before_answer, value_at(row, self.rejected_columns[0])) if self.rejected_columns else None

    def cue(self, prompt: str) -> str:
        """The end of a prompt that must never be cut, "" if it has none."""
        return max((cue for cue in (self.after_prompt, *self.cues) if prompt.endswith(cue)), key=len, default="")

    def record(self, row: Row) -> dict[str, Any]:
        """What reward sources and result files get of a row, JSON-serialisable: at least "prompt" and "chosen"."""
        known = all(column.split(".")[0].removesuffix("[]") in row for column in self.chosen_columns)
        return {"prompt": self.prompt(row), "chosen": self.chosen(row) if known else None}

    def has_tests(self, row: Row) -> bool:
        """Whether an answer to the row can be run on tests; False where the dataset has none."""
        return False

    def group(self, row: Row) -> str:
        """Identity of the post or problem that a row is about; the prompt's text unless the dataset has better."""
        return self.prompt(row) or ""


def feature_at(features: Mapping[str, Any], column: str) -> Any | None:
    """The type of a column path such as `answers.ja[].text`, None if there is no such column."""
    feature: Any = features
    for part in column.split("."):
        name = part.removesuffix("[]")
        if not isinstance(feature, Mapping) or name not in feature:
            return None
        feature = feature[name]
        if part.endswith("[]"):
            if not isinstance(feature, List | LargeList):
                return None
            feature = feature.feature
    return feature


def wrapped(before: str, value: Any, after: str = "") -> str | None:
    """`before + value + after`, None where the value is not text."""
    return f"{before}{value}{after}" if isinstance(value, str) else None


def value_at(row: Row, column: str) -> Any | None:
    """The value at a column path, of a list its first item; None where any part of the path is missing or null."""
    value: Any = row
    for part in column.split("."):
        value = value.get(part.removesuffix("[]")) if isinstance(value, Mapping) else None
        if part.endswith("[]"):
            value = value[0] if value else None
    return value
