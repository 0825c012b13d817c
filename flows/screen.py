"""Text of a corpus made safe and readable on a terminal."""


def printable(text: str) -> str:
    r"""One line with a mark in place of every control character: those of a corpus must not reach the terminal.

    Example:
        >>> printable("a\x1b[31mred")
        'a�[31mred'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def visible(text: str) -> str:
    r"""The text with every character that could steer a terminal, or hide, written out; lines stay lines.

    Example:
        >>> print(visible("a\x1b[31mred\u202e\tb\nc"))
        a\x1b[31mred\u202e    b
        c
    """
    return "".join(_shown(character) for character in text.replace("\r\n", "\n"))


def _shown(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    if character == "\t":
        return "    "
    # Spaces of other widths, such as the one that does not break.
    if character.isspace() and ord(character) >= 0xA0 and character not in "\u2028\u2029":
        return " "
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
