"""Paths inside a store: relative, with `/`, and never out of their folder.

They come from manifests and listings that others wrote, so each is checked before it is joined to a root.
"""

from candist_core.errors import BadInputError, StoreError


def check_relative(path: str, error: type[BadInputError] = StoreError) -> str:
    """Return a path that stays below its root, or refuse it.

    Raises:
        StoreError: (or `error`) an absolute path, an empty or dotted part, a backslash, a control character.

    Example:
        >>> check_relative("tables/a.parquet")
        'tables/a.parquet'
    """
    if {"", ".", ".."} & set(path.split("/")) or "\\" in path or not path.isprintable():
        raise error(f"path {path!r}", "one that may leave its folder", "a relative path such as a/b", "correct it")
    return path
