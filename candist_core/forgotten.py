"""Rows that are to be forgotten: a list that names them by keyed hashes only, obeyed wherever rows come in.

```
forgotten/<run>/key.json          the key of the hashes, made once
               /<token>.json      one decision: hashes of ids, or of texts
```

A row is known by its id where the corpus has ids, else by its text; an id that candist made of a text means that text.
The key keeps the hashes from being looked up in someone's tables; whoever reads it can still try ids one by one.
Invariant: no id and no text stands in the list.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b

import polars as pl

from candist_core.manifest import decode_as
from candist_core.ports import TableStore
from candist_core.reports import Report

_CONTRACT, _KEY = "forgotten/1", "forgotten-key/1"
_CONTENT_ID = re.compile(r"([0-9a-f]{32})(-\d+)?")


class ForgetList(Report):
    """One decision: rows with such an id or text are left out.

    `also` are other ids under which tables know such a text; rows of the corpus are not told by these.
    """

    contract: str = _CONTRACT
    ids: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


class _Key(Report):
    contract: str = _KEY
    key: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """All that a run is to forget, as keyed hashes."""

    key: bytes
    ids: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether there is anything to forget."""
        return bool(self.ids or self.texts or self.also)

    @property
    def state(self) -> list[str]:
        """What of it changes what is read of a corpus."""
        return sorted([*self.ids, *self.texts])

    def is_source_row(self, rows: pl.DataFrame) -> pl.Series:
        """Which rows of the corpus are to be left out; doc_id is null where the corpus has none.

        Example:
            >>> forgotten = with_rows(Forgotten(b"k"), ids=["r1"])
            >>> forgotten.is_source_row(pl.DataFrame({"doc_id": ["r1", "r2"], "text": ["t", "t"]})).to_list()
            [True, False]
        """
        by_id = _marked(rows["doc_id"], lambda value: _hash(self.key, "id", value) in self.ids, self.ids)
        return by_id | self.is_text(rows["text"])

    def is_text(self, texts: pl.Series) -> pl.Series:
        """Which texts are to be forgotten wherever they stand."""
        return _marked(texts, lambda value: _hash(self.key, "text", content_id(value)) in self.texts, self.texts)

    def is_id(self, ids: pl.Series) -> pl.Series:
        """Which rows of a table of candist's are about something to be forgotten, by their ids."""
        known = self.ids | self.also

        def is_gone(value: str) -> bool:
            if _hash(self.key, "id", value) in known:
                return True
            made = _CONTENT_ID.fullmatch(value)
            return made is not None and (
                _hash(self.key, "text", made[1]) in self.texts or _hash(self.key, "id", made[1]) in self.also
            )

        return _marked(ids, is_gone, known | self.texts)


def content_id(text: str) -> str:
    """The id that candist makes of a text: BLAKE2b-128, 32 hex digits."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def with_rows(
    forgotten: Forgotten, ids: Iterable[str] = (), texts: Iterable[str] = (), also: Iterable[str] = ()
) -> Forgotten:
    """The same with further rows: ids, texts, and ids that tables alone are searched for."""
    key = forgotten.key
    return Forgotten(
        key,
        forgotten.ids | {_hash(key, "id", one) for one in ids},
        forgotten.texts | {_hash(key, "text", content_id(one)) for one in texts},
        forgotten.also | {_hash(key, "id", one) for one in also},
    )


def with_content_ids(forgotten: Forgotten, ids: Iterable[str]) -> Forgotten:
    """The same with the texts of which such ids were made; all their copies with them."""
    made = {match[1] for one in ids if (match := _CONTENT_ID.fullmatch(one))}
    texts = forgotten.texts | {_hash(forgotten.key, "text", one) for one in made}
    return Forgotten(forgotten.key, forgotten.ids, texts, forgotten.also)


def read_forgotten(store: TableStore, run: str) -> Forgotten:
    """What runs of a name are to forget; nothing where nobody asked for it.

    Raises:
        ContractError: the list was written by a later candist: nothing may be read of a corpus without it.
    """
    folder = _folder(run)
    paths = store.list_paths(folder)
    if f"{folder}/key.json" not in paths:
        return Forgotten(b"")
    key = decode_as(_Key, _KEY, store.read_bytes(f"{folder}/key.json"), f"{folder}/key.json").key
    lists = [decode_as(ForgetList, _CONTRACT, store.read_bytes(path), path) for path in paths if "/key." not in path]
    return Forgotten(
        bytes.fromhex(key),
        frozenset(one for each in lists for one in each.ids),
        frozenset(one for each in lists for one in each.texts),
        frozenset(one for each in lists for one in each.also),
    )


def open_forgotten(store: TableStore, run: str) -> Forgotten:
    """The same, with a key that was made if there was none yet; of many at once all get the same."""
    path = f"{_folder(run)}/key.json"
    store.create_bytes(path, _Key(key=secrets.token_hex(32)).model_dump_json().encode())
    return read_forgotten(store, run)


def keep_forgotten(store: TableStore, run: str, known: Forgotten, wanted: Forgotten) -> None:
    """Write down what of `wanted` is not known yet."""
    more = {name: tuple(sorted(getattr(wanted, name) - getattr(known, name))) for name in ("ids", "texts", "also")}
    if any(more.values()):
        # A file for each decision, so that two at once lose nothing.
        data = ForgetList(**more).model_dump(mode="json")
        store.write_bytes(f"{_folder(run)}/{secrets.token_hex(8)}.json", json.dumps(data).encode())


def _folder(run: str) -> str:
    return f"forgotten/{run}"


def _hash(key: bytes, kind: str, value: str) -> str:
    return blake2b(f"{kind}\0{value}".encode("utf-8", "surrogatepass"), digest_size=16, key=key).hexdigest()


def _marked(values: pl.Series, is_gone: Callable[[str], bool], any_of: frozenset[str]) -> pl.Series:
    if not any_of:
        return pl.repeat(False, len(values), eager=True)
    return pl.Series([value is not None and is_gone(value) for value in values], dtype=pl.Boolean)
