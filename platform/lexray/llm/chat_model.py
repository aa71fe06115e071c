"""Language models: what a name means, what the folder says, and chats as the model's own tokens."""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from lexray.errors import LexrayError
from lexray.llm import hub

#: A chat: for each message its `role` and its `content`.
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model.

    Attributes
    ----------
    name : str
        As the user called it.
    path : str
        Folder with its settings and tokenizer on this machine.
    source : str
        What another machine finds it by: a local folder's path, the hub's name of any other.
    revision : str
        The hub's commit, or the sha256 of a folder's weights.
    on_hub : bool
    context : int
        Tokens that it takes.
    """

    name: str
    path: str
    source: str
    revision: str
    on_hub: bool
    context: int


@functools.lru_cache
def describe_language_model(name: str, revision: str | None = None) -> LanguageModel:
    """What a model's folder says of it; of a model on the hub the weights stay there.

    Parameters
    ----------
    name : str
        A folder, or a name on the hub.
    revision : str, optional
        The hub's branch, tag or commit.

    Raises
    ------
    LexrayError
        If there is no such model, or it is no causal language model.
    """
    folder, source = hub.locate(name, hub.SETTINGS_FILES, revision)
    config = hub.read_json(folder / "config.json", name, "language model")
    architectures = config.get("architectures") or []
    # Models that see images, too, keep what we want to know one level down.
    context = (config.get("text_config") or config).get("max_position_embeddings")
    if (
        not any(str(kind).endswith(("ForCausalLM", "ForConditionalGeneration")) for kind in architectures)
        or not context
    ):
        names = ", ".join(map(str, architectures)) or "nothing"
        raise LexrayError(f"text model {name}: not a causal language model, its config.json names {names}")
    commit = hub.commit(folder)
    return LanguageModel(
        name=name,
        path=str(folder),
        source=source,
        revision=commit or hub.sha256_of_weights(folder),
        on_hub=source == name and commit is not None,
        context=int(context),
    )


class ChatTokenizer:
    """A model's tokenizer and chat template. Safe to use from several threads; they take turns.

    Parameters
    ----------
    path : str
        Folder of the tokenizer.
    """

    def __init__(self, path: str) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        added = {str(token) for token in self._tokenizer.added_tokens_decoder.values()}
        self._signs = sorted(added | set(self._tokenizer.all_special_tokens), key=len, reverse=True)
        self._lock = threading.Lock()  # the tokenizer underneath refuses to be borrowed twice

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        if not texts:
            return []
        with self._lock:
            return [len(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def chat(self, messages: Messages) -> list[int]:
        """Token ids of a chat that waits for its answer.

        A model that thinks aloud is told not to: the answer's schema has no room for it. Texts cannot end a message
        or begin one: what looks like one of the template's own signs is spelled otherwise.
        """
        plain = [message | {"content": self._harmless(message["content"])} for message in messages]
        with self._lock:
            if not self._tokenizer.chat_template:  # a model that was never taught to chat
                text = "\n\n".join(message["content"] for message in plain) + "\n\n"
                return list(self._tokenizer(text)["input_ids"])
            filled = self._tokenizer.apply_chat_template(
                plain, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            return list(self._tokenizer(str(filled), add_special_tokens=False)["input_ids"])

    def _harmless(self, text: str) -> str:
        for sign in self._signs:
            text = text.replace(sign, f"{sign[0]} {sign[1:]}" if len(sign) > 1 else " ")
        return text
