"""A release: the immutable folder that goes into service.

It holds the autodecoder, the towers, the heads and the search index, and a manifest with the hash of every file.
Vectors of two releases never meet, so every answer of the service names the release that it came from.
"""

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from lexray.errors import LexrayError, first_line
from lexray.runtime.config import BaseConfig
from lexray.tables.files import sha256_of
from lexray.tables.provenance import PROVENANCE_FILE
from lexray.version import __version__

MANIFEST_FILE = "manifest.json"
#: Version of the folder's layout. A release of a newer one is refused.
RELEASE_FORMAT = 1
AUTODECODER_DIR, ALIGNMENT, HEADS, INDEX = "autodecoder", "alignment", "heads", "index"


class SentenceModelRef(BaseConfig):
    """The sentence model whose vectors the text tower was trained on; a service must load the very same."""

    name: str
    sha256: str = Field(description="of its weights")
    dimension: int
    query_prefix: str = Field("", description="put before a text that asks")


class ReleaseManifest(BaseConfig):
    """The manifest: what a release contains and was made from."""

    format: int = RELEASE_FORMAT
    release: str = Field("", description="the release's id: the first 12 digits of the sha256 of the rest")
    lexray: str = __version__
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    dimension: int = Field(description="numbers of a vector in the shared space")
    n_bands: int = Field(description="energy bands of the autodecoder")
    text_model: SentenceModelRef
    counts: dict[str, int] = Field(default_factory=dict, description="sources, and vectors by modality")
    inputs: dict[str, str] = Field(default_factory=dict, description="version of every input, by its configuration key")
    split_seed: int = Field(0, description="seed of the split whose train and val sources the heads saw")
    mlflow_runs: dict[str, str] = Field(default_factory=dict, description="run that made each input")
    files: dict[str, str] = Field(default_factory=dict, description="sha256 of every file, by its path in the folder")

    def identity(self) -> str:
        """Id that follows from the content, so that a changed manifest no longer answers to its name."""
        said = self.model_dump(mode="json", exclude={"release"})
        if not self.text_model.query_prefix:  # Lexray 0.1.0 did not record it
            del said["text_model"]["query_prefix"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Release:
    """A release that was opened, its files checked against the manifest.

    Attributes
    ----------
    path : Path
    manifest : ReleaseManifest
    """

    path: Path
    manifest: ReleaseManifest

    @property
    def id(self) -> str:
        """The release's name in `X-Lexray-Release`."""
        return self.manifest.release

    @classmethod
    def open(cls, path: str | Path) -> "Release":
        """Open a release and verify the hash of every file.

        Raises
        ------
        LexrayError
            If there is no release, a newer Lexray wrote it, or a file is missing, changed or not in the manifest; the
            message names the file.
        """
        folder = Path(path).expanduser().resolve()
        manifest = _read_manifest(folder)
        present = _files(folder)
        for name, digest in manifest.files.items():
            if name not in present:
                raise LexrayError(f"{folder / name}: this file of release {manifest.release} is missing")
            if sha256_of(present[name]) != digest:
                raise LexrayError(
                    f"{folder / name}: changed since release {manifest.release} was sealed; build the release again"
                )
        if unlisted := sorted(present.keys() - manifest.files.keys()):
            raise LexrayError(f"{folder / unlisted[0]}: this file is not part of release {manifest.release}")
        return cls(folder, manifest)


def _read_manifest(folder: Path) -> ReleaseManifest:
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        format_version = int(content.get("format", 0))
        if format_version > RELEASE_FORMAT:
            raise LexrayError(
                f"{path}: format {format_version}, this Lexray reads up to {RELEASE_FORMAT}; update Lexray"
            )
        manifest = ReleaseManifest.model_validate(content)
    except (FileNotFoundError, NotADirectoryError):
        raise LexrayError(
            f"{folder}: no release here ({MANIFEST_FILE} is missing); 'lexray index' builds one"
        ) from None
    except (ValueError, AttributeError, TypeError, ValidationError) as error:
        raise LexrayError(f"{path}: not a release's manifest: {first_line(error)}") from None
    if manifest.identity() != manifest.release:
        raise LexrayError(f"{path}: changed since release {manifest.release} was sealed; build the release again")
    return manifest


def create_draft(out: str | Path) -> Path:
    """New empty folder next to `out` in which a release is put together."""
    target = Path(out).expanduser().resolve()
    folder = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    return folder


def seal(folder: Path, manifest: ReleaseManifest) -> ReleaseManifest:
    """Hash every file of a draft, write its manifest, and give the release its id."""
    sealed = manifest.model_copy(update={"files": {name: sha256_of(path) for name, path in _files(folder).items()}})
    sealed = sealed.model_copy(update={"release": sealed.identity()})
    (folder / MANIFEST_FILE).write_text(json.dumps(sealed.model_dump(mode="json"), indent=1), encoding="utf-8")
    return sealed


def check_overwrite(out: str | Path, replace: bool) -> None:
    """Keep a release that is already there.

    Raises
    ------
    LexrayError
        If `out` exists and holds anything, unless `replace` is set and what it holds is a release.
    """
    target = Path(out).expanduser().resolve()
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    found = _read_manifest(target)  # whatever else lies there is not ours to delete, whatever was asked for
    if not replace:
        raise LexrayError(
            f"{target}: holds release {found.release}, made of other inputs, and a release never changes; "
            "choose another --out, or replace it with --set replace=true"
        )


def publish(folder: Path, out: str | Path, replace: bool = False) -> Release:
    """Move a sealed draft to its place by renaming, so that a reader sees a whole release or none.

    Raises
    ------
    LexrayError
        As `check_overwrite`.
    """
    target = Path(out).expanduser().resolve()
    check_overwrite(target, replace)
    if target.exists():
        replaced = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
        target.rename(replaced)
        folder.rename(target)
        shutil.rmtree(replaced)
    else:
        folder.rename(target)
    return Release(target, _read_manifest(target))


def _files(folder: Path) -> dict[str, Path]:
    """Files below a folder, by their path in it, without the manifest and the job's note of how it was made."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: path for name, path in found.items() if name != MANIFEST_FILE and not name.startswith(PROVENANCE_FILE)
    }
