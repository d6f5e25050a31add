"""A conversation with a toy model, in the program and in a terminal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dschat.answering import chat
from tests.answering.helpers import make_models
from tests.judging.helpers import ROOT, environment, run_program

HOME = ROOT / "applications" / "DeepSpeed-Chat"
CHAT = HOME / "chat.py"
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[reply]{% endif %}"
)


@pytest.fixture
def chatbot(models):
    words = ["--path", str(models / "run" / "step-7" / "actor"), "--max_new_tokens", "24", "--temperature", "0"]
    return chat.load_chatbot(chat.parse_arguments([*words, "--device", "cpu"]))


def test_pieces_of_an_answer_are_what_the_model_generates(chatbot, models):
    messages = [{"role": "user", "content": "red cat"}]
    folder = models / "run" / "step-7" / "actor"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(" Human: red cat Assistant:", return_tensors="pt").input_ids
    sequence = model.generate(ids, do_sample=False, max_new_tokens=24, pad_token_id=tokenizer.pad_token_id)
    expected = tokenizer.decode(sequence[0, ids.shape[1] :], skip_special_tokens=True)
    pieces = list(chatbot.answer(messages))
    assert "".join(pieces) == expected and len(expected) > 10


def test_words_are_shown_as_they_come_and_the_next_turn_is_not(chatbot, monkeypatch):
    def stream(*_: object, stop_strings: Sequence[str]) -> Iterator[str]:
        assert stop_strings == ("Human:",)
        for token in chatbot.tokenizer(" a big red cat Human: go on", add_special_tokens=False).input_ids:
            yield chatbot.tokenizer.decode([token])

    monkeypatch.setattr(chatbot.generator, "stream", stream)
    pieces = [piece for piece in chatbot.answer([{"role": "user", "content": "x"}]) if piece]
    assert "".join(pieces) == " a big red cat " and len(pieces) > 2


def test_history_is_in_the_prompt_and_the_oldest_turns_are_forgotten_first(chatbot):
    turns = [
        {"role": role, "content": f"{role} {number}"} for number in range(12) for role in ("user", "assistant")
    ] + [{"role": "user", "content": "now"}]
    text = chatbot.tokenizer.decode(chatbot.prompt_ids(turns), skip_special_tokens=True)
    assert text.endswith("Assistant: assistant 11 Human: now Assistant:") and "user 0" not in text
    assert text.startswith(" Human: user ")
    assert len(chatbot.prompt_ids(turns)) <= chatbot.longest_prompt
    long = chatbot.prompt_ids([{"role": "user", "content": "word " * 300}])
    assert len(long) == chatbot.longest_prompt and long[0] == chatbot.tokenizer.bos_token_id
    assert chatbot.tokenizer.decode(long).endswith(" Assistant:")


def test_chat_template_is_used_where_there_is_one(chatbot):
    chatbot.tokenizer.chat_template = TEMPLATE
    ids = chatbot.prompt_ids([{"role": "user", "content": "a cat"}])
    assert chatbot.tokenizer.decode(ids) == "[user]a cat[reply]"


@pytest.mark.parametrize(
    ("text", "visible"),
    [("yes", "yes"), ("yes Hum", "yes "), ("yes Human: no", "yes "), ("yes HumH", "yes Hum"), ("", "")],
)
def test_text_is_held_back_while_it_may_begin_the_next_turn(text, visible):
    assert chat.before_mark(text, "Human:") == visible


def test_conversation_in_a_terminal_with_clear_and_quit(models):
    words = [sys.executable, CHAT.name, "--path", str(models / "run" / "step-7" / "actor"), "--max_new_tokens", "5"]
    done = subprocess.run(
        words, cwd=HOME, env=environment(), input="red cat\nand a dog\nclear\n\nhello\nquit\nnever read\n", text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Model: ") == 3 and "forgotten" in done.stdout


@pytest.mark.parametrize("temperature", ["0", "0.8"])
def test_a_table_row_that_no_token_has_is_never_said(tmp_path, temperature):
    make_models(tmp_path)
    folder = tmp_path / "run" / "step-7" / "actor"
    words = ["--path", str(folder), "--max_new_tokens", "6", "--temperature", temperature, "--device", "cpu"]
    chatbot = chat.load_chatbot(chat.parse_arguments(words))
    beyond = len(chatbot.tokenizer)
    messages = [{"role": "user", "content": "red cat"}]
    prompt = torch.tensor([chatbot.prompt_ids(messages)])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight[beyond] = model.model(prompt).last_hidden_state[0, -1] * 100
        assert int(model(prompt).logits[0, -1].argmax()) == beyond
    model.save_pretrained(folder)
    chatbot = chat.load_chatbot(chat.parse_arguments(words))
    assert len("".join(chatbot.answer(messages))) > 2


def talk(models: Path, said: bytes, *more: str, **environ: str) -> subprocess.Popen[bytes]:
    """A conversation that has just been typed."""
    words = [sys.executable, CHAT.name, "--path", str(models / "run" / "step-7" / "actor"), "--temperature", "0", *more]
    process = subprocess.Popen(
        words, cwd=HOME, env=environment(**environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(said)
    process.stdin.close()
    return process


@pytest.mark.parametrize("environ", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "utf-8:strict"}])
def test_bytes_that_are_no_text_do_not_end_the_conversation(models, environ):
    process = talk(models, b"caf\xe9\nhello\n", "--max_new_tokens", "4", **environ)
    output, errors = process.stdout.read(), process.stderr.read()
    assert process.wait(timeout=120) == 0, errors
    assert output.count(b"Model: ") == 2 and b"Traceback" not in errors


def test_a_reader_that_leaves_ends_the_conversation_without_a_traceback(models):
    process = talk(models, b"red cat\n" * 40, "--max_new_tokens", "60")
    assert process.stdout.read(10)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=120) == 0, errors
    assert b"Error" not in errors and b"Exception" not in errors


def test_a_closed_standard_output_is_one_sentence(models):
    words = [sys.executable, CHAT.name, "--path", str(models / "run" / "step-7" / "actor")]
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *words]
    done = subprocess.run(command, cwd=HOME, env=environment(), text=True, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 2 and "leave both of them open" in done.stderr and done.stderr.count("\n") == 1


def test_missing_model_is_one_sentence(models):
    done = run_program(CHAT, "--path", models / "nowhere")
    assert done.returncode == 2 and "there is no folder" in done.stderr and done.stderr.count("\n") == 1
