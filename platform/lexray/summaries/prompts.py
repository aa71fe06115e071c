"""What a language model is asked: one template per file, known by the hash of what is in it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from lexray.errors import ConfigError
from lexray.llm.chat_model import Messages
from lexray.summaries.schema import MAX_QUANTITIES, SCHEMA

#: Between what the model is (the system's message) and what it is to do (the user's).
_DIVIDER = "\n---\n"
#: Characters of the findings that a second attempt is told; the room is kept free in every prompt.
MAX_FEEDBACK_CHARACTERS = 800


@dataclass(frozen=True)
class PromptTemplates:
    """Three templates in the notation of `string.Template`.

    Attributes
    ----------
    summary : str
        Papers to a description; takes $papers, $words, $quantities, $findings.
    merge : str
        Partial descriptions to one; takes the same.
    again : str
        What is put for $findings in a second attempt; takes $findings.
    """

    summary: str
    merge: str
    again: str

    @classmethod
    def read(cls, folder: str | None = None) -> "PromptTemplates":
        """Templates of a folder with ``summary.md``, ``merge.md`` and ``again.md``; ours by default.

        Raises
        ------
        ConfigError
            If one is missing, or does not take what it has to.
        """
        place = resources.files(__package__) / "templates" if folder is None else Path(folder).expanduser()
        texts = {}
        for name, slots in (("summary", ("papers", "findings")), ("merge", ("papers", "findings")), ("again", ())):
            try:
                texts[name] = (place / f"{name}.md").read_text(encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"prompts: {place}/{name}.md: {error.strerror}") from None
            template = Template(texts[name])
            known = {"papers", "words", "quantities", "findings"}
            if not template.is_valid() or not set(slots) <= set(template.get_identifiers()) <= known:
                taken = ", ".join(f"${slot}" for slot in sorted(known))
                raise ConfigError(f"prompts: {place}/{name}.md has to hold ${', $'.join(slots)}, and may hold {taken}")
        return cls(**texts)

    @property
    def sha256(self) -> str:
        """Of the templates and of the answer's schema."""
        return hashlib.sha256("\0".join((self.summary, self.merge, self.again, SCHEMA)).encode()).hexdigest()

    def messages(self, template: str, papers: str, words: int, problems: Sequence[str] = ()) -> Messages:
        """Messages of a chat.

        Parameters
        ----------
        template : str
            `summary` or `merge`.
        papers : str
            What the template is about.
        words : int
            Most that the summary may have.
        problems : sequence of str
            What was wrong with a first answer, as far as there is room.
        """
        listed = "\n".join(f"- {finding}" for finding in problems)[:MAX_FEEDBACK_CHARACTERS]
        feedback = Template(self.again).substitute(findings=listed) if problems else ""
        values = {"papers": papers, "words": words, "quantities": MAX_QUANTITIES, "findings": feedback}
        # Divided before it is filled: a paper may hold a divider, too.
        system, _, user = template.rpartition(_DIVIDER)
        filled = [("system", Template(system).substitute(values)), ("user", Template(user).substitute(values))]
        return [{"role": role, "content": text.strip()} for role, text in filled if text.strip()]
