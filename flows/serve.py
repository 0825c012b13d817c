"""One machine, no Docker: a Prefect server with its UI, a worker, the deployments registered, ready to click.

Everything is a child of the calling process, on loopback, and ends with it. What earlier runs did is in the server's
home, so the next start shows them too.
"""

import os
import signal
import socket
import time
from pathlib import Path

from rich.console import Console

from candist_core.config import RunConfig
from candist_core.errors import ConfigError, TransientError
from flows.registered import POOL, deployments_of, register
from flows.server import kept_server, quiet_environment
from flows.worker import started_worker

_POLL_S = 0.5


def serve(config: RunConfig, home: Path, port: int, console: Console) -> None:
    """Serve until Ctrl-C, or until the worker ends.

    Args:
        config: what the forms show at first.
        home: folder of the server's database and of the logs.
        port: of the UI and the API, on loopback; any free one for 0.
        console: where the address is printed once a click would start a run.

    Raises:
        ConfigError: the port is taken, or this folder is not the root of a checkout.
        TransientError: the server did not start, or the worker has ended.
    """
    os.environ.update(quiet_environment())
    entries = deployments_of(POOL)
    _check_port(port)
    # A service manager's way to say Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console.print("starting Prefect (half a minute)", highlight=False)
    try:
        with kept_server(home, port) as url:
            register(entries, config)
            with started_worker(POOL, home) as worker:
                said = f"Prefect UI  {url.removesuffix('/api')}/deployments\nlogs        {home}\nCtrl-C ends everything"
                console.print(said, highlight=False, soft_wrap=True, markup=False)
                while worker.poll() is None:
                    time.sleep(_POLL_S)
            raise TransientError("the worker has ended", f"its last words are in {home / 'worker.log'}; start again")
    except KeyboardInterrupt:
        console.print("ended; what runs have paid for is kept", highlight=False)


def _check_port(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise ConfigError(f"port {port}", "one that is taken", "a free one", "name another with --port") from error
