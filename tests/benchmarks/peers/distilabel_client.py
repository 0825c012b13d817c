"""distilabel by the clock: a pipeline of one `TextGeneration`. See `stopwatch` for what goes in and comes out.

It sends a batch and waits for all of its replies, so its batch size is what is in flight. Each run starts processes and
looks every 2.5 s whether they are up.
"""

# Neither the peer nor this folder is on the path where mypy runs.
# mypy: disable-error-code="import-not-found"

from stopwatch import Job, is_readable, time_client


def label(job: Job) -> int:
    """Label a job's texts; the number of rows with a readable reply."""
    from distilabel.models.llms import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    sampling = dict(job.sampling)
    llm = OpenAILLM(
        model=job.model,
        base_url=job.url,
        api_key="none",
        generation_kwargs={
            "max_new_tokens": sampling.pop("max_tokens"),
            **sampling,
            # Its own response_format holds strings alone, no schema.
            "extra_body": {"response_format": job.response_format},
        },
    )
    with Pipeline(name="peer", cache_dir=job.folder) as pipeline:
        rows = LoadDataFromDicts(data=[{"instruction": text} for text in job.texts], batch_size=job.in_flight)
        rows.connect(TextGeneration(llm=llm, system_prompt=job.system, input_batch_size=job.in_flight))
    annotated = pipeline.run(use_cache=False)
    return sum(map(is_readable, annotated["default"]["train"]["generation"]))


if __name__ == "__main__":
    time_client(label, {"DISTILABEL_LOG_LEVEL": "WARNING"})
