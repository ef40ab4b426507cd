"""The memory of a scan does not grow with the number of pictures."""

import pytest

from benchmarks.data import measure_scan


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_scan_of_many_files_stays_small(tmp_path):
    few = measure_scan(tmp_path / "few", files=2000)
    many = measure_scan(tmp_path / "many", files=40_000)
    # Twenty times the pictures: what a sample takes in memory is a few dozen bytes.
    assert many[0].figure - few[0].figure < 20
    assert many[1].figure < 0.6
