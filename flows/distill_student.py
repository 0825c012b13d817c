"""The training of a student as a flow of its own, for a deployment on a pool of machines with a GPU.

Its parameters are plain JSON: the run's configuration, and where in the store the inputs lie. Store and pool must be
shared: what it trains goes into the store, and whoever waits for it finds it there.
"""

from prefect import flow

from candist_core.config import RunConfig
from candist_core.stages.lesson import read_inputs
from flows.progress import Watch
from tasks.distill import distill_student as train
from tasks.policy import Sealed
from tasks.progress import listen


@flow(name="distill-student", persist_result=False)
def distill_student(config: RunConfig, inputs: str) -> str:
    """Train the student of a run.

    Args:
        config: of the run that waits for the student.
        inputs: path in its store, as `candist_core.stages.lesson.keep_inputs` gave it.

    Returns:
        The student's key.

    Raises:
        StoreError: no such inputs.
        StudentError: no such weights or device, nothing to learn from.
    """
    read = read_inputs(config, inputs)
    n_seen = config.student.passes * sum(report.annotations.rows for report in read.annotated)
    with Watch() as watch:
        for_watch = (listen(watch.hear), listen(lambda progress: watch.tick()))
        try:
            with watch.stage("distill", n_seen, "reads"):
                return train(config, Sealed(read)).key
        finally:
            for stop in for_watch:
                stop()
