"""The version of this code, as the installed package tells it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("candist")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+source"
