"""Continuing prompts with the library's own `generate`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from dschat.data.batches import PromptBatch
from dschat.generation.base import Answers, EndTokens, RowSeed, Sampling, broken_logits
from dschat.generation.row_numbers import RowSampler
from dschat.models.reward_model import hugging_face_model
from dschat.models.tokenizer import Vocabulary
from dschat.runtime.distributed import ZERO_PARTITIONED, whole_weights
from dschat.runtime.training_engine import TrainingEngine


@dataclass(frozen=True)
class HuggingFaceSettings:
    """The library's own `generate` on the policy's weights where they are."""

    gather: bool = False
    """Under ZeRO-3: gather the weights once for all tokens, which needs room for all of them on every rank. Otherwise
    they are gathered for each token, and all ranks make equally many."""


class HuggingFaceGenerator:
    """Continues prompts with the library's `generate`, on a DeepSpeed engine or a plain model."""

    def __init__(self, policy: TrainingEngine | PreTrainedModel, ends: EndTokens, *, gather: bool = False) -> None:
        """
        Args:
            policy: the DeepSpeed engine around a causal language model, or the model itself.
            ends: end and padding tokens, and the ids that can be sampled.
            gather: see HuggingFaceSettings.
        """
        self._policy = policy
        self._ends = ends
        self._gather = gather
        self._real_tokens = RealTokens(ends.vocabulary)

    def generate(self, prompts: PromptBatch, sampling: Sampling, *, seeds: Sequence[RowSeed] | None = None) -> Answers:
        """See Generator."""
        finite = FiniteLogits()
        processors: list[LogitsProcessor] = [self._real_tokens, finite]
        width = prompts.input_ids.shape[1]
        draw = sampling.temperature > 0
        if draw and seeds is not None:
            processors.append(RowSampler(sampling, seeds, prompt_width=width))
            draw = False
        settings = self._settings(sampling, draw=draw)
        with self._model() as model:
            sequences = self._call(model, prompts, settings, processors)
        return Answers.from_tokens(sequences[:, width:], self._ends.stop, finite=finite.rows)

    def refresh(self) -> None:
        """See Generator; the weights are read in place."""

    def stream(
        self,
        prompt: PromptBatch,
        sampling: Sampling,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_strings: Sequence[str] = (),
    ) -> Generator[str, None, None]:
        """Pieces of the answer to one prompt, as they are generated; closing the iterator ends the generation.

        Args:
            prompt: [1, P].
            sampling: how tokens are chosen, from torch's global random state.
            tokenizer: turns ids into text, without special tokens.
            stop_strings: texts that end the answer, too; the last piece holds the one that did.
        Raises:
            UserError: the logits were not finite.
        """
        finite, abandoned = FiniteLogits(), Abandoned()
        settings = self._settings(sampling, draw=sampling.temperature > 0, stop_strings=list(stop_strings) or None)
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        failure: list[BaseException] = []

        def work() -> None:
            try:
                with self._model() as model:
                    self._call(
                        model, prompt, settings, [self._real_tokens, finite],
                        stopping_criteria=StoppingCriteriaList([abandoned]), tokenizer=tokenizer, streamer=streamer,
                    )  # fmt: skip
            except BaseException as error:  # whatever it is, the thread that waits for text has to hear of it
                failure.append(error)
                streamer.end()

        worker = Thread(target=work, daemon=True)
        worker.start()
        try:
            yield from streamer
        finally:
            abandoned.event.set()
            worker.join()
        if failure:
            raise failure[0]
        if finite.rows is not None and not bool(finite.rows.all()):
            raise broken_logits()

    def _settings(self, sampling: Sampling, *, draw: bool, stop_strings: list[str] | None = None) -> GenerationConfig:
        """Every field that shapes tokens, so that the library's defaults do not; `draw`: at random."""
        chosen: dict[str, Any] = {"do_sample": False}
        if draw:
            chosen = {
                "do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k,
                "top_p": sampling.top_p, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
            }  # fmt: skip
        return GenerationConfig(
            **chosen,
            max_new_tokens=sampling.max_new_tokens,
            min_new_tokens=0,
            num_beams=1,
            num_return_sequences=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            stop_strings=stop_strings,
            eos_token_id=list(self._ends.stop) or None,
            pad_token_id=self._ends.pad,
            use_cache=True,
            disable_compile=True,
            return_dict_in_generate=False,
        )

    @contextmanager
    def _model(self) -> Iterator[PreTrainedModel]:
        """The model with whole weights; for as long its own generation config says nothing.

        The library takes what a passed config leaves out from the model's, which a model folder's
        generation_config.json has filled: an empty one in its place holds for every field there is or will be.
        """
        policy = self._policy
        model = policy if isinstance(policy, PreTrainedModel) else hugging_face_model(policy.module)
        if model.training:
            raise RuntimeError(
                "generation in training mode gives wrong tokens under gradient checkpointing; call eval()"
            )
        own = model.generation_config
        model.generation_config = GenerationConfig()
        try:
            if isinstance(policy, PreTrainedModel):
                yield policy
            else:
                with whole_weights(policy, gather=self._gather):
                    yield model
        finally:
            model.generation_config = own

    def _call(
        self,
        model: PreTrainedModel,
        prompts: PromptBatch,
        settings: GenerationConfig,
        processors: Sequence[LogitsProcessor],
        **more: Any,
    ) -> Tensor:
        """Prompts and what follows them, [B, P + R] int64."""
        policy = self._policy
        in_step = False
        if isinstance(policy, PreTrainedModel):
            prompts = prompts.to(policy.device)
        else:
            in_step = policy.zero_optimization_stage() == ZERO_PARTITIONED and not self._gather
        # the library types it for classes of its own alone
        generate: Callable[..., Tensor] = getattr(model, "generate")  # noqa: B009
        with torch.no_grad():
            return generate(
                input_ids=prompts.input_ids,
                attention_mask=prompts.attention_mask,
                generation_config=settings,
                logits_processor=LogitsProcessorList(processors),
                # its default depends on an object that may be gone: say it
                synced_gpus=in_step,
                **more,
            )


class RealTokens(LogitsProcessor):
    """Leaves out the rows of the model's table that no token has: those beyond the tokenizer, and gaps inside it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._missing: Tensor | None = None
        """[rows] bool, kept from call to call: a list of ids would become a tensor again for every token."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, rows], minus infinity where no token is."""
        rows = scores.shape[-1]
        if rows == self._vocabulary.size and not self._vocabulary.gaps:
            return scores
        if self._missing is None or self._missing.shape[0] != rows or self._missing.device != scores.device:
            missing = torch.arange(rows) >= self._vocabulary.size
            missing[list(self._vocabulary.gaps)] = True
            self._missing = missing.to(scores.device)
        return scores.masked_fill(self._missing, -torch.inf)


class FiniteLogits(LogitsProcessor):
    """Keeps sampling alive where logits are NaN or infinite, so that all ranks can decide about it together.

    One rank that broke off alone would leave the others waiting for it.
    """

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        """[B] bool, False where any of a row's logits was not finite; None before the first token."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Finite scores [B, V] of the next token, minus infinity for tokens that must not be sampled."""
        finite = ~(scores.isnan() | scores.isposinf()).any(dim=-1)
        self.rows = finite if self.rows is None else self.rows & finite
        # a large number in place of infinity would become infinite again when it is divided by the temperature
        return torch.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=-torch.inf)


class Abandoned(StoppingCriteria):
    """Ends all rows once nobody wants them any more."""

    def __init__(self) -> None:
        self.event = Event()

    def __call__(self, input_ids: Tensor, scores: Tensor, **more: Any) -> Tensor:
        """[B] bool, True where a row of input_ids [B, L] is to end."""
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device, dtype=torch.bool)
