"""Talk to a trained model in the terminal: `python chat.py --path <model folder>`; `--help` lists the flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, TextIteratorStreamer
from transformers.utils.logging import disable_progress_bar

from dschat.data.base import ASSISTANT, HUMAN
from dschat.data.tokenise import TextEncoder
from dschat.errors import UserError
from dschat.models.causal_lm import load_causal_lm
from dschat.models.checked import check_model

NEXT_TURN = HUMAN.strip()
"""Where a model without a chat template begins to speak for the person."""
CLEAR, QUIT = "clear", "quit"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Message = dict[str, str]


@dataclass(frozen=True)
class Chatbot:
    """A model that continues a conversation."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prefix: tuple[int, ...]
    """Ids before any text (BOS)."""
    settings: GenerationConfig
    longest_prompt: int
    """Tokens; the oldest turns are forgotten beyond it."""

    def answer(self, messages: Sequence[Message]) -> Iterator[str]:
        """Pieces of the next answer, as they are generated; together they end at the model's own end."""
        ids = torch.tensor([self.prompt_ids(messages)], device=self.model.device)
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        arguments = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "generation_config": self.settings,
            "tokenizer": self.tokenizer,
        }
        failure: list[Exception] = []
        worker = Thread(target=self._generate, args=(arguments, streamer, failure), daemon=True)
        worker.start()
        text = shown = ""
        for piece in streamer:
            text += piece
            safe = text if self.tokenizer.chat_template else before_mark(text, NEXT_TURN)
            yield safe[len(shown) :]
            shown = safe
        worker.join()
        if failure:
            raise failure[0]
        if NEXT_TURN not in text:
            yield text[len(shown) :]

    def _generate(self, arguments: dict[str, Any], streamer: TextIteratorStreamer, failure: list[Exception]) -> None:
        try:
            self.model.generate(**arguments, streamer=streamer)
        except Exception as error:  # whatever it is, the thread that waits for text has to hear of it
            failure.append(error)
            streamer.end()

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation, the oldest turns left out, and at worst its beginning cut, to fit."""
        for start in range(0, len(messages), 2):
            ids = self._ids(messages[start:])
            if len(ids) <= self.longest_prompt:
                return ids
        return [*self.prefix, *ids[len(ids) - self.longest_prompt + len(self.prefix) :]]

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*self.prefix, *self.tokenizer(plain_prompt(messages), add_special_tokens=False)["input_ids"]]


def plain_prompt(messages: Sequence[Message]) -> str:
    """The conversation as the dialogue datasets write it: ` Human: … Assistant: … Human: … Assistant:`."""
    marks = {"user": (HUMAN, ASSISTANT), "assistant": (" ", "")}
    return "".join(marks[each["role"]][0] + each["content"] + marks[each["role"]][1] for each in messages)


def before_mark(text: str, mark: str) -> str:
    """The text up to a mark, without an end that may turn out to be the mark's beginning."""
    text = text.split(mark)[0]
    possible = next((size for size in range(len(mark) - 1, 0, -1) if text.endswith(mark[:size])), 0)
    return text[: len(text) - possible]


def load_chatbot(arguments: argparse.Namespace) -> Chatbot:
    """The model that the flags describe.

    Raises:
        UserError: no such model, or an answer would leave no room for a prompt.
    """
    checked = check_model("path", arguments.path, trust_remote_code=arguments.trust_remote_code)
    tokenizer = checked.tokenizer
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    default = torch.bfloat16 if device.type == "cuda" else torch.float32
    positions = checked.num_positions or 2**20
    longest = positions - arguments.max_new_tokens
    if longest < 1 or arguments.max_new_tokens < 1:
        raise UserError(f"--max_new_tokens must be between 1 and {positions - 1}, got {arguments.max_new_tokens}")
    if arguments.temperature < 0:
        raise UserError(f"--temperature must be at least 0, got {arguments.temperature}")
    sampling = {"do_sample": False}
    if arguments.temperature > 0:
        sampling = {"do_sample": True, "temperature": arguments.temperature, "top_k": arguments.top_k}
    settings = GenerationConfig(
        max_new_tokens=arguments.max_new_tokens,
        pad_token_id=checked.pad_token_id,
        stop_strings=None if tokenizer.chat_template else [NEXT_TURN],
        eos_token_id=list(checked.declared_end_ids) or tokenizer.eos_token_id,
        **sampling,
    )
    prefix = TextEncoder.create(tokenizer, end_of_conversation=None, max_length=longest).prefix
    model = load_causal_lm(checked, dtype=DTYPES.get(arguments.dtype, default))
    return Chatbot(model.to(device).eval(), tokenizer, prefix, settings, longest)


def talk(chatbot: Chatbot) -> None:
    """Answer line by line until `quit` or the end of the input; `clear` forgets the conversation."""
    messages: list[Message] = []
    _write(f"Write a message. {CLEAR} forgets the conversation, {QUIT} ends it.\n")
    while True:
        _write("\nYou: ")
        line = sys.stdin.readline()
        said = line.strip()
        if not line or said == QUIT:
            return
        if said == CLEAR:
            messages = []
            _write("The conversation is forgotten.\n")
        elif said:
            messages.append({"role": "user", "content": said})
            _write("Model: ")
            answer = ""
            for piece in chatbot.answer(messages):
                _write(piece)
                answer += piece
            _write("\n")
            messages.append({"role": "assistant", "content": answer.strip()})


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="chat.py", description="Talk to a trained model.", allow_abbrev=False)
    add = parser.add_argument
    add("--path", required=True, help="model folder, such as <step-3 output>/actor, or a name on the hub")
    add("--max_new_tokens", type=int, default=128, help="longest answer (default: 128)")
    add("--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)")
    add("--top_k", type=int, default=50, help="sample among this many tokens, 0 for all (default: 50)")
    add("--seed", type=int, default=42, help="of the sampling (default: 42)")
    add("--device", help="cpu or cuda:<n> (default: a GPU if there is one)")
    add("--dtype", choices=tuple(DTYPES), help="precision (default: bf16 on a GPU, fp32 on the CPU)")
    add("--trust_remote_code", action="store_true", help="run code that lies in the model's folder")
    return parser.parse_args(argv)


def main() -> None:
    """Load, then talk."""
    arguments = parse_arguments(sys.argv[1:])
    disable_progress_bar()
    torch.manual_seed(arguments.seed)
    try:
        talk(load_chatbot(arguments))
    except KeyboardInterrupt:
        _write("\n")
