"""Candidate scores from the probabilities of the tokens that spell a label.

A label's score is the product over its tokens, exp Σ log p: by the chain rule the probability that the teacher writes
this label here, given the prompt and all it wrote before. The geometric mean of the tokens would be no probability, and
would rate a label higher for a long, predictable ending. Only the first score sets a label against all others; a later
one is for a label after those before it, so the scores of a set need not sum to one. A label that begins another one
("card", "card lost") shares the probability of its words with the longer one, since the quote that ends it is often one
token with what follows.

Invariant: a reply that cannot be laid beside its tokens has no scores, never wrong ones.

Source:
    Jiang et al., How Can We Know When Language Models Know?, TACL 2021: the product over an answer's tokens as the
    confidence in it.
"""

import json
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from candist_core.prompt import REASONING

Span = tuple[int, int]

# OpenAI writes a token that is a part of a character as the bytes it holds.
_BYTES_TOKEN = re.compile(r"(?:bytes:)?((?:\\x[0-9a-fA-F]{2})+)")
_IS_KEY = re.compile(r"\s*:")
_AFTER_REASONING = re.compile(rf'"{REASONING}"\s*:\s*$')
_MAX_KEY_CHARS = 40
# OpenAI's value for a token beyond the most likely ones; other servers go lower.
_LEAST_LOGPROB = -9999.0
# Rounding on the endpoint's side; what lies higher is no logarithm of a probability.
_MAX_LOGPROB = 1e-3


def scores_from_logprobs(reply: str, logprobs: str, labels: Sequence[str]) -> tuple[float, ...] | None:
    """The probability of each named label, as its tokens have it.

    Args:
        reply: the reply's text.
        logprobs: its tokens, a JSON list of [token, log-probability]; tokens before and after the text do no harm.
        labels: the labels that were read out of the reply, in their order.

    Returns:
        A score in [0, 1] for each label; None where the tokens are no such list, are not those of the reply, or a label
        does not stand in it.

    Example:
        >>> tokens = [['{"', 0.0], ["label", 0.0], ['":"', 0.0], ["card", -0.5], ["_lost", -0.25], ['"}', -0.1]]
        >>> scores_from_logprobs('{"label":"card_lost"}', json.dumps(tokens), ["card_lost"]) == (math.exp(-0.75),)
        True
    """
    tokens, spans = _read(logprobs), _label_spans(reply, labels)
    if tokens is None or spans is None:
        return None
    starts = _token_starts(reply, [token for token, _ in tokens])
    if starts is None:
        return None
    values = [value for _, value in tokens]
    return tuple(math.exp(sum(values[_tokens_over(reply, span, starts)])) for span in spans)


def _read(logprobs: str) -> list[tuple[str, float]] | None:
    try:
        pairs = json.loads(logprobs)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, list):
        return None
    tokens = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            return None
        token, value = pair
        if not isinstance(token, str) or not isinstance(value, int | float) or isinstance(value, bool):
            return None
        # False for NaN, too.
        if not value <= _MAX_LOGPROB:
            return None
        tokens.append((token, float(min(0.0, max(value, _LEAST_LOGPROB)))))
    return tokens


def _token_starts(reply: str, tokens: Sequence[str]) -> list[int] | None:
    """Where each token starts, in bytes of the reply; None where the tokens do not spell it."""
    target = reply.encode("utf-8", "surrogatepass")
    for spell in (_as_written, _as_bytes):
        pieces = [spell(token) for token in tokens]
        # The last place: what a model thinks before it answers may quote the answer.
        if (at := b"".join(pieces).rfind(target)) >= 0:
            return [n_bytes - at for n_bytes in accumulate(map(len, pieces[:-1]), initial=0)]
    return None


def _as_written(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")


def _as_bytes(token: str) -> bytes:
    found = _BYTES_TOKEN.fullmatch(token)
    return bytes.fromhex(found[1].replace("\\x", "")) if found else _as_written(token)


def _tokens_over(reply: str, span: Span, starts: Sequence[int]) -> slice:
    """The tokens that hold any part of a span of characters."""
    first, end = (len(reply[:place].encode("utf-8", "surrogatepass")) for place in span)
    # Servers that cannot show a part of a character give empty tokens in front of the one that completes it.
    low = bisect_left(starts, first)
    if low == len(starts) or starts[low] > first:
        low -= 1
    return slice(low, bisect_left(starts, end))


def _label_spans(reply: str, labels: Sequence[str]) -> list[Span] | None:
    """Where each label stands in the reply, in characters; None where one does not."""
    found: dict[str, Span] = {}
    # The longest first, so that "card" is not found within "card lost".
    for label in sorted(labels, key=len, reverse=True):
        span = _literal_span(reply, label) or _words_span(reply, label, found.values())
        if span is None:
            return None
        found[label] = span
    return [found[label] for label in labels]


def _literal_span(reply: str, label: str) -> Span | None:
    """The label as a JSON string that is a value, not a key and not all of the reasoning."""
    json_start = min((at for at in (reply.find("{"), reply.find("[")) if at >= 0), default=len(reply))
    for literal in dict.fromkeys((json.dumps(label, ensure_ascii=False), json.dumps(label))):
        at = reply.find(literal, json_start)
        while at >= 0:
            end = at + len(literal)
            before = reply[max(0, at - _MAX_KEY_CHARS) : at]
            if not (before.endswith("\\") or _IS_KEY.match(reply, end) or _AFTER_REASONING.search(before)):
                return at + 1, end - 1
            at = reply.find(literal, at + 1)
    return None


def _words_span(reply: str, label: str, taken: Iterable[Span]) -> Span | None:
    """The last place of the label's words, in any case and with anything but letters and digits between them."""
    words = re.findall(r"[^\W_]+", label)
    pattern = r"[\W_]++".join(map(re.escape, words)) if words else re.escape(label)
    span = None
    for match in re.finditer(rf"(?<![^\W_]){pattern}(?![^\W_])", reply, re.IGNORECASE):
        if all(match.end() <= start or match.start() >= end for start, end in taken):
            span = match.span()
    return span
