"""Talk to a trained model in the terminal: `python chat.py --path <model folder>`; `--help` lists the flags."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from dschat.data.base import ASSISTANT, HUMAN
from dschat.data.batches import PromptBatch
from dschat.data.tokenise import TextEncoder
from dschat.errors import UserError
from dschat.generation import EndTokens, Sampling
from dschat.generation.hugging_face import HuggingFaceGenerator
from dschat.models.causal_lm import for_inference, load_causal_lm
from dschat.models.checked import check_model

NEXT_TURN = HUMAN.strip()
"""Where a model without a chat template begins to speak for the person."""
CLEAR, QUIT = "clear", "quit"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Message = dict[str, str]


@dataclass(frozen=True)
class Chatbot:
    """A model that continues a conversation."""

    generator: HuggingFaceGenerator
    tokenizer: PreTrainedTokenizerBase
    prefix: tuple[int, ...]
    """Ids before any text (BOS)."""
    sampling: Sampling
    longest_prompt: int
    """Tokens; the oldest turns are forgotten beyond it."""

    def answer(self, messages: Sequence[Message]) -> Iterator[str]:
        """Pieces of the next answer, as they are generated; together they end at the model's own end."""
        prompt = PromptBatch.of_ids([self.prompt_ids(messages)], pad_token_id=int(self.tokenizer.pad_token_id))
        marks = () if self.tokenizer.chat_template else (NEXT_TURN,)
        text = shown = ""
        with closing(self.generator.stream(prompt, self.sampling, self.tokenizer, stop_strings=marks)) as pieces:
            for piece in pieces:
                text += piece
                safe = before_mark(text, NEXT_TURN) if marks else text
                yield safe[len(shown) :]
                shown = safe
        if NEXT_TURN not in text:
            yield text[len(shown) :]

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
    if arguments.top_k < 0:
        raise UserError(f"--top_k must be at least 0, got {arguments.top_k}; 0 samples among all tokens")
    sampling = Sampling(arguments.temperature, arguments.top_k, 1.0, arguments.max_new_tokens)
    ends = EndTokens.of(checked)
    prefix = TextEncoder.create(tokenizer, end_of_conversation=None, max_length=longest).prefix
    model = for_inference(load_causal_lm(checked, dtype=DTYPES.get(arguments.dtype, default)), device)
    return Chatbot(HuggingFaceGenerator(model, ends), tokenizer, prefix, sampling, longest)


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
    if sys.stdin is None or sys.stdout is None:
        raise UserError("chat.py reads standard input and writes standard output; leave both of them open")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # a byte that is no text, such as a paste from elsewhere, becomes U+FFFD; the conversation goes on
        sys.stdin.reconfigure(errors="replace")
    disable_progress_bar()
    torch.manual_seed(arguments.seed)
    try:
        talk(load_chatbot(arguments))
    except KeyboardInterrupt:
        _write("\n")
    except BrokenPipeError:
        # nobody reads any more; the interpreter would try once more to write what is left, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
