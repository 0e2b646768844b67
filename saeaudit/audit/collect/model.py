"""A language model as far as its last layer, without the head that predicts tokens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn

from saeaudit.audit.device import pick_device
from saeaudit.errors import AuditError
from saeaudit.sources.models import ModelFiles
from saeaudit.vocabulary import ModelDtype

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DTYPES = get_args(ModelDtype)
UNUSED = ("pooler",)
"""Modules behind the last layer, which a file need not have."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model in evaluation mode, and how it was loaded."""

    files: ModelFiles
    decoder: nn.Module
    """Takes ``input_ids`` and ``attention_mask``; paths of places are of its modules."""
    tokenizer: PreTrainedTokenizerBase
    kind: str
    """transformers' name for models of this kind."""
    dtype: str
    attention: str
    """transformers' name for how attention is computed."""
    device: str

    @property
    def vocabulary(self) -> int:
        """Tokens that it has embeddings for."""
        decoder: Any = self.decoder
        return int(decoder.get_input_embeddings().num_embeddings)

    @property
    def longest(self) -> int | None:
        """Most tokens of a text that it takes; None where it does not say."""
        limit = getattr(self.decoder.config, "max_position_embeddings", None)
        if not isinstance(limit, int) or limit <= 0:
            return None
        embeddings = getattr(self.decoder, "embeddings", None)
        padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
        # RoBERTa's first position is the one behind that of padding.
        return limit if padding is None else limit - padding - 1


def load_model(files: ModelFiles, *, dtype: ModelDtype = "auto", device: str = "auto") -> Model:
    """Load a model's decoder and its tokenizer; no code of theirs runs, and no socket is opened.

    Attention is what transformers takes by default for the kind of model, except where scores are
    capped (Gemma 2), which only its plainest form does in every version.

    Args:
        files: found by `find_model`.
        dtype: what to compute in.
        device: as `--device` takes it.

    Raises:
        AuditError: transformers is not installed, or cannot load it: not a model of a kind that it
            knows, another's code would have to run, weights that are missing or of other shapes.
    """
    if dtype not in DTYPES:
        raise AuditError(f"{dtype[:40]!r} is no dtype", where="--dtype", hint=", ".join(DTYPES))
    place = pick_device(device)
    library = import_transformers()
    with quiet(library):
        config = _tried(files, library.AutoConfig.from_pretrained, files.folder)
        _check_kind(files, config)
        tokenizer = _tried(files, library.AutoTokenizer.from_pretrained, files.folder)
        whole, report = _tried(
            files, library.AutoModel.from_pretrained, files.folder, config=config,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype), use_safetensors=True,
            attn_implementation="eager" if _caps_scores(config) else None,
            output_loading_info=True,
        )  # fmt: skip
    decoder = whole.get_decoder()
    _check_complete(files, whole, decoder, report)
    decoder = decoder.to(place).eval()
    decoder.config.use_cache = False
    return Model(
        files, decoder, tokenizer, str(decoder.config.model_type),
        str(decoder.dtype).removeprefix("torch."), str(decoder.config._attn_implementation), place,
    )  # fmt: skip


def import_transformers() -> Any:
    """The library.

    Raises:
        AuditError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise AuditError(
            "collecting activations needs transformers", hint="pip install 'saeaudit[collect]'"
        ) from error
    return transformers


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Keep transformers from writing to the terminal: what is wrong is said in one line."""
    logging = library.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _tried(files: ModelFiles, load: Any, *arguments: Any, **options: Any) -> Any:
    """Call transformers; whatever it finds wrong with a model's files is the model's."""
    try:
        return load(*arguments, local_files_only=True, trust_remote_code=False, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # it raises what it likes: KeyError, TypeError, its libraries' own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "trust_remote_code" in str(error):
            reason = "its own code would have to run, which is never done"
        if "ignore_mismatched_sizes" in str(error):
            reason = "weights are not of the shapes that its config.json says"
        raise AuditError(
            f"transformers cannot load it: {reason}", where=f"--model {files.name}"
        ) from error


def _check_kind(files: ModelFiles, config: Any) -> None:
    if config.is_encoder_decoder:
        raise AuditError(
            f"a model of an encoder and a decoder ({config.model_type}), which are not collected",
            where=f"--model {files.name}",
        )


def _caps_scores(config: Any) -> bool:
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def _check_complete(
    files: ModelFiles, whole: nn.Module, decoder: nn.Module, report: dict[str, Any]
) -> None:
    """Refuse a model that was filled up with random numbers."""
    prefix = next(name for name, module in whole.named_modules() if module is decoder)
    missing = sorted(
        name
        for name in report["missing_keys"]
        if name.startswith(prefix) and not set(name.split(".")) & set(UNUSED)
    )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise AuditError(
            f"its weights lack {missing[0]}{more}: is it the whole model?",
            where=f"--model {files.name}",
        )
