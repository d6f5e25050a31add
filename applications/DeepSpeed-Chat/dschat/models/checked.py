"""A checkpoint that has been looked at: its folder, config and tokenizer, read once and handed on."""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from dschat.errors import UserError
from dschat.models.tokenizer import Vocabulary, end_of_conversation_id, load_tokenizer, reading_problem
from dschat.models.weights import check_weights

DROPOUT_FIELDS = (
    "dropout", "attention_dropout", "hidden_dropout", "activation_dropout",
    "attn_pdrop", "embd_pdrop", "resid_pdrop", "classifier_dropout",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CheckedModel:
    """A checkpoint of which everything but the weights is in memory, as `check_model` found it."""

    flag: str
    """The flag that named it, without dashes, for messages."""
    path: str
    """Name on the hub, or the folder's absolute path."""
    config: PretrainedConfig = field(repr=False)
    """As the folder has it; whoever changes it takes `own_config`."""
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    """With padding and end-of-conversation token, see `load_tokenizer`."""
    trust_remote_code: bool
    """Whether code in the folder may run."""
    end_of_conversation_token: str | None = None
    """Text of the token that ends an answer; None, or the text None, for the EOS."""

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """All ids that end an answer: the tokenizer's EOS, the end of a conversation, and what the folder declares."""
        end = end_of_conversation_id(self.tokenizer, self.end_of_conversation_token)
        return tuple(sorted({int(self.tokenizer.eos_token_id), end, *self.declared_end_ids}))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The ids of the tokenizer; the embedding table has a row for each once the model is loaded."""
        return Vocabulary.of(self.tokenizer)

    @property
    def pad_token_id(self) -> int:
        """What fills rows up."""
        return int(self.tokenizer.pad_token_id)

    @property
    def num_positions(self) -> int | None:
        """Tokens of the longest row that the model takes, None where its config sets no limit."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def declared_end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer according to the folder's generation_config.json, none without one.

        A file that says of itself that it only repeats config.json declares nothing: the id there is often the default
        of the model's class, which in this vocabulary may be any token.

        Raises:
            UserError: the library refuses what the file says.
        """
        try:
            declared = GenerationConfig.from_pretrained(self.path)
        except OSError:
            return ()
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"--{self.flag} {self.path}: its generation_config.json cannot be read ({reason}); mend it, or delete "
                "it: only its end tokens are used"
            ) from error
        if getattr(declared, "_from_model_config", False) or declared.eos_token_id is None:
            return ()
        ids = declared.eos_token_id
        return tuple(ids) if isinstance(ids, list) else (ids,)

    def own_config(self, *, dropout: float | None) -> PretrainedConfig:
        """A copy of the config, with every dropout rate that it has set to `dropout` (None: as they are)."""
        config = copy.deepcopy(self.config)
        if dropout is not None:
            for name in DROPOUT_FIELDS:
                if getattr(config, name, None) is not None:
                    setattr(config, name, dropout)
        return config

    def check_rows(self, length: int, flags: str) -> None:
        """Raise UserError if rows of `length` tokens have no room in the model; `flags` name what sets it."""
        if self.num_positions is not None and length > self.num_positions:
            raise UserError(
                f"{flags} make rows of {length} tokens, but the model has {self.num_positions} positions; lower them"
            )


def check_model(
    flag: str, path: str, *, end_of_conversation_token: str | None = None, trust_remote_code: bool = False
) -> CheckedModel:
    """Look at a checkpoint: everything is read but the weights, of whose files the headers are checked.

    Args:
        flag: the flag that named it, without dashes, for messages.
        path: a folder, or a name on the hub. What starts with `.`, `/` or `~` is only ever a folder.
        end_of_conversation_token: text of the token that ends an answer; None, or the text None, for the EOS.
        trust_remote_code: whether code in the folder may run.
    Raises:
        UserError: the folder is missing, or lacks a part, or a part cannot be read.
    """
    path = find_model(flag, path)
    config = _load_config(flag, path, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(
        flag,
        path,
        config=config,
        end_of_conversation_token=end_of_conversation_token,
        trust_remote_code=trust_remote_code,
    )
    check_weights(flag, path)
    return CheckedModel(flag, path, config, tokenizer, trust_remote_code, end_of_conversation_token)


def find_model(flag: str, path: str) -> str:
    """A model's name, or the absolute path of its folder; UserError if that is not there or holds no config.json."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--{flag} {path}: {folder.absolute()} has no config.json{_model_below(folder)}")
        return str(folder.absolute())
    if folder.is_file():
        raise UserError(f"--{flag} {path}: {folder.absolute()} is a file; pass the folder of the model")
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local:
        raise UserError(f"--{flag} {path}: there is no folder {folder.absolute()}{_nearest(folder)}")
    return path


def _load_config(flag: str, path: str, *, trust_remote_code: bool) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--{flag} {path}: the model's config cannot be read ({reading_problem(error, path)})"
        ) from error


def _model_below(folder: Path) -> str:
    found = sorted(config.parent.name for config in folder.glob("*/config.json"))
    return f"; did you mean {folder / found[-1]}?" if found else "; pass a Hugging Face model folder"


def _nearest(folder: Path) -> str:
    parent = folder.parent
    if not parent.is_dir():
        return f", nor {parent.absolute()}; check the path (it is relative to {Path.cwd()})"
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    near = difflib.get_close_matches(folder.name, names, n=1, cutoff=0.3)
    return f"; did you mean {parent / near[0]}?" if near else f"; {parent.absolute()} has no folder like it"
