"""Damaged, foreign and partial files are refused in one sentence, from their headers alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from dschat.errors import UserError
from dschat.tools.gguf_header import read_header
from tests.tools.gguf_files import make_chat_tokenizer, refused, write_llama
from toys.tokenizers import make_tokenizer


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
