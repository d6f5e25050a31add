"""What became of the rows of a stage: counts, a sentence for the log, and the errors where too little is left."""

from __future__ import annotations

from dataclasses import dataclass

from dschat.data.stages import DataStage
from dschat.data.tokenise import Tally
from dschat.errors import UserError


@dataclass(frozen=True)
class RowCounts:
    """What became of the rows of a split."""

    rows: int = 0
    kept: int = 0
    shortened_prompts: int = 0
    """Kept rows whose prompt was cut at the front."""
    repeated_prompts: int = 0
    """Kept rows of prompts alone whose prompt an earlier row already has."""
    longest_prompt: int = 0
    """Tokens, before shortening."""
    unreadable: int = 0
    """Rows of the files that are not JSON or lack a text, of all splits."""
    empty_prompts: int = 0
    empty_responses: int = 0
    """Rows without an answer that the stage learns from."""
    without_tests: int = 0
    """Rows whose problem has no tests that can be run, where they are needed."""
    equal_pairs: int = 0
    """Pairs of which both answers are the same tokens."""
    too_long: int = 0
    """Rows in which the end of the prompt and the answer do not fit together."""

    def dropped(self) -> dict[str, int]:
        """Rows that were left out, by reason; reasons that did not occur are not listed."""
        reasons = {
            "unreadable": self.unreadable,
            "without a prompt": self.empty_prompts,
            "without a response": self.empty_responses,
            "without usable tests": self.without_tests,
            "with two equal responses": self.equal_pairs,
            "too long to shorten": self.too_long,
        }
        return {reason: count for reason, count in reasons.items() if count}


@dataclass(frozen=True)
class DataReport:
    """What became of the data of a stage."""

    stage: DataStage
    max_length: int
    train: RowCounts
    evaluation: RowCounts

    def summary(self) -> str:
        """One or two plain sentences for the log."""
        parts = [
            f"data for {self.stage.name}: {_counted('training', self.train)}; {_counted('evaluation', self.evaluation)}"
        ]
        beside = " with their responses" if self.stage.answers else ""
        if self.train.shortened_prompts or self.evaluation.shortened_prompts:
            parts.append(
                f"prompts cut at the front to fit {self.max_length:,} tokens{beside}: "
                f"{self.train.shortened_prompts:,} and {self.evaluation.shortened_prompts:,}, the longest had "
                f"{max(self.train.longest_prompt, self.evaluation.longest_prompt):,} tokens"
            )
        if self.train.repeated_prompts:
            parts.append(f"{self.train.repeated_prompts:,} training prompts repeat an earlier one")
        return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def check_kept(train: Tally, evaluation: Tally, stage: DataStage, *, max_length: int, split: str, labels: str) -> None:
    """Raise UserError for data of which nothing is left, and for prompts alone that all had to be cut.

    Args:
        train, evaluation: what became of the rows.
        stage: whose rows they are.
        max_length, split, labels: the limit, --data_split and the datasets, for messages.
    """
    if train["rows"] == 0:
        raise UserError(
            f'--data_split "{split}" leaves no row of {labels} for {stage.name}; give its part more or add rows'
        )
    if train["without_tests"] == train["rows"]:
        raise UserError(
            f"--data_path {labels} holds no problems with tests; pass codeparrot/apps, tiny-apps, or your own data "
            "with the columns of APPS"
        )
    prompts = train["kept"] + train["too_long"]
    if not stage.answers and prompts and train["shortened_prompts"] + train["too_long"] == prompts:
        raise UserError(
            f"0 of {prompts:,} prompts fit {stage.length_flag} {max_length}; the longest has "
            f"{train['longest_prompt']:,} tokens, raise the limit"
        )
    for name, tally in (("training", train), ("evaluation", evaluation)):
        if tally["kept"] == 0:
            raise UserError(
                f"no {name} row of {labels} is usable for {stage.name}: {_counted(name, RowCounts(**tally))}; mend "
                f"the data or raise {stage.length_flag} (now {max_length})"
            )


def _counted(name: str, counts: RowCounts) -> str:
    """How many rows of a split are used, and why the others are not."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.dropped().items())
    return f"{counts.kept:,} of {counts.rows:,} {name} rows are used" + (f" (left out: {reasons})" if reasons else "")
