"""The benchmarks of a checkout: what they measure is what is there."""

import pytest

from benchmarks.report import main


@pytest.mark.slow
def test_a_report_on_invented_runs_is_measured(capsys):
    assert main(["--records", "5"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("5 records: ") and "GiB at the peak" in shown and "report.html" in shown
