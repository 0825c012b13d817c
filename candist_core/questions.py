"""What a teacher is asked about each text of a shard: the text cut to size, its examples, as many samples as wanted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from candist_core.ports import Request
from candist_core.prompt import Prompt, Turn
from candist_core.shorten import shorten, shorter
from candist_core.teacher_config import TeacherConfig

# No model's context is so short; texts below it are never asked again in a shorter form.
_MIN_CONTEXT_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Questions:
    """How texts become requests.

    Example:
        >>> from candist_core.prompt import compile_prompt
        >>> from candist_core.spec import TaskSpec
        >>> config = TeacherConfig(samples=3, temperature=1.0)
        >>> prompt = compile_prompt(TaskSpec(labels=[{"name": "spam"}, {"name": "ham"}]), config)
        >>> texts = pl.DataFrame({"doc_id": ["a"], "text": ["hello"]})
        >>> [[request.sample for request in requests] for _, requests in Questions(prompt, config).of(texts)]
        [[0, 1, 2]]
    """

    prompt: Prompt
    config: TeacherConfig

    def of(
        self, texts: pl.DataFrame, turns: Mapping[str, tuple[Turn, ...]] | None = None
    ) -> Iterator[tuple[str, Sequence[Request]]]:
        """The id of each text with its requests, one a sample.

        Args:
            texts: under `texts/1`.
            turns: examples of its own by doc_id.
        """
        limit, samples = self.config.max_text_tokens, range(self.config.samples)
        for doc_id, text in texts.iter_rows():
            cut = text if limit is None else shorten(text, limit, self.config.truncate)
            own = turns.get(doc_id, ()) if turns else ()
            yield doc_id, [self.prompt.request(doc_id, cut, sample, own) for sample in samples]

    def shorter(self, request: Request) -> Request | None:
        """The same question about half the text, for an endpoint that finds it too long; None for a short text."""
        if len(request.user) < _MIN_CONTEXT_BYTES or (text := shorter(request.text, self.config.truncate)) is None:
            return None
        return self.prompt.request(request.doc_id, text, request.sample, request.turns)
