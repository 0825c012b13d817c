"""bespokelabs-curator by the clock: one `curator.LLM` over all texts. See `stopwatch` for what goes in and comes out.

Two settings are not its defaults. Its rate limits are out of reach, since by default it paces itself at a few hundred
requests a minute where the endpoint names no limit; and rows may fail, since by default one lost row fails the run.
"""

# Neither the peer nor this folder is on the path where mypy runs.
# mypy: disable-error-code="import-not-found"

import importlib.util
from pathlib import Path
from typing import Any

from stopwatch import Job, is_readable, time_client

_OUT_OF_REACH = 10**9


def label(job: Job) -> int:
    """Label a job's texts; the number of rows with a readable reply."""
    from bespokelabs import curator

    class Annotator(curator.LLM):  # type: ignore[misc]
        def prompt(self, row: dict[str, str]) -> str:
            return row["text"]

        def parse(self, row: dict[str, str], reply: str) -> dict[str, Any]:
            return row | {"reply": reply}

    annotator = Annotator(
        job.model,
        backend="openai",
        system_prompt=job.system,
        generation_params={**job.sampling, "response_format": job.response_format},
        backend_params={
            "base_url": job.url,
            "api_key": "none",
            "max_concurrent_requests": job.in_flight,
            "max_requests_per_minute": _OUT_OF_REACH,
            "max_tokens_per_minute": _OUT_OF_REACH,
            "require_all_responses": False,
        },
    )
    annotated = annotator([{"text": text} for text in job.texts], working_dir=str(job.folder))
    return sum(map(is_readable, annotated.dataset["reply"]))


def _vocabulary() -> Path:
    """Where litellm's wheel carries the vocabulary that tiktoken would fetch; tiktoken checks its hash."""
    litellm = importlib.util.find_spec("litellm")
    assert litellm is not None, "curator depends on litellm"
    assert litellm.origin is not None, "litellm is a package of files"
    return Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"


if __name__ == "__main__":
    environment = {
        "CURATOR_DISABLE_CACHE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "TELEMETRY_ENABLED": "false",
        "TIKTOKEN_CACHE_DIR": str(_vocabulary()),
    }
    time_client(label, environment)
