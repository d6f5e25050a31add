"""The loop of inference: answer a batch, have it judged while the next one is answered, write its rows down."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dschat.answering.console import progress_bar
from dschat.answering.journal import Finished, Journal, length_batches
from dschat.answering.options import GenerationOptions
from dschat.answering.policy import Policy, prompt_ids
from dschat.answering.prompts import PromptRow
from dschat.data.batches import PromptBatch
from dschat.generation import RowSeed, Sampling
from dschat.models.tokenizer import text_of


@dataclass(frozen=True)
class Answer:
    """One answer, wherever it comes from."""

    text: str
    tokens: int
    """Its length, the end token included; 0 where it was not generated."""


@dataclass(frozen=True)
class Worked:
    """What this run did, as far as its speed goes."""

    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """None where nothing was generated."""
        return self.tokens / self.seconds if self.tokens else None


class AnswerSource(Protocol):
    """Where answers come from. Answers are numbered from 0, prompt by prompt."""

    title: str
    """Of the progress bar."""

    @property
    def lengths(self) -> Sequence[int]:
        """[N] how long each answer's prompt is, for batches of similar ones."""
        ...

    def answers(self, numbers: Sequence[int]) -> list[Answer]:
        """Some of them; each depends on its own number alone."""
        ...


class Judge(Protocol):
    """Makes records of answers."""

    batches_ahead: int
    """How many batches may be answered before an earlier one's records are asked for."""

    def begin(self, numbers: Sequence[int], answers: Sequence[Answer]) -> Callable[[], list[dict[str, Any]]]:
        """Start judging; what comes back waits for the records, in the order of the answers."""
        ...


class GeneratedAnswers:
    """The policy's answers, some to each prompt."""

    title = "answering"

    def __init__(
        self, policy: Policy, prompts: Sequence[PromptRow], options: GenerationOptions, *, per_prompt: int = 1
    ) -> None:
        """
        Args:
            policy: answers.
            prompts: of the dataset.
            options: how tokens are chosen.
            per_prompt: answers to each prompt.
        """
        self._policy = policy
        self._per_prompt = per_prompt
        self._seed = options.seed
        self._sampling = Sampling(options.temperature, options.top_k, options.top_p, options.max_new_tokens)
        self._ids = prompt_ids(prompts, policy.encoder)
        self.lengths = [len(ids) for ids in self._ids for _ in range(per_prompt)]

    def answers(self, numbers: Sequence[int]) -> list[Answer]:
        """See AnswerSource."""
        seeds = [RowSeed(self._seed, *divmod(number, self._per_prompt)) for number in numbers]
        tokenizer = self._policy.tokenizer
        prompts = PromptBatch.of_ids([self._ids[seed.row] for seed in seeds], pad_token_id=int(tokenizer.pad_token_id))
        found = self._policy.generator.generate(prompts, self._sampling, seeds=seeds).ids()
        return [Answer(text_of(tokenizer, ids), len(ids)) for ids in found]


class ReferenceAnswers:
    """The dataset's own answers, one to each prompt."""

    title = "scoring"

    def __init__(self, prompts: Sequence[PromptRow]) -> None:
        """
        Args:
            prompts: with their preferred answers.
        """
        self._texts = [row.chosen or "" for row in prompts]
        self.lengths = [len(row.prompt) + len(text) for row, text in zip(prompts, self._texts, strict=True)]

    def answers(self, numbers: Sequence[int]) -> list[Answer]:
        """See AnswerSource."""
        return [Answer(self._texts[number], 0) for number in numbers]


def answer_all(source: AnswerSource, judge: Judge, journal: Journal, *, batch_size: int) -> Worked:
    """Answer and judge, batch by batch, what the journal lacks."""
    batches = journal.missing(length_batches(source.lengths, batch_size))
    left = sum(len(batch) for batch in batches)
    started, tokens = time.monotonic(), 0
    waiting: deque[Callable[[], list[Finished]]] = deque()
    with progress_bar(source.title, len(source.lengths), done=len(source.lengths) - left) as advance:

        def write_down(finished: Sequence[Finished]) -> None:
            for each in finished:
                journal.append(each)
            advance(len(finished))

        for batch in batches:
            answers = source.answers(batch)
            tokens += sum(answer.tokens for answer in answers)
            waiting.append(_finished(batch, answers, judge))
            while len(waiting) > judge.batches_ahead:
                write_down(waiting.popleft()())
        while waiting:
            write_down(waiting.popleft()())
    return Worked(tokens, time.monotonic() - started)


def _finished(numbers: Sequence[int], answers: Sequence[Answer], judge: Judge) -> Callable[[], list[Finished]]:
    """Start judging a batch; what comes back waits for its rows."""
    records = judge.begin(numbers, answers)
    return lambda: [
        Finished(number, answer.tokens, record)
        for number, answer, record in zip(numbers, answers, records(), strict=True)
    ]
