"""Every error survives the way home from another process."""

import pickle

import pytest

from candist_core import errors
from candist_core.errors import CandistError


def every_class(root=CandistError):
    for child in root.__subclasses__():
        yield child
        yield from every_class(child)


ARGUMENTS = {
    "BadInputError": ("thing", "this", "that", "do it"),
    "ForbiddenError": ("thing", "this", "that", "do it", "detail"),
    "TransientError": ("what", "detail", 1.5),
    "ContractError": ("labels/1", "a", "b"),
    "EmptyCandidateSetError": (3, 2),
    "RowError": ("reason", "detail"),
    "GateError": ("annotate", ("a: observed 1, wanted 0",)),
    "BudgetError": (1.0, 2.0, 30, 0.5),
    "TerminalError": ("words",),
}


def arguments(kind):
    return next(ARGUMENTS[base.__name__] for base in kind.__mro__ if base.__name__ in ARGUMENTS)


@pytest.mark.parametrize("kind", sorted(set(every_class()), key=lambda kind: kind.__name__))
def test_an_error_is_rebuilt_from_its_arguments_with_its_message(kind):
    error = kind(*arguments(kind))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(type(error)(*error.args)) == str(error)
    assert str(error)


def test_the_picture_in_the_module_names_every_error():
    own = [kind.__name__ for kind in every_class() if kind.__module__ == errors.__name__]
    assert len(own) > 10
    assert [name for name in own if name not in (errors.__doc__ or "")] == []


def test_terminal_and_transient_do_not_mix():
    assert not issubclass(errors.TransientError, errors.TerminalError)
    assert issubclass(errors.RateLimitedError, errors.TransientError)
