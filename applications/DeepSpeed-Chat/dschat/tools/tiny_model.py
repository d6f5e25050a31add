"""Trains a byte-level BPE tokenizer on a dataset's texts and initialises a small Llama of matching size, unlearned.

    python -m dschat.programs.make_tiny_model --output runs/tiny

The folder is an ordinary Hugging Face model folder, which step 1 takes as --model_name_or_path.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"

# turns as plain text, so that the template needs no further special tokens
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ 'Human: ' if message['role'] == 'user' else 'Assistant: ' }}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)


@dataclass(frozen=True)
class TinyModelSize:
    """How large the tokenizer and the model are; the defaults make 1.1 million parameters."""

    vocab_size: int = 2048
    """Tokens, special ones included."""
    hidden_size: int = 128
    """Width; the feed-forward layers are 8/3 of it, rounded to a multiple of 8, as in Llama."""
    num_layers: int = 4
    num_heads: int = 4
    """Attention heads; divides hidden_size."""
    max_length: int = 512
    """Longest sequence, in tokens."""


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that begins every text with BOS, as Llama's and Gemma's do.

    Args:
        texts: what the merges are learned from.
        vocab_size: number of tokens, special ones included; fewer where the texts are too short to fill it.
        max_length: longest sequence of the model that goes with it, in tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def new_model(tokenizer: PreTrainedTokenizerFast, size: TinyModelSize, *, seed: int) -> LlamaForCausalLM:
    """A Llama with fresh weights drawn from `seed`, tied embeddings, and the tokenizer's vocabulary."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        intermediate_size=8 * round(size.hidden_size / 3),
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        max_position_embeddings=size.max_length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def dataset_texts(data_path: str, *, cache_dir: Path, seed: int) -> Iterator[str]:
    """The prompts with their preferred answers in the training part of a dataset."""
    from dschat.data.raw_datasets import find_raw_dataset
    from dschat.data.stages import SFT

    dataset = find_raw_dataset(data_path, seed=seed, cache_dir=cache_dir)
    for row in dataset.load(SFT.texts).train:
        prompt, chosen = dataset.prompt(row), dataset.chosen(row)
        if prompt is not None and chosen is not None:
            yield prompt + chosen


def make_tiny_model(folder: Path, size: TinyModelSize, *, data_path: str, cache_dir: Path, seed: int) -> int:
    """Write a tokenizer learned on a dataset and an unlearned model to a folder.

    Args:
        folder: where the model folder goes.
        size: of tokenizer and model.
        data_path: dataset name or local path.
        cache_dir: where a dataset that is made here is kept.
        seed: of the weights and of such a dataset.
    Returns:
        The number of parameters.
    """
    texts = dataset_texts(data_path, cache_dir=cache_dir, seed=seed)
    tokenizer = train_tokenizer(texts, vocab_size=size.vocab_size, max_length=size.max_length)
    model = new_model(tokenizer, size, seed=seed)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return model.num_parameters()


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--data_path", default="pydoc-tldr", help="dataset whose training texts the tokenizer learns")
    parser.add_argument("--data_output_path", type=Path, help="folder of data caches; default: data_cache in --output")
    parser.add_argument("--seed", type=int, default=1234, help="of the weights")
    for field in fields(TinyModelSize):
        parser.add_argument(f"--{field.name}", type=int, default=field.default, help="default: %(default)s")
    found = parser.parse_args()
    size = TinyModelSize(**{name: getattr(found, name) for name in asdict(TinyModelSize())})
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cache_dir = found.data_output_path or found.output / "data_cache"
    count = make_tiny_model(found.output, size, data_path=found.data_path, cache_dir=cache_dir, seed=found.seed)
    logger.info("wrote a model of %s parameters to %s", f"{count:,}", found.output)
