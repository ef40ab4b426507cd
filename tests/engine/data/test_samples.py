"""Samples on disk: what comes back is what went in, by number, in order, and in selections."""

import pytest

from flowtuner.engine.data.sample import Plan, Sample
from flowtuner.engine.data.samples import SampleFile, columns_of, select


def sample_of(number):
    plan = Plan(1 + number % 8, (40 + number, 32), (number, 0, 32, 32))
    reference = Sample("r", f"/r/{number}", "c", (), Plan(1, (8, 8), (0, 0, 8, 8 + number % 2)))
    captions = tuple(f"ü {number} {part}" for part in range(1 + number % 3))
    return Sample("ab"[number % 2], f"/p/{number}-\udcff.png", f"{number:064x}", captions, plan, (reference,))


@pytest.fixture
def samples(tmp_path):
    file = SampleFile(tmp_path / "index")
    for number in range(2500):
        file.append(sample_of(number))
    file.finish()
    return file


def test_what_comes_back_is_what_went_in(samples, tmp_path):
    wanted = [sample_of(number) for number in range(2500)]
    assert samples == wanted and list(samples) == wanted
    assert (samples[0], samples[-1], samples[1234]) == (wanted[0], wanted[-1], wanted[1234])
    assert samples[10:20:3] == wanted[10:20:3]
    assert samples != wanted[1:]
    with pytest.raises(IndexError):
        samples[2500]
    assert list((tmp_path / "index").iterdir()) == []


def test_columns_say_what_the_samples_say(samples):
    wanted = [sample_of(number) for number in range(2500)]
    for listed in (samples, wanted):
        columns = columns_of(listed)
        assert columns.rows_of("a").tolist() == list(range(0, 2500, 2))
        assert columns.rows_of("nobody").tolist() == []
        assert [columns.shapes[number] for number in columns.shapes_of] == [sample.shapes for sample in wanted]


def test_selections_of_selections(samples):
    wanted = [sample_of(number) for number in range(2500)]
    rows = range(5, 2000, 7)
    chosen = select(samples, rows)
    assert chosen == [wanted[row] for row in rows] and chosen == select(wanted, rows)
    assert chosen[3:9][1] == wanted[5 + 7 * 4]
    assert select(chosen, [2, 0]) == [wanted[19], wanted[5]]
    assert columns_of(chosen).rows_of("b").tolist() == [place for place, row in enumerate(rows) if row % 2]
