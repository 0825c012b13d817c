"""API keys from Prefect Secret blocks, read where they are needed and nowhere kept."""

from prefect.blocks.system import Secret

from candist_core.config import RunConfig
from candist_core.errors import TeacherError
from candist_core.stages.teachers import ApiKeys


def read_api_keys(config: RunConfig) -> ApiKeys:
    """The keys of all teachers that name a Secret block, by the block's name.

    Raises:
        TeacherError: no such block on this run's Prefect server, or no text in it.
    """
    blocks = {teacher.api_key_block for teacher in config.teachers if teacher.api_key_block is not None}
    return {block: _read(block) for block in sorted(blocks)}


def _read(block: str) -> str:
    thing, wanted = f"teacher.api_key_block {block!r}", "a Secret block with the API key"
    try:
        secret = Secret.load(block)
    except ValueError as error:
        step = "make it in the Prefect UI under Blocks, on the server of PREFECT_API_URL, or set teacher.api_key_env"
        raise TeacherError(thing, "no block of that name", wanted, step) from error
    # Prefect's own types leave open that this was called in a coroutine.
    value = secret.get() if isinstance(secret, Secret) else None
    if not isinstance(value, str) or not value.strip():
        raise TeacherError(thing, "no text in it", wanted, "save the key in it anew")
    return value
