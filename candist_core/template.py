"""The text of a row: one column, or a template of several such as `"{title}. {body}"`.

Field names are looked up as column names, letter by letter: there are no attributes, indices, conversions or formats.
"""

from dataclasses import dataclass
from string import Formatter

from candist_core.errors import SourceError


@dataclass(frozen=True, slots=True)
class Template:
    """What a row's text is made of: `literals[i]` stands before the value of column `fields[i]`, `tail` at the end."""

    literals: tuple[str, ...]
    fields: tuple[str, ...]
    tail: str = ""

    @property
    def column(self) -> str | None:
        """The one column whose value is the text as it stands; None for anything more."""
        return self.fields[0] if self.literals == ("",) and not self.tail else None


def parse_template(text: str) -> Template:
    """Read `source.text`: a column's name, or a template when it holds a brace; `{{` and `}}` are literal braces.

    Raises:
        SourceError: a brace that is not closed, no field, or a field that is more than a column's name.

    Example:
        >>> parse_template("{title}. {body}")
        Template(literals=('', '. '), fields=('title', 'body'), tail='')
    """
    if "{" not in text and "}" not in text:
        return Template(("",), (text,))
    literals, fields, literal = [], [], ""
    try:
        for before, field, spec, conversion in Formatter().parse(text):
            literal += before
            if field is None:
                continue
            if not field or spec or conversion:
                raise ValueError
            literals.append(literal)
            fields.append(field)
            literal = ""
    except ValueError as error:
        raise SourceError(
            f"source.text {text!r}", "braces that hold no plain column name", 'a template such as "{title}. {body}"',
            "write {{ and }} for literal braces",
        ) from error  # fmt: skip
    if not fields:
        raise SourceError(f"source.text {text!r}", "no column", 'a template such as "{title}. {body}"', "name a column")
    return Template(tuple(literals), tuple(fields), literal)
