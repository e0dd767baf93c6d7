"""With this directory in PYTHONPATH every interpreter knows `methods.death`, a solver for tests; see
tests/helpers/death.py.
"""

import sys
from importlib.util import spec_from_file_location
from pathlib import Path


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "methods.death":
            return spec_from_file_location(name, Path(__file__).parents[1] / "death.py")
        return None


sys.meta_path.append(Finder)
