"""What is read from a GGUF file computes what the file's model computes, ends answers and splits texts as it does."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from dschat.errors import UserError
from dschat.tools.gguf_model import readable_architectures
from tests.pretrained import PretrainedModel, logits_of
from tests.tools.gguf_files import TEMPLATE, imported, logits, make_chat_tokenizer, refused, write_llama
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer

TEXTS = ("the sum of the values", "  12 and\n\n 3456", "Größe: 10 €", "")


class TestTheWrittenFolder:
    def test_computes_what_the_model_in_the_file_computes(
        self, file: Path, model: LlamaForCausalLM, tmp_path: Path
    ) -> None:
        folder = imported(file, tmp_path / "model")
        torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(model), rtol=0, atol=0)
        tokenizer, expected = AutoTokenizer.from_pretrained(folder), make_chat_tokenizer("<turn_end>")
        for text in TEXTS:
            assert tokenizer(text).input_ids == expected(text).input_ids
        assert tokenizer.get_vocab() == expected.get_vocab(), "a token without a row was added"
        assert tokenizer.chat_template == TEMPLATE
        assert tokenizer.model_max_length == model.config.max_position_embeddings

    @pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "Q5_0"])
    def test_equals_what_transformers_reads_from_a_quantized_file(
        self, kind: str, model: LlamaForCausalLM, tmp_path: Path
    ) -> None:
        path = write_llama(tmp_path / "toy.gguf", model, make_chat_tokenizer("<turn_end>"), kind=kind)
        folder = imported(path, tmp_path / "model", skip_check=True)
        expected = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
        torch.testing.assert_close(
            logits(AutoModelForCausalLM.from_pretrained(folder)), logits(expected), rtol=0, atol=0
        )
        assert not torch.equal(logits(expected), logits(model)), "quantizing has changed nothing"
        assert "quantization_config" not in json.loads((folder / "config.json").read_text())

    @pytest.mark.parametrize(
        ("kind", "chosen", "expected"),
        [("F32", None, "float32"), ("BF16", None, "bfloat16"), ("F16", None, "float16"), ("Q8_0", None, "float32"),
         ("Q8_0", "bf16", "bfloat16"), ("BF16", "fp32", "float32")],
    )  # fmt: skip
    def test_has_the_precision_of_the_file_or_the_chosen_one(
        self, kind: str, chosen: str | None, expected: str, model: LlamaForCausalLM, tmp_path: Path
    ) -> None:
        path = write_llama(tmp_path / "toy.gguf", model, make_chat_tokenizer("<turn_end>"), kind=kind)
        folder = imported(path, tmp_path / "model", dtype=chosen, skip_check=True)
        assert json.loads((folder / "config.json").read_text())["dtype"] == expected
        full = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
        for name, weight in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
            assert torch.equal(weight, full.state_dict()[name].to(getattr(torch, expected))), name

    def test_replaces_a_model_when_told_to(self, file: Path, tmp_path: Path) -> None:
        folder = imported(file, tmp_path / "model")
        (folder / "stale.txt").touch()
        imported(file, folder, overwrite=True)
        assert not (folder / "stale.txt").exists()

    def test_does_not_take_a_tokenizer_that_lies_beside_the_file(self, file: Path, tmp_path: Path) -> None:
        make_tokenizer(vocab_size=270).save_pretrained(tmp_path)
        shutil.copy(file, tmp_path)
        folder = imported(tmp_path / file.name, tmp_path / "model")
        assert len(AutoTokenizer.from_pretrained(folder)) == len(make_chat_tokenizer("<turn_end>"))


class TestFamilies:
    def test_another_family_is_named_with_those_that_can_be_read(self, model: LlamaForCausalLM, tmp_path: Path) -> None:
        path = write_llama(tmp_path / "toy.gguf", model, make_tokenizer(), architecture="rwkv7")
        message = refused(path, tmp_path / "model")
        assert "of the family rwkv7, which transformers" in message
        assert "gemma3, " in message
        assert "llama, " in message

    def test_those_that_can_be_read_are_models(self) -> None:
        assert {"llama", "gemma3", "qwen2", "qwen35"} <= set(readable_architectures())
        assert not {"general", "tokenizer"} & set(readable_architectures())


class TestEndTokens:
    @pytest.mark.parametrize(
        ("extra", "template", "settings", "expected"),
        [
            (["<turn_end>"], TEMPLATE, {}, ["<eos>", "<turn_end>"]),
            (["<turn_end>"], TEMPLATE.replace("<turn_end>", "<eos>"), {}, ["<eos>"]),
            (["<turn_end>"], TEMPLATE.replace("<turn_end>", ""), {}, ["<eos>"]),
            (["<turn_end>"], None, {}, ["<eos>"]),
            (["<turn_end>"], None, {"tokenizer.ggml.eot_token_id": 300}, ["<eos>", "<turn_end>"]),
            (["<end_of_turn>"], None, {}, ["<eos>", "<end_of_turn>"]),
            (["<end_of_turn>"], TEMPLATE.replace("<turn_end>", "<eos>"), {}, ["<eos>"]),
            (["<turn_end>"], "{{ raise_exception('no answers') }}", {}, ["<eos>"]),
        ],
    )
    def test_are_eos_and_what_ends_a_turn(
        self, extra: list[str], template: str | None, settings: dict[str, int | str], expected: list[str],
        model: LlamaForCausalLM, tmp_path: Path,
    ) -> None:  # fmt: skip
        tokenizer = make_chat_tokenizer(*extra, template=template)
        path = write_llama(tmp_path / "toy.gguf", model, tokenizer, settings=settings)
        folder = imported(path, tmp_path / "model")
        ids = tokenizer.convert_tokens_to_ids(expected)
        # as generate() sees it
        found = AutoModelForCausalLM.from_pretrained(folder).generation_config
        assert found.eos_token_id == (ids if len(ids) > 1 else ids[0])
        assert GenerationConfig.from_pretrained(folder).pad_token_id == tokenizer.pad_token_id


class TestSplitting:
    @pytest.mark.parametrize(("rule", "apart"), [("smollm", True), ("gpt-2", False)])
    def test_digits_stand_apart_where_the_file_says_so(
        self, rule: str, apart: bool, model: LlamaForCausalLM, tmp_path: Path
    ) -> None:
        path = write_llama(tmp_path / "toy.gguf", model, make_chat_tokenizer("<turn_end>"), splitting=rule)
        tokenizer = AutoTokenizer.from_pretrained(imported(path, tmp_path / "model"))
        pieces = [text for text, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")]
        assert pieces == (["a", "ĠĠ", "1", "2"] if apart else ["a", "Ġ", "Ġ12"])

    def test_an_unknown_rule_is_told(
        self, model: LlamaForCausalLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write_llama(tmp_path / "toy.gguf", model, make_chat_tokenizer("<turn_end>"), splitting="deepseek-llm")
        with caplog.at_level(logging.WARNING, logger="dschat"):
            imported(path, tmp_path / "model")
        assert "'deepseek-llm'" in caplog.text


class TestTheCheck:
    def test_a_model_that_repeats_one_token_is_refused_unless_told_so(self, tmp_path: Path) -> None:
        model = make_causal_lm("llama", vocab_size=len(make_tokenizer()))
        with torch.no_grad():
            model.model.norm.weight.zero_()
        path = write_llama(tmp_path / "toy.gguf", model, make_tokenizer())
        assert "one token again and again" in refused(path, tmp_path / "model")
        assert imported(path, tmp_path / "model", skip_check=True).is_dir()

    def test_numbers_that_are_not_finite_are_refused_and_the_model_before_stays(
        self, file: Path, tmp_path: Path
    ) -> None:
        before = imported(file, tmp_path / "model")
        content = (before / "model.safetensors").read_bytes()
        model = make_causal_lm("llama", vocab_size=len(make_tokenizer()))
        with torch.no_grad():
            model.lm_head.weight[7, 3] = torch.nan
        path = write_llama(tmp_path / "toy.gguf", model, make_tokenizer())
        with pytest.raises(UserError, match="logits are not finite"):
            imported(path, before, overwrite=True)
        assert (before / "model.safetensors").read_bytes() == content


class TestSmolLM2:
    """The real thing, from the Python package index."""

    def test_logits_are_those_that_transformers_reads_from_the_file(self, smollm2: PretrainedModel) -> None:
        found = logits_of(AutoModelForCausalLM.from_pretrained(smollm2.folder))
        torch.testing.assert_close(found, smollm2.reference_logits, rtol=0, atol=1e-4)

    def test_answers_a_question_through_its_template_and_stops(self, smollm2: PretrainedModel) -> None:
        tokenizer = AutoTokenizer.from_pretrained(smollm2.folder)
        model = AutoModelForCausalLM.from_pretrained(smollm2.folder)
        turns = [{"role": "user", "content": "What is the capital of France?"}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        sequence = model.generate(**prompt, do_sample=False, max_new_tokens=16)[0]
        answer = tokenizer.decode(sequence[prompt["input_ids"].shape[1] :])
        assert answer == "The capital of France is Paris.<|im_end|>"
        assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")

    def test_tokens_are_those_of_the_published_tokenizer(self, smollm2: PretrainedModel) -> None:
        """Its digits stand alone, with the white space before them in one piece."""
        tokenizer = AutoTokenizer.from_pretrained(smollm2.folder)
        assert tokenizer.tokenize("x = 3\n    10") == ["x", "Ġ=", "Ġ", "3", "ĊĠĠĠĠ", "1", "0"]
        assert tokenizer("Hello world! 123").input_ids == [19556, 905, 17, 216, 33, 34, 35]
        assert tokenizer("Café déjà vu.").input_ids == [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30]
        assert tokenizer.decode(tokenizer("Héllo  12\n").input_ids) == "Héllo  12\n"
        assert tokenizer.model_max_length == 8192
