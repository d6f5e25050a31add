"""Shows what step 1 changed: greedy answers of the model before and after it, side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.panel import Panel
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from dschat.data.base import ASSISTANT, HUMAN
from dschat.data.batches import PromptBatch
from dschat.errors import UserError
from dschat.generation import EndTokens, HuggingFaceSettings, Sampling, build_generator
from dschat.models.causal_lm import for_inference, load_causal_lm
from dschat.models.checked import check_model
from dschat.models.tokenizer import text_of

QUESTIONS = {
    "English": (
        "Explain in two sentences what photosynthesis is.",
        "Write a short poem about the first snow of the year.",
        "How do I keep a house plant alive while I am away for two weeks?",
        "What is the difference between weather and climate?",
        "Give me three ideas for a birthday present for a ten-year-old.",
        "Why does bread rise?",
    ),
    "Chinese": (
        "请用两句话解释什么是光合作用。",
        "写一首关于初雪的短诗。",
        "我要出门两个星期,怎样让家里的植物活下来?",
        "天气和气候有什么区别?",
        "请给我三个送给十岁孩子的生日礼物的建议。",
        "面包为什么会发酵膨胀?",
    ),
    "Japanese": (
        "光合成とは何かを二文で説明してください。",
        "初雪についての短い詩を書いてください。",
        "二週間留守にする間、観葉植物を枯らさないにはどうすればいいですか。",
        "天気と気候の違いは何ですか。",
        "十歳の子どもへの誕生日プレゼントの案を三つください。",
        "パンはなぜ膨らむのですか。",
    ),
}


def greedy_answers(
    flag: str, path: str, prompts: Sequence[str], *, max_new_tokens: int, end_token: str | None
) -> list[str]:
    """The likeliest continuation of each prompt.

    Args:
        flag: the flag that named the model, for messages.
        path: model folder or name on the hub.
        prompts: texts to continue.
        max_new_tokens: longest answer.
        end_token: text of the token that ends an answer, None for the EOS.
    """
    checked = check_model(flag, path, end_of_conversation_token=end_token)
    tokenizer = checked.tokenizer
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    ends = EndTokens.of(checked)
    model = for_inference(load_causal_lm(checked, dtype=dtype), device)
    generator = build_generator(model, ends, HuggingFaceSettings())
    sampling = Sampling(temperature=0, top_k=0, top_p=1, max_new_tokens=max_new_tokens)
    answers = []
    for prompt in prompts:
        batch = PromptBatch.of_ids([tokenizer(prompt)["input_ids"]], pad_token_id=ends.pad)
        answers.append(text_of(tokenizer, generator.generate(batch, sampling).ids()[0]))
    return answers


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="prompt_eval.py", description="Greedy answers before and after step 1.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--model_name_or_path_baseline", required=True, help="the model that step 1 started from")
    add("--model_name_or_path_finetune", required=True, help="the folder that step 1 wrote")
    add("--max_new_tokens", type=int, default=100, help="longest answer (default: 100)")
    add("--language", choices=tuple(QUESTIONS), default="English", help="of the six questions (default: English)")
    add("--end_of_conversation_token", help="token that ends an answer, as in training (default: the EOS)")
    return parser.parse_args(argv)


def main() -> None:
    """Answer with both models, then show."""
    arguments = parse_arguments(sys.argv[1:])
    if arguments.max_new_tokens < 1:
        raise UserError(f"--max_new_tokens must be at least 1, got {arguments.max_new_tokens}")
    disable_progress_bar()
    prompts = [f"{HUMAN}{question}{ASSISTANT}" for question in QUESTIONS[arguments.language]]
    baseline, finetuned = (
        greedy_answers(
            flag,
            getattr(arguments, flag),
            prompts,
            max_new_tokens=arguments.max_new_tokens,
            end_token=arguments.end_of_conversation_token,
        )
        for flag in ("model_name_or_path_baseline", "model_name_or_path_finetune")
    )
    console = Console(highlight=False)
    for prompt, before, after in zip(prompts, baseline, finetuned, strict=True):
        console.print(Text(prompt.strip()), style="bold")
        console.print(Panel(Text(before.strip()), title="baseline", title_align="left"))
        console.print(Panel(Text(after.strip()), title="finetuned", title_align="left"))
