"""Texts and numbers as a person reads them on a page. Escaping is the template's; this is about what is left to see."""

_JOINERS = "\n\t\u200c\u200d\u200e\u200f"
"""Not printable and yet part of honest text: line ends, and marks without which some scripts read wrongly."""


def shown(text: str) -> str:
    r"""Text in which no character acts unseen: controls and bidi overrides become the replacement mark.

    Example:
        >>> shown("pay\u202eyap\x00 \u0646\u200c\u0645")
        'pay\ufffdyap\ufffd \u0646\u200c\u0645'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in text)


def shortened(text: str, n: int) -> str:
    """At most n characters on one line, an ellipsis for what is left out.

    Example:
        >>> shortened("billing dispute", 8)
        'billing…'
    """
    line = shown(" ".join(text.split()))
    return line if len(line) <= n else line[: n - 1].rstrip() + "…"


def count(n: int) -> str:
    """A number of things.

    Example:
        >>> count(12345)
        '12,345'
    """
    return f"{n:,}"


def percent(share: float | None) -> str:
    """A share in per cent, to one decimal; never rounded to all or nothing.

    Example:
        >>> percent(0.9996), percent(1.0), percent(0.0004), percent(None)
        ('> 99.9 %', '100 %', '< 0.1 %', '-')
    """
    if share is None:
        return "-"
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if share >= 0.9995 else f"{100 * share:.1f} %"


def dollars(usd: float) -> str:
    """An amount; small ones with the digits that make them one.

    Example:
        >>> dollars(12.3), dollars(0.0123), dollars(0)
        ('$12.30', '$0.0123', '$0.00')
    """
    return f"${usd:.4f}" if 0 < usd < 0.1 else f"${usd:,.2f}"


def duration(seconds: float) -> str:
    """A time in its natural unit.

    Example:
        >>> duration(42), duration(600), duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(n_bytes: int) -> str:
    """A file's size.

    Example:
        >>> size(980), size(45_300), size(7_200_000)
        ('980 B', '45.3 kB', '7.2 MB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} B"
