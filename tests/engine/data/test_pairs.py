"""Pairs by relative file name: crops that fit, pairs that are left out and why, and which references are drawn."""

import pytest

from flowtuner.engine.data.images import load_pixels
from flowtuner.engine.data.sample import Plan, Sample
from flowtuner.engine.data.sampler import Sampler
from flowtuner.errors import DataError
from flowtuner.options import DatasetEntry


@pytest.fixture
def make_pair(tmp_path, make_entry):
    """Entries of a target and its references, with options for each."""

    def make(kind="reference_strict", target=None, **values):
        for name in ("pictures", "references"):
            (tmp_path / name).mkdir(exist_ok=True)
        reference = {
            "id": "references",
            "dataset_type": "conditioning",
            "conditioning_type": kind,
            "instance_data_dir": tmp_path / "references",
        }
        pictures = make_entry(**({"conditioning_data": "references"} | (target or {})))
        return pictures, DatasetEntry(**reference | values)

    return make


def only(found) -> Sample:
    assert found.quarantined == ()
    (sample,) = found.samples
    return sample


def test_a_strict_reference_shows_the_same_part_of_the_picture(draw, scan, make_pair):
    crop = {"crop": True, "crop_style": "random", "crop_aspect": "square"}
    draw("deep/a.png", (96, 64))
    draw("../references/deep/a.png", (96, 64))
    sample = only(scan(*make_pair(target={"conditioning_data": ["references"]} | crop)))
    (reference,) = sample.references
    assert reference.plan == sample.plan
    assert reference.dataset_id == "references"
    assert reference.captions == ()
    assert (load_pixels(reference) == load_pixels(sample)).all()  # both files hold the same pixels
    assert sample.shapes == (sample.bucket, sample.bucket)


def test_a_strict_reference_of_another_size_is_cropped_alike(draw, scan, make_pair):
    draw("a.png", (96, 64))
    draw("../references/a.jpg", (48, 32))
    sample = only(scan(*make_pair(target={"crop": True, "crop_style": "corner", "conditioning_data": "references"})))
    assert sample.references[0].plan == sample.plan


def test_a_loose_reference_has_a_plan_of_its_own(draw, scan, make_pair):
    draw("a.png", (96, 64))
    draw("../references/a.png", (40, 80))
    sample = only(scan(*make_pair("reference_loose", resolution=16)))
    assert (sample.bucket, sample.references[0].bucket) == ((48, 32), (16, 32))


def test_the_same_suffix_wins(draw, scan, make_pair):
    draw("a.png")
    draw("../references/a.png", seed=1)
    draw("../references/a.jpg", seed=2)
    assert only(scan(*make_pair())).references[0].path.endswith("a.png")


def test_the_reference_may_name_its_source(draw, scan, make_pair):
    draw("a.png")
    draw("../references/a.png")
    entries = make_pair(target={"conditioning_data": None}, source_dataset_id="pictures")
    assert len(only(scan(*entries)).references) == 1


def test_pairs_that_are_not_whole_are_left_out_by_name(draw, scan, make_pair):
    for name in ("good.png", "alone.png", "other.png", "broken.png"):
        draw(name, (64, 64))
    draw("../references/good.png", (64, 64))
    draw("../references/other.png", (96, 64))
    draw("../references/broken.png", (64, 64)).write_bytes(b"no picture")
    found = scan(*make_pair())
    assert [sample.path.rsplit("/", 1)[1] for sample in found.samples] == ["good.png"]
    reasons = {fault.path.rsplit("/", 1)[1]: fault.reason for fault in found.quarantined}
    assert "references holds no alone.png" in reasons["alone.png"]
    assert "another shape (96x64 for 64x64)" in reasons["other.png"]
    assert "cannot be used: it is not a picture" in reasons["broken.png"]


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ({"conditioning_data": None}, "reference_loose", "no dataset of pictures names it"),
        ({}, "mask", "conditioning_type 'mask' is not supported yet"),
        ({}, None, "Allowed: reference_strict, reference_loose"),
    ],
)
def test_references_that_cannot_be_used_are_refused(draw, scan, make_pair, target, kind, said):
    draw("a.png")
    draw("../references/a.png")
    with pytest.raises(DataError, match=said):
        scan(*make_pair(kind, target={"conditioning_data": "references"} | target))


def make_samples(count, sizes=((8, 8), (8, 8))):
    return [
        Sample(
            "pictures",
            f"/{number}.png",
            f"{number}",
            ("a",),
            Plan(1, (8, 8), (0, 0, 8, 8)),
            tuple(
                Sample(f"r{place}", f"/r{place}/{number}.png", "", (), Plan(1, size, (0, 0, *size)))
                for place, size in enumerate(sizes)
            ),
        )
        for number in range(count)
    ]


def drawn(samples, **options):
    sampler = Sampler(samples, [DatasetEntry(id="pictures", instance_data_dir="/")], 2, 7, **options)
    batches = [sampler.batch(number) for number in range(3 * sampler.micro_batches_per_epoch)]
    return [[(draw.sample.path, *(one.dataset_id for one in draw.references)) for draw in batch] for batch in batches]


def test_combined_draws_take_every_reference():
    assert {one[1:] for batch in drawn(make_samples(8)) for one in batch} == {("r0", "r1")}


def test_random_draws_take_one_reference_the_same_in_every_process():
    first = drawn(make_samples(8), one_reference=True)
    assert first == drawn(make_samples(8), one_reference=True)
    assert first[0] == [("/4.png", "r0"), ("/6.png", "r1")]
    chosen = {path: [one[1] for batch in first for one in batch if one[0] == path] for path in ("/0.png", "/1.png")}
    assert all(set(references) == {"r0", "r1"} for references in chosen.values())  # another one in another epoch


def test_references_of_other_sizes_are_chosen_for_a_whole_batch():
    batches = drawn(make_samples(8, ((8, 8), (16, 8))), one_reference=True)
    assert all(len({one[1] for one in batch}) == 1 for batch in batches)
    assert {batch[0][1] for batch in batches} == {"r0", "r1"}


def test_only_pairs_of_the_same_sizes_share_a_batch():
    samples = [*make_samples(4, ((8, 8),)), *make_samples(8, ((16, 8),))[4:]]
    for batch in drawn(samples):
        assert len({int(one[0][1]) < 4 for one in batch}) == 1
    with pytest.raises(DataError, match="8x8 with references 16x8 holds 1 picture"):
        drawn([*make_samples(4, ((8, 8),)), *make_samples(5, ((16, 8),))[4:]])
