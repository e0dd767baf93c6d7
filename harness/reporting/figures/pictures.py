"""The pictures of a report, in their order: perplexity against bits, time, memory and outliers, then what
happened inside the runs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.records.measurements import Profiles
from harness.reporting.cells import Table
from harness.reporting.document import Picture, slugs
from harness.reporting.figures.bits import lines_picture
from harness.reporting.figures.costs import memory_picture, time_picture
from harness.reporting.figures.fronts import front_picture
from harness.reporting.figures.loss_curves import loss_picture
from harness.reporting.figures.outliers import outliers_picture
from harness.reporting.figures.profiles import blocks_picture, layer_pictures
from harness.reporting.figures.runtime import runtime_picture
from harness.reporting.figures.series import labelled
from harness.reporting.frames import Records


def pictures(records: Records, tables: Sequence[Table], results_dir: str | Path) -> list[Picture]:
    """Everything that can be drawn of these records; the same ones give the same bytes.

    Args:
        tables: of `build_tables`; those of perplexities are drawn.
        results_dir: where the runs left the tables of their linears and blocks.
    """
    frame, profiles = records.frame, Profiles(results_dir)
    if not len(frame):
        return []
    frame = frame.sort_values(["run_key", "place"], kind="stable").reset_index(drop=True)
    models = labelled(frame)
    drawn = [
        *(
            lines_picture(tables),
            front_picture(tables),
            time_picture(frame, tables),
            memory_picture(frame, tables),
        ),
        outliers_picture(frame, tables),
        *layer_pictures(models, profiles),
        *(blocks_picture(models, profiles), loss_picture(models, profiles), runtime_picture(models)),
    ]
    found = [picture for picture in drawn if picture is not None]
    return [
        replace(picture, slug=slug)
        for picture, slug in zip(found, slugs([picture.slug for picture in found]), strict=True)
    ]
