"""Where this machine keeps what is not yet in the store: paid replies, and the training of a student."""

import os
from pathlib import Path

from candist_core.config import StoreConfig
from candist_core.edges.store import Store


def spool_dir(store: Store, settings: StoreConfig) -> Path:
    """The folder of the settings, one inside a local store, or one in the user's cache; it outlives the process."""
    if settings.spool_dir:
        return Path(settings.spool_dir)
    if store.local_root is not None:
        return store.local_root / "spool"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "candist" / "spool"
