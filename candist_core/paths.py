"""Paths inside a store: relative, with `/`, and never out of their folder; and URLs as they may be shown.

Paths come from manifests and listings that others wrote, so each is checked before it is joined to a root.
"""

from urllib.parse import urlsplit, urlunsplit

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


def public_uri(uri: str) -> str:
    """A URL bare of user, password, query and fragment, where secrets hide; a path as it is.

    Example:
        >>> public_uri("https://me@host/mails.csv?signature=x"), public_uri("inbox/what?.csv")
        ('https://host/mails.csv', 'inbox/what?.csv')
    """
    if "://" not in uri:
        return uri
    url = urlsplit(uri)
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
