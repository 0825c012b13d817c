"""Replies that a language model, a broken gateway or an enemy may send: generated, by kind, from one seed.

Where a kind leaves no doubt, a reply comes with the labels that must be read out of it.
"""

import json
import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from candist_core.candidates import Status
from candist_core.spec import TaskSpec

NAMES = (
    "slow_speed", "outage", "outage_planned", "billing dispute", "Größe", "C++", "C", "料金の問題", "خدمة سيئة",
    "R&D, other",
)  # fmt: skip
SPEC = TaskSpec(labels=[{"name": name} for name in NAMES])
UNKNOWN = (
    "weather",
    "langsam",
    "панне",
    "slow",
    "out",
    "planned",
    "C#",
    "label",
    "0",
    "outage_unplanned",
    "<b>x</b>",
    "🙂",
)
PROSE = (
    "Sure, here it is:", "I think this fits best.", "Hope it helps!", "Voilà la réponse :", "答えは次のとおりです。",
    "إليك الجواب",
    "Let me know if you need more.", "The text mentions a bill, and a router.", "Note [1] and {x}.", "**Result**",
)  # fmt: skip
INVISIBLE = "\u200b\u200d\u200e\u200f\u202a\u202e\u2066\u2069\ufeff\u00ad"
FINISH_REASONS = ("stop", "stop", "stop", "length", "", "tool_calls", "eos", "?")


@dataclass(frozen=True, slots=True)
class Generated:
    """One reply; `labels` and `status` are what must come of it, None where only the invariants are known."""

    kind: str
    reply: str
    finish_reason: str = "stop"
    labels: tuple[str, ...] | None = None
    status: Status | None = None


Draw = tuple[str, str, tuple[str, ...] | None, Status | None]
Generator = Callable[[random.Random], Draw]
KINDS: dict[str, tuple[Generator, int]] = {}
"""Generators by kind, each with its weight."""


def replies(n: int, seed: int) -> Iterator[Generated]:
    """n replies; every kind comes at least once in any few hundred."""
    rng = random.Random(seed)
    kinds = list(KINDS)
    weights = [weight for _, weight in KINDS.values()]
    for i in range(n):
        kind = kinds[i] if i < len(kinds) else rng.choices(kinds, weights)[0]
        yield Generated(kind, *KINDS[kind][0](rng))


def kind(weight: int = 10) -> Callable[[Generator], Generator]:
    def register(generator: Generator) -> Generator:
        KINDS[generator.__name__] = generator, weight
        return generator

    return register


def some(rng: random.Random) -> tuple[str, ...]:
    return tuple(rng.sample(NAMES, rng.randint(1, 4)))


def answer(rng: random.Random, names: Sequence[str]) -> str:
    """The asked form, as JSON libraries and models write it."""
    value = {"label": names[0]} if len(names) == 1 and rng.random() < 0.3 else {"candidates": list(names)}
    return json.dumps(value, ensure_ascii=rng.random() < 0.3, indent=rng.choice((None, None, 2)))


def respelled(rng: random.Random, name: str) -> str:
    """The same label in another case, with other blanks, in quotes, numbered or decomposed."""
    changes: tuple[Callable[[str], str], ...] = (
        str.upper, str.lower, str.title, lambda s: s.replace("_", " "), lambda s: s.replace(" ", "_"),
        lambda s: s.replace("_", "-"), lambda s: f" {s}\t", lambda s: f'"{s}"', lambda s: f"**{s}**",
        lambda s: f"`{s}`",
        lambda s: f"{rng.randint(1, 99)}. {s}", lambda s: f"- {s}", lambda s: f"{s} (most likely)",
        lambda s: f"{s}: as the text says", lambda s: f"{s}.", lambda s: unicodedata.normalize("NFD", s),
    )  # fmt: skip
    return rng.choice(changes)(name)


def sprinkled(rng: random.Random, name: str) -> str:
    """Invisible characters here and there."""
    at = rng.randint(0, len(name))
    return name[:at] + rng.choice(INVISIBLE) + name[at:]


def thoughts(rng: random.Random) -> str:
    """What a model thinks before it answers: labels, drafts of the answer, prose."""
    drafts = [*NAMES, *PROSE, answer(rng, some(rng)), "wait,", "\n", "\n\n", "Answer: outage", "- C++", "so not outage"]
    return " ".join(rng.choices(drafts, k=rng.randint(1, 12)))


@kind()
def asked_form(rng: random.Random) -> Draw:
    names = some(rng)
    return answer(rng, names), rng.choice(FINISH_REASONS), names, None


@kind()
def spelt_otherwise(rng: random.Random) -> Draw:
    names = some(rng)
    return json.dumps({"candidates": [respelled(rng, name) for name in names]}), "stop", names, None


@kind()
def invisible_characters(rng: random.Random) -> Draw:
    names = some(rng)
    return "\ufeff" + answer(rng, [sprinkled(rng, name) for name in names]) + "\u200e", "stop", names, None


@kind()
def unknown_and_repeated(rng: random.Random) -> Draw:
    names = some(rng)
    written = [*names, *rng.choices(names, k=rng.randint(0, 3))]
    for stranger in rng.choices(UNKNOWN, k=rng.randint(1, 4)):
        written.insert(rng.randint(0, len(written)), stranger)
    return json.dumps({"candidates": written}), "stop", tuple(n for n in dict.fromkeys(written) if n in NAMES), None


@kind()
def prose_around(rng: random.Random) -> Draw:
    names = some(rng)
    before, after = (" ".join(rng.choices(PROSE, k=rng.randint(0, 3))) for _ in range(2))
    return f"{before}\n{answer(rng, names)}\n{after}", "stop", names, None


@kind()
def code_fence(rng: random.Random) -> Draw:
    names = some(rng)
    return (
        f"{rng.choice(['', 'Here:'])}\n```{rng.choice(['', 'json', 'JSON'])}\n{answer(rng, names)}\n```",
        "stop",
        names,
        None,
    )


@kind()
def lines(rng: random.Random) -> Draw:
    names = some(rng)
    mark = rng.choice(["- ", "* ", "", "{i}. ", "{i}) ", "({i}) ", "• "])
    text = "\n".join(mark.format(i=i) + name for i, name in enumerate(names, start=1))
    return rng.choice(["", "", "Labels:\n", "Final answer:\n"]) + text, "stop", names, None


@kind()
def between_commas(rng: random.Random) -> Draw:
    names = tuple(name for name in some(rng) if "," not in name) or ("outage",)
    return (
        rng.choice(["", "Answer: ", "The labels are "]) + ", ".join(names) + rng.choice(["", "."]),
        "stop",
        names,
        None,
    )


@kind()
def tags(rng: random.Random) -> Draw:
    name = rng.choice(NAMES)
    tag = rng.choice(["answer", "b", "label", "li"])
    return f"<{tag}>{name}</{tag}>", "stop", (name,), None


@kind()
def nested(rng: random.Random) -> Draw:
    names = some(rng)
    text = answer(rng, names)
    for _ in range(rng.randint(1, 3)):
        value = json.loads(text)
        text = rng.choice([json.dumps({"result": value}), json.dumps({"answer": value}), json.dumps([value])])
    return rng.choice([text, json.dumps(text)]), "stop", names, None


@kind()
def scored(rng: random.Random) -> Draw:
    names = some(rng)
    scores = sorted((rng.random() for _ in names), reverse=True)
    entries = [{"label": name, "score": score} for name, score in zip(names, scores, strict=True)]
    forms = [{"candidates": entries}, entries, {"candidates": dict(zip(names, scores, strict=True))}]
    return json.dumps(rng.choice(forms)), "stop", names, None


@kind()
def python_literal(rng: random.Random) -> Draw:
    names = some(rng)
    return (
        repr(rng.choice([{"candidates": list(names)}, {"reasoning": "it's outage", "labels": [*names]}])),
        "stop",
        names,
        None,
    )


@kind()
def trailing_comma(rng: random.Random) -> Draw:
    names = some(rng)
    quoted = ", ".join(f'"{name}"' for name in names)
    return f'{{"reasoning": "they said "no"", "candidates": [{quoted},],}}', "stop", names, None


@kind()
def reasoning_key(rng: random.Random) -> Draw:
    names = some(rng)
    return json.dumps({"reasoning": thoughts(rng), "candidates": names}), "stop", names, None


@kind()
def think_block(rng: random.Random) -> Draw:
    names = some(rng)
    begin, end = rng.choice(
        [
            ("<think>", "</think>"), ("", "</think>"), ("<Thinking>\n", "\n</Thinking>"), ("[THINK]", "[/THINK]"),
            ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
            ("◁think▷", "◁/think▷"),
        ]
    )  # fmt: skip
    return f"{begin}{thoughts(rng)}{end}\n{answer(rng, names)}", "stop", names, None


@kind()
def endless_thoughts(rng: random.Random) -> Draw:
    return f"<think>{thoughts(rng)}", "length", (), Status.UNPARSED


@kind()
def cut_asked_form(rng: random.Random) -> Draw:
    """Names whose closing quote made it count, and no other."""
    names = some(rng)
    whole = json.dumps({"reasoning": 'may be outage, or "C"', "candidates": names}, ensure_ascii=False)
    at = rng.randrange(len(whole) - 1)
    is_named = [whole.index(f'"{name}"', whole.index("candidates")) + len(name) + 2 <= at for name in names]
    named = tuple(name for name, is_whole in zip(names, is_named, strict=True) if is_whole)
    return whole[:at], rng.choice(["length", "stop"]), named, None if named else Status.UNPARSED


@kind()
def cut_prose(rng: random.Random) -> Draw:
    name = rng.choice(["slow_speed", "billing dispute", "Größe"])
    return f"outage_planned\n{name[: rng.randint(1, len(name) - 1)]}", "length", ("outage_planned",), None


@kind()
def nothing_fits(rng: random.Random) -> Draw:
    forms = (
        '{"candidates": []}',
        '{"label": null}',
        "[]",
        '{"candidates": ["none"]}',
        "None",
        "null",
        '{"labels": [null]}',
    )
    text = rng.choice(forms)
    return rng.choice([text, f"```json\n{text}\n```" if text[0] in "[{" else text]), "stop", (), Status.ABSTAINED


@kind()
def strangers_only(rng: random.Random) -> Draw:
    written = rng.choices(UNKNOWN, k=rng.randint(1, 4))
    return rng.choice([json.dumps({"candidates": written}), "\n".join(written)]), "stop", (), Status.UNPARSED


@kind()
def refusals(rng: random.Random) -> Draw:
    if rng.random() < 0.5:
        return answer(rng, some(rng)), rng.choice(["content_filter", "refusal", "SAFETY"]), (), Status.REFUSED
    begin = rng.choice(
        ["I'm sorry, but", "I cannot help:", "I can\u2019t.", "Sorry, no;", "I apologize;", "As an AI model,"]
    )
    return f"{begin} {rng.choice(['this is harmful', 'outage is no topic for me', '...'])}", "stop", (), Status.REFUSED


@kind()
def other_languages(rng: random.Random) -> Draw:
    words = ["панне зв'язку", "断网", "انقطاع", "Ausfall", "lent", "खराब गति", "ความเร็วช้า", "정전"]
    return rng.choice(['{{"candidates": ["{}"]}}', "{}", "- {}"]).format(rng.choice(words)), "stop", (), Status.UNPARSED


@kind()
def random_json(rng: random.Random) -> Draw:
    def value(depth: int) -> object:
        pick = rng.random()
        if depth and pick < 0.35:
            keys = ["candidates", "label", "Labels", "score", "answer", "reasoning", "x", "", *NAMES[:3]]
            return {rng.choice(keys): value(depth - 1) for _ in range(rng.randint(0, 4))}
        if depth and pick < 0.7:
            return [value(depth - 1) for _ in range(rng.randint(0, 4))]
        atoms = [
            None,
            True,
            False,
            0,
            -1,
            10**400,
            1e308,
            float("nan"),
            float("inf"),
            "",
            *NAMES,
            *UNKNOWN,
            "\ud800",
            "\x00",
        ]
        return rng.choice(atoms)

    return json.dumps(value(rng.randint(0, 6)), ensure_ascii=rng.random() < 0.5), rng.choice(FINISH_REASONS), None, None


@kind(40)
def mutated(rng: random.Random) -> Draw:
    """A good reply after some accidents: characters lost, doubled, swapped for odd ones, pieces moved."""
    text = list(Generated("", *KINDS[rng.choice(_GOOD)][0](rng)).reply)
    odd = "{}[]\",:\\'\n<>/`*\x00\ud800\udfff\u202e\u200b\u2028\ufffd\U0010ffffé\x1b"
    for _ in range(rng.randint(1, 6)):
        at, to = (rng.randint(0, len(text)) for _ in range(2))
        accident = rng.randrange(5)
        if accident == 0:
            del text[at : at + rng.randint(1, 3)]
        elif accident == 1:
            text[at:at] = rng.choice(odd) * rng.randint(1, 3)
        elif accident == 2:
            text[at:at] = text[min(at, to) : max(at, to)]
        elif accident == 3:
            text[at : at + 1] = rng.choice(odd)
        else:
            del text[max(at, to) :]
    return "".join(text), rng.choice(FINISH_REASONS), None, None


@kind()
def spliced(rng: random.Random) -> Draw:
    """The beginning of one reply and the end of another."""
    one, other = (Generated("", *KINDS[rng.choice(_GOOD)][0](rng)).reply for _ in range(2))
    return one[: rng.randint(0, len(one))] + other[rng.randint(0, len(other)) :], rng.choice(FINISH_REASONS), None, None


@kind(20)
def noise(rng: random.Random) -> Draw:
    n = rng.randint(0, 300)
    if rng.random() < 0.3:
        data = rng.randbytes(n)
        return data.decode(rng.choice(["utf-8", "latin-1", "utf-16-le"]), "replace"), "stop", None, None
    alphabets = (
        '{}[]",:\\ \n', "abc ,;|.-_()<>/", "".join(NAMES) + '"{}[],\n', "\ud800\udbff\udc00\udfff\x00\x1b\u2028\x85",
        "".join(map(chr, range(0x600, 0x700))), "".join(map(chr, range(0x1F300, 0x1F700))),
        "\u0301\u0327\u200d" + INVISIBLE,
    )  # fmt: skip
    return "".join(rng.choices(rng.choice(alphabets), k=n)), rng.choice(FINISH_REASONS), None, None


@kind()
def deep(rng: random.Random) -> Draw:
    n = rng.choice([10, 100, 480, 990, 3000])
    opening, closing = rng.choice(
        [("[", "]"), ('{"candidates":', "}"), ('{"x":[', "]}"), ('[{"label":', "}]"), ("(", ")")]
    )
    core = rng.choice(['"outage"', "", '["C"]', "1", answer(rng, some(rng))])
    return opening * n + core + closing * rng.choice([n, n, n - 1, 0]), rng.choice(FINISH_REASONS), None, None


@kind()
def numbers(rng: random.Random) -> Draw:
    digits = rng.choice(["9" * rng.randint(1, 6000), "1e999999", "-0.0", "NaN", "-Infinity", "1" + "0" * 400, "0x10"])
    forms = ("{}", '{{"candidates": [{}]}}', '{{"label": "outage", "score": {}}}', '{{"candidates": {{"outage": {}}}}}')
    return rng.choice(forms).format(digits), "stop", None, None


_GOOD = (
    "asked_form", "spelt_otherwise", "prose_around", "code_fence", "lines", "scored", "nested", "reasoning_key",
    "think_block", "python_literal", "between_commas", "tags",
)  # fmt: skip
