"""What every page shares: its style and script, the policy under which a browser shows it, and how values are escaped.

Texts, labels, ids and reasons come from a corpus that nobody vouches for. Invariant: each of them passes `shown` and
the template's escaping, none stands inside a script or a style, and the page's policy lets no other script run.
"""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from candist_core.edges.report.words import count, dollars, percent, shortened, shown, size
from candist_core.verdict import sentence


def render_page(template: str, **values: Any) -> bytes:
    """A template of this folder with its values, a whole page, UTF-8."""
    style, script = _asset("page.css"), _asset("page.js")
    html = (
        _environment()
        .get_template(template)
        .render(policy=_policy(style, script), style=style, script=script, **values)
    )
    return html.encode()


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever a template prints passes here; markup of our own is no plain str.
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    environment.filters |= {
        "count": count, "percent": percent, "dollars": dollars, "size": size, "short": shortened,
        "sentence": sentence,
    }  # fmt: skip
    return environment


def _asset(name: str) -> Markup:
    """A file of this package, in which nothing of the corpus stands."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return Markup(text)  # nosec B704


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which nothing is fetched and only these two run, known by their hashes."""
    kinds = {"style-src": style, "script-src": script}
    hashed = [f"{kind} 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for kind, text in kinds.items()]
    return "; ".join(["default-src 'none'", *hashed, "base-uri 'none'", "form-action 'none'"])
