"""Models by name: a folder on this machine, or the hub's."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lexray.errors import LexrayError
from lexray.tables.files import sha256_of

#: Nothing that has to be unpickled is fetched, nor the same weights in other frameworks' forms.
SETTINGS_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
ALL_FILES = (*SETTINGS_FILES, "*.safetensors")


def locate(name: str, files: Sequence[str] = ALL_FILES, revision: str | None = None) -> tuple[Path, str]:
    """Folder of a model on this machine, and what another machine finds it by.

    Parameters
    ----------
    name : str
        A folder, or a name on the Hugging Face hub, which is fetched unless HF_HUB_OFFLINE is set.
    files : sequence of str
        Patterns of those to fetch.
    revision : str, optional
        Branch, tag or commit of the hub's.

    Raises
    ------
    LexrayError
        If there is no such model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve(), str(folder.resolve())
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:  # no name on the hub is of this form
        raise LexrayError(f"text model {name}: there is no such folder; give a model's folder or its name on the hub")
    return download(name, files, revision), name


def download(name: str, files: Sequence[str] = ALL_FILES, revision: str | None = None) -> Path:
    """Folder with the files of a model on the hub; see `locate`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise LexrayError(
            f"text model {name}: no such folder here, and the hub{offline} does not give it "
            f"({type(error).__name__}); give a folder"
        ) from error


def commit(folder: Path) -> str | None:
    """The hub's commit that a folder is of; None where the hub did not write it."""
    return folder.name if folder.parent.name == "snapshots" else None


@functools.lru_cache
def sha256_of_weights(folder: Path) -> str:
    """Of all the safetensors in a folder.

    Raises
    ------
    LexrayError
        If there are none, or one is damaged.
    """
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
    digests = [sha256_of(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_json(path: Path, name: str, model_type: str) -> Any:
    """A file of a model's folder.

    Raises
    ------
    LexrayError
        If it is missing, so that the model is no `model_type`, or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise LexrayError(f"text model {name}: not a {model_type}, {path.name} is missing in {path.parent}") from None
    except ValueError as error:
        raise LexrayError(f"text model {name}: {path} is not JSON: {error}") from None
