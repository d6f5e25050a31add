"""Loading tokenizers under one written rule for special tokens, and telling them apart."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from dschat.errors import UserError

logger = logging.getLogger(__name__)

SENTINEL_NONE = "None"
"""The published scripts take this text for "the tokenizer's EOS"."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
"""One of them is in every folder with a tokenizer."""
CUSTOM_CODE_SIGN = "contains custom code"


@dataclass(frozen=True)
class Vocabulary:
    """The ids that tokens have; a model's tables may have further rows."""

    size: int
    """The highest id plus one."""
    gaps: tuple[int, ...] = ()
    """Ids below it that no token has, in ascending order; seldom any."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """The vocabulary of a tokenizer, whose length is the size only where there are no gaps."""
        ids = set(tokenizer.get_vocab().values())
        size = max(ids) + 1
        return cls(size, tuple(number for number in range(size) if number not in ids) if len(ids) < size else ())


def load_tokenizer(
    flag: str,
    path: str,
    *,
    config: PretrainedConfig,
    end_of_conversation_token: str | None,
    trust_remote_code: bool,
) -> PreTrainedTokenizerBase:
    """The tokenizer that lies beside a model.

    The rule for special tokens: an EOS must exist; a missing padding token is the EOS, so that no row is added; an
    end-of-conversation token that the vocabulary lacks is added as one special token.

    Args:
        flag: the flag that named the model, for messages.
        path: model name or folder.
        config: the model's, which may name the tokenizer's class.
        end_of_conversation_token: its text; None, or the text None, for the EOS.
        trust_remote_code: whether code in the folder may run.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, config=config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        folder = Path(path)
        if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise UserError(
                f"--{flag} {path}: the folder has no tokenizer (tokenizer.json or tokenizer.model); copy the files of "
                "the model that it was trained from"
            ) from error
        raise UserError(f"--{flag} {path}: the tokenizer cannot be loaded ({reading_problem(error, path)})") from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"--{flag} {path}: the tokenizer has no EOS token, so no answer could ever end; set eos_token in its "
            "tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("the tokenizer has no padding token: padding with its EOS %r", tokenizer.eos_token)
    text = end_of_conversation_text(tokenizer, end_of_conversation_token)
    if text != tokenizer.unk_token and tokenizer.convert_tokens_to_ids(text) in (None, tokenizer.unk_token_id):
        tokenizer.add_special_tokens({"extra_special_tokens": [text]}, replace_extra_special_tokens=False)
        logger.info("added the end-of-conversation token %r as id %d", text, end_of_conversation_id(tokenizer, text))
    return tokenizer


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, special_tokens: bool = False) -> str:
    """The text of token ids, without special tokens unless they are asked for."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=not special_tokens))


def end_of_conversation_text(tokenizer: PreTrainedTokenizerBase, token: str | None) -> str:
    """The text of the token that ends an answer."""
    return str(tokenizer.eos_token) if token in (None, SENTINEL_NONE) else str(token)


def end_of_conversation_id(tokenizer: PreTrainedTokenizerBase, token: str | None) -> int:
    """The id of the token that ends an answer."""
    found = tokenizer.convert_tokens_to_ids(end_of_conversation_text(tokenizer, token))
    assert isinstance(found, int)
    return found


def check_same_tokenizer(actor: PreTrainedTokenizerBase, reward: PreTrainedTokenizerBase) -> None:
    """Raise UserError unless both give the same ids, so that the reward model can read the actor's tokens."""
    if fingerprint(actor) == fingerprint(reward):
        return
    ours, theirs = actor.get_vocab(), reward.get_vocab()
    differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    example = f", for example {differing[0]!r}" if differing else ""
    raise UserError(
        f"actor and reward model have different tokenizers ({len(actor)} and {len(reward)} tokens{example}); train the "
        "reward model (step 2) from the same model that step 1 wrote"
    )


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what decides the ids of a text: vocabulary and special tokens."""
    content = [sorted(tokenizer.get_vocab().items()), tokenizer.eos_token_id]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def reading_problem(error: Exception, path: str) -> str:
    """Why a config or tokenizer could not be read, in one line."""
    if CUSTOM_CODE_SIGN in str(error):
        return (
            "it brings Python code of its own, which is not run unless --trust_remote_code is given; give it only if "
            "you have read that code"
        )
    if isinstance(error, KeyError):
        return f"a file lacks {error}: it is damaged or of another version"
    line = str(error).strip().split("\n")[0] or type(error).__name__
    nowhere = "" if Path(path).is_dir() else f"; there is no folder {Path(path).absolute()} either"
    return line.rstrip(".") + nowhere
