"""What has no run in a paper's table: which methods and schemes, and the command that would make the runs."""

from collections.abc import Sequence

import numpy as np

from harness.foundation.text import visible
from harness.records.naming import method_rank
from harness.reporting.labels import FLOAT
from harness.reporting.papers.parts import Column, Part
from harness.reporting.papers.run_command import command, is_scheme
from harness.reporting.papers.specs import Columns, Lines, Spec, Where


class Gaps:
    """What one model lacks."""

    def __init__(self, part: Part, spec: Spec):
        self.part, self.spec = part, spec
        self._known_gaps: dict[tuple[int, str], list[Columns]] = {}
        self._left_out: frozenset[str] = frozenset()

    def any(self, section: Sequence[Lines]) -> bool:
        """Whether there is a run for any of these lines, whatever the column; of the float model alone there
        always is what others keep.
        """
        if all(lines.methods == (FLOAT,) for lines in section):
            return True
        groups = [self.part.masks.of(column.group.where) for column in self.part.columns]
        return any(
            (self.part.masks.lines(self.spec, lines) & np.logical_or.reduce(groups)).any()
            for lines in section
        )

    def methods(self, lines: Lines) -> Sequence[str]:
        """The methods that these lines show, in their order."""
        if lines.methods != ("*",):
            return [method for method in lines.methods if method not in self._left_out]
        meant = self.part.masks.union(self.spec, [lines], [column.group for column in self.part.columns])
        return sorted(set(self.part.records["method.name"][meant]), key=method_rank)

    def absence(self, empty: Sequence[tuple[str, list[Lines]]]) -> str:
        """What to say instead of sections that have no run at all."""
        wheres: dict[tuple[str, ...], list[Where]] = {}
        for lines in (lines for _, section in empty for lines in section):
            methods = tuple(method for method in lines.methods if method not in (FLOAT, "*"))
            wheres.setdefault(methods, []).extend(self._merged(lines, group) for group in self._groups())
        commands = [
            command(self.part.settings, methods, found) for methods, found in wheres.items() if methods
        ]
        headings = "; ".join(visible(heading) for heading, _ in empty)
        return f"{self.part.model}: {headings}: not run: {'; '.join(commands)}"

    def leave_out(self, shown: Sequence[Lines]) -> dict[str, str]:
        """Methods without any run in these lines, which get none from here on, and the commands that would
        make the runs.
        """
        wheres: dict[str, list[tuple[Where, ...]]] = {}
        for lines in shown:
            for method in lines.methods:
                if method not in (FLOAT, "*") and not any(self._has(other, method) for other in shown):
                    wheres.setdefault(method, []).append(
                        tuple(self._merged(lines, group) for group in self._groups())
                    )
        texts = {}
        for method, combinations in wheres.items():
            same = [other for other in wheres if wheres[other] == combinations]
            schemes = [
                where
                for combination in combinations
                if all(map(is_scheme, combination))
                for where in combination
            ]
            asked = [
                schemes,
                *(combination for combination in combinations if not all(map(is_scheme, combination))),
            ]
            texts[method] = "; ".join(
                command(self.part.settings, same, combination) for combination in asked if combination
            )
        self._left_out = frozenset(texts)
        return texts

    def _has(self, lines: Lines, method: str) -> bool:
        groups = [self.part.masks.of(group.where) for group in self._groups()]
        return bool(
            method in lines.methods
            and (self.part.masks.lines(self.spec, lines, method) & np.logical_or.reduce(groups)).any()
        )

    def why_not(self, lines: Lines, method: str, column: Column) -> str:
        """Why there is no run for a cell; methods and schemes that lack one for the same reason are named
        together.
        """
        if column.group not in self._gaps(lines, method):
            return "measured under another protocol: in a table of its own"
        same = self._lacking_like(lines, method)
        wheres = [self._merged(lines, group) for group in self._gaps(lines, method)]
        # other lines whose command differs in the scheme alone share this one
        if all(map(is_scheme, wheres)):
            alike = [other for other in self.spec.rows if self._lacking_like(other, method) == same]
            found = [[self._merged(other, group) for group in self._gaps(other, method)] for other in alike]
            wheres = [where for one in found if all(map(is_scheme, one)) for where in one]
        return f"not run: {command(self.part.settings, same, wheres)}"

    def _lacking_like(self, lines: Lines, method: str) -> list[str]:
        """The methods of these lines that lack runs for the same columns as this one; none where the lines
        have no run at all.
        """
        if method not in self.methods(lines) or not self.any([lines]):
            return []
        gaps = self._gaps(lines, method)
        return [other for other in self.methods(lines) if other != FLOAT and self._gaps(lines, other) == gaps]

    def _merged(self, lines: Lines, group: Columns) -> Where:
        return {**self.spec.where, **lines.where, **group.where}

    def _gaps(self, lines: Lines, method: str) -> list[Columns]:
        key = (self.spec.rows.index(lines), method)
        if key not in self._known_gaps:
            of_lines = self.part.all_masks.lines(self.spec, lines, method)
            self._known_gaps[key] = [
                group
                for group in self._groups()
                if not (of_lines & self.part.all_masks.of(group.where)).any()
            ]
        return self._known_gaps[key]

    def _groups(self) -> list[Columns]:
        groups: list[Columns] = []
        for column in self.part.columns:
            if column.group not in groups:
                groups.append(column.group)
        return groups
