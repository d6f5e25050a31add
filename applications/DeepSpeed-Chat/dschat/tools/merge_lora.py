"""Adds a LoRA adapter to the weights that it was trained beside, and writes one plain model folder.

    python -m dschat.programs.merge_lora --adapter models/sft/adapter --output models/sft-merged

Training writes the merged folder by itself; this is for an adapter that was kept or passed on without it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dschat.errors import UserError
from dschat.models.tokenizer import Vocabulary

logger = logging.getLogger(__name__)

CLASSES = {"CAUSAL_LM": (AutoModelForCausalLM, {}), "SEQ_CLS": (AutoModelForSequenceClassification, {"num_labels": 1})}


def merge(adapter: Path, output: Path, *, base: str | None, trust_remote_code: bool = False) -> Path:
    """Write the sum of an adapter and its base.

    Args:
        adapter: folder with adapter_config.json, adapter_model.safetensors and the tokenizer.
        output: a folder that is not there yet or is empty.
        base: name or folder of the base; default: the one that the adapter names.
        trust_remote_code: whether code in the base's folder may run.
    Returns:
        `output`.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"--adapter {adapter} holds no adapter_config.json; name the folder adapter of a trained model")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output {output} is not empty; choose another folder")
    # slow to import: --help and mistakes answer before; it asks for more packages where bitsandbytes is installed
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from peft import PeftConfig, PeftModel

    settings = PeftConfig.from_pretrained(str(adapter))
    name = base or settings.base_model_name_or_path
    if settings.task_type not in CLASSES:
        raise UserError(f"--adapter {adapter} is for {settings.task_type}; only {' and '.join(CLASSES)} can be merged")
    kind, options = CLASSES[settings.task_type]
    try:
        model = kind.from_pretrained(name, trust_remote_code=trust_remote_code, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(adapter) if _has_tokenizer(adapter) else name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the adapter's base {name} cannot be loaded ({reason}); name its place with --base") from error
    _check_rows(model, tokenizer, name)
    merged = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False).merge_and_unload()
    merged.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return output


def _has_tokenizer(adapter: Path) -> bool:
    return (adapter / "tokenizer_config.json").is_file()


def _check_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    table: nn.Module = model.get_input_embeddings()
    rows = table.get_parameter("weight").shape[0]
    needed = Vocabulary.of(tokenizer).size
    if needed > rows:
        raise UserError(
            f"the adapter was trained with {needed} tokens, more than the {rows} rows of {name}: the added "
            "rows stand in no adapter; take the merged folder that training wrote"
        )


def main() -> None:
    """Read the command line and merge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--base", help="name or folder of the base; default: the one that the adapter names")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that the base brings along")
    found = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    folder = merge(found.adapter, found.output, base=found.base, trust_remote_code=found.trust_remote_code)
    logger.info("wrote %s", folder)
