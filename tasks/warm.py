"""What a process imports while it has nothing better to do.

A worker that begins with its first shard imports for two seconds before it asks anything, and for three more before
that shard is checked, while all others wait for the verdict (measured: 7 s of a run of 75).
"""

import sys
import threading
import time
from importlib import import_module

SETTLED_S = 5.0
"""By then a run's processes have started, and one more import takes no core from another."""

_SWITCH_S = 0.0002


def warm_up(after_s: float) -> None:
    """Begin to import, in a thread, what annotating needs and, so many seconds later, its checks; come back at once.

    For processes whose other threads wait rather than import: an import that changes the filters of warnings, as Great
    Expectations' does, changes them for all.
    """
    threading.Thread(target=_import_all, args=(after_s,), name="candist imports", daemon=True).start()


def _import_all(after_s: float) -> None:
    import_module("tasks.annotate")
    time.sleep(after_s)
    # By now a shard asks, and it is not to wait for the interpreter at every answer.
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        import_module("candist_core.edges.judge").prepare()
    finally:
        sys.setswitchinterval(switch_s)
