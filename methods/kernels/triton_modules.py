"""The Triton kernels, where triton is installed: it comes with torch on Linux, and not elsewhere."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


@cache
def triton_import_module(name: str) -> ModuleType | None:
    """A module of `methods.kernels.gpu` by its full name; None without triton."""
    return None if find_spec("triton") is None else import_module(name)
