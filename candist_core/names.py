"""Which label a name stands for: in any case, numbered, with spaces for underscores, where that tells labels apart.

And what is said of a label: that it applies, how much, or that it does not.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

MAX_NAME = 1_000
"""Characters of the longest name that is looked up loosely."""

_NONE = frozenset({"none", "null", "n/a", "no label"})
_NO, _YES = _NONE | {"no", "false", "n", "unlikely"}, frozenset({"yes", "true", "y", "likely"})
_NUMBER = re.compile(r"([+-]?(?:\d{1,6}(?:\.\d{0,20})?|\.\d{1,20}))\s?(%?)", re.ASCII)
# What may follow a no that ends there: "outage: no service" tells of an outage, and "0.9" is no zero.
_NO_BEHIND = re.compile(
    r"(?:[^()]{0,200}\)\s?:)?\W*(?:no(?: label)?|false|n(?:/a)?|none|null|unlikely|0(?:\.0{1,20})?%?)"
    r"[\s*_`'\"]*(?:$|[,;)(|]|\.(?!\d)|[-\u2013\u2014]\s|(?<=\s)(?:and|but)\b)"
)
_NUMBERING = re.compile(r"^\s*(?:[-*\u2022#>]+|\(?\d{1,3}[.):]|\(?[a-z][.)])\s+", re.IGNORECASE)
# What may stand around the words of a name. Not + # % < >, since "C" is not "C++" and "<5" is not ">5".
_BLANKS = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f_\-.,;:!?&'\"`*()\[\]{}/\\|~"
    r"\u00a1\u00ab\u00b4\u00b7\u00bb\u00bf\u060c\u061b\u061f\u2010-\u201f\u2022\u2212\u3001\u3002\u300c-\u300f\u3010\u3011]+"
)
_MINUS = re.compile(r"(?<!\w)[-\u2212](?=\d)")
# Soft hyphen, zero-width and bidirectional marks, variation selectors, byte order mark.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe0e\ufe0f\ufeff]")


class Names(NamedTuple):
    """Ways to write the labels: as they are, in any case, and loosely where that tells them apart."""

    exact: frozenset[str]
    folded: dict[str, str]
    loose: dict[str, str]

    def resolve(self, name: str) -> str | None:
        """The label that a name stands for."""
        if name in self.exact:
            return name
        if (label := self.folded.get(name.strip().casefold())) is not None:
            return label
        bare = _NUMBERING.sub("", name)
        # In the order of likelihood, each once: looking a name up costs microseconds.
        for spelling in dict.fromkeys((name, bare, bare.partition("(")[0], bare.partition(":")[0])):
            if len(spelling) <= MAX_NAME and (label := self.loose.get(loosen(spelling))) is not None:
                return label
        return None

    def denies(self, name: str) -> bool:
        """Whether a name that stands for a label says itself that the label is not meant: "spam: no", "spam (no)"."""
        if name in self.exact or not (":" in name or "(" in name) or name.strip().casefold() in self.folded:
            return False
        bare = _NUMBERING.sub("", name)
        if any(len(spelling) <= MAX_NAME and loosen(spelling) in self.loose for spelling in (name, bare)):
            return False
        for mark in "(:":
            label, _, behind = bare.partition(mark)
            if len(label) <= MAX_NAME and loosen(label) in self.loose:
                return _NO_BEHIND.match(behind.casefold()) is not None
        return False


@lru_cache(maxsize=64)
def names_of(labels: tuple[str, ...]) -> Names:
    """All ways to write these labels that tell one from another.

    Example:
        >>> names = names_of(("slow_speed", "outage"))
        >>> names.resolve("Slow speed"), names.resolve("2. outage"), names.resolve("weather")
        ('slow_speed', 'outage', None)
    """
    loose: dict[str, list[str]] = {}
    for label in labels:
        loose.setdefault(loosen(label), []).append(label)
    # Labels that differ only by punctuation are told apart by their exact spelling alone.
    one_way = {key: found[0] for key, found in loose.items() if key and len(found) == 1}
    return Names(frozenset(labels), {label.strip().casefold(): label for label in labels}, one_way)


def loosen(name: str) -> str:
    """The words of a name in lower case, without what stands around and between them."""
    seen = _INVISIBLE.sub("", unicodedata.normalize("NFKC", name)).casefold()
    # A sign is kept as a word: with labels -1 and +1 a plain 1 is neither.
    return " ".join(_BLANKS.sub(" ", _MINUS.sub(" minus ", seen)).lstrip(" #").split())


def says_none(name: str) -> bool:
    """Whether the teacher wrote in place of a label that no label fits."""
    bare = name.strip()
    return not bare or bare.rstrip(".").casefold() in _NONE


def weight_of(word: str) -> bool | float | None:
    """What a word says of the label that it stands by: a number, a plain yes or no, None where it is none of these.

    Example:
        >>> weight_of("Likely."), weight_of("no"), weight_of("0.7"), weight_of("70 %"), weight_of("low")
        (True, False, 0.7, 0.7, None)
    """
    bare = word.strip().rstrip(".!").casefold()
    if number := _NUMBER.fullmatch(bare):
        return float(number[1]) / (100 if number[2] else 1)
    return True if bare in _YES else False if bare in _NO else None
