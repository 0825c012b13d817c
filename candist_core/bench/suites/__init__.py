"""Experiments by subject; each yields its tables, and `SUITES` names them."""

from collections.abc import Callable, Iterator, Mapping

from candist_core.bench.runs import Bench
from candist_core.bench.suites.failures import failures
from candist_core.bench.suites.labels import labels
from candist_core.bench.suites.quality import quality
from candist_core.bench.suites.sampling import active, kinds
from candist_core.bench.suites.sets import diversity, sizes
from candist_core.bench.suites.students import encoders, steps, students
from candist_core.bench.suites.teachers import noise, strength
from candist_core.bench.tables import Figures

SUITES: Mapping[str, Callable[[Bench], Iterator[Figures]]] = {
    "labels": labels,
    "students": students,
    "encoders": encoders,
    "steps": steps,
    "noise": noise,
    "sizes": sizes,
    "diversity": diversity,
    "strength": strength,
    "failures": failures,
    "quality": quality,
    "active": active,
    "kinds": kinds,
}
"""Every experiment by its name."""
