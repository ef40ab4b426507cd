import pytest

from benchmarks.harness import Row, compare, format_table


def test_the_ratio_of_a_piece_of_work_to_another():
    def spin(count):
        return lambda: sum(range(count))

    assert 2 < compare(spin(60_000), spin(20_000), rounds=15) < 4.5


@pytest.mark.parametrize(
    ("figure", "limits", "noise", "is_missed"),
    [
        (1.04, {"at_most": 1.05}, 0.0, False),
        (1.06, {"at_most": 1.05}, 0.0, True),
        (1.06, {"at_most": 1.05}, 0.02, False),
        (0.84, {"at_least": 0.85}, 0.0, True),
        (0.84, {"at_least": 0.85}, 0.02, False),
        (9.99, {}, 0.0, False),
    ],
)
def test_a_target_is_missed_only_beyond_the_noise(figure, limits, noise, is_missed):
    assert Row("row", figure, **limits).is_missed(noise) is is_missed


def test_the_table_names_what_was_missed():
    rows = [Row("noise", 1.001), Row("step", 1.2, at_most=1.05), Row("rate", 0.9, at_least=0.85, note="fine")]
    lines = format_table(rows, noise=0.001).splitlines()
    assert lines[3] == "| step | 1.2 x | <= 1.05 | MISSED |  |"
    assert lines[4] == "| rate | 0.9 x | >= 0.85 | ok | fine |"
