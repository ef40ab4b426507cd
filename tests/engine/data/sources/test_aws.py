"""Pictures in a bucket, against moto: pages, captions beside them, and what goes wrong with a remedy."""

import boto3
import pytest

from flowtuner.engine.data.images import load_pixels
from flowtuner.engine.data.sources import aws, open_source
from flowtuner.errors import DataError, SourceDown
from tests.fakes.s3.servers import KEYS, REGION, moto, seaweed

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def bucket():
    with moto() as url:
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=KEYS["access_key"],
            aws_secret_access_key=SECRET,
        )
        client.create_bucket(Bucket="pictures")
        yield url, client
        client.close()


@pytest.fixture
def make_aws(make_entry, bucket):
    def make(**values):
        defaults = {
            "type": "aws",
            "instance_data_dir": None,
            "aws_bucket_name": "pictures",
            "aws_data_prefix": "set",
            "aws_endpoint_url": bucket[0],
            "aws_region_name": REGION,
            "aws_access_key_id": KEYS["access_key"],
            "aws_secret_access_key": SECRET,
        }
        return make_entry(**defaults | values)

    return make


def test_a_bucket_is_read_page_by_page(tmp_path, draw, bucket, make_aws, make_config, scan, monkeypatch):
    monkeypatch.setattr(aws, "PAGE", 2)
    for number in range(5):
        data = draw(f"{number}.png", seed=number).read_bytes()
        bucket[1].put_object(Bucket="pictures", Key=f"set/sub/{number}.png", Body=data)
        if number:
            bucket[1].put_object(Bucket="pictures", Key=f"set/sub/{number}.txt", Body=f"caption {number}".encode())
    bucket[1].put_object(Bucket="pictures", Key="set/.hidden/x.png", Body=b"x")
    bucket[1].put_object(Bucket="pictures", Key="set/empty.png", Body=b"")
    bucket[1].put_object(Bucket="pictures", Key="other/x.png", Body=b"x")
    entry = make_aws(caption_strategy="textfile")
    found = scan(entry)
    assert [sample.captions for sample in found.samples] == [(f"caption {number}",) for number in range(1, 5)]
    reasons = {fault.path: fault.reason for fault in found.quarantined}
    assert set(reasons) == {"s3://pictures/set/empty.png", "s3://pictures/set/sub/0.png"}
    assert "0.txt is missing" in reasons["s3://pictures/set/sub/0.png"]

    source = open_source(entry, make_config(), tmp_path)
    local = scan(make_entry_of(tmp_path, make_aws)).samples
    for theirs, ours in zip(found.samples, local[1:], strict=True):
        assert theirs.content == ours.content and theirs.plan == ours.plan
        assert (load_pixels(theirs, lambda one: source.read(one.path)) == load_pixels(ours)).all()


def make_entry_of(tmp_path, make_aws):
    return make_aws(type="local", id="local", instance_data_dir=tmp_path / "pictures")


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"aws_bucket_name": "nowhere"}, DataError, "NoSuchBucket.*Correct aws_bucket_name"),
        ({"aws_data_prefix": "nothing"}, DataError, "holds no objects"),
        ({"aws_endpoint_url": "http://127.0.0.1:9"}, SourceDown, "does not answer"),
        ({"aws_endpoint_url": "nonsense"}, DataError, "Correct aws_endpoint_url"),
    ],
)
def test_what_is_wrong_is_found_by_a_look(make_aws, make_config, tmp_path, monkeypatch, values, kind, words):
    monkeypatch.setattr(aws, "ATTEMPTS", 1)
    with pytest.raises(kind, match=words) as caught:
        open_source(make_aws(**values), make_config(), tmp_path).check()
    assert SECRET not in str(caught.value) and KEYS["access_key"] not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_checks_signatures(tmp_path, draw, make_aws, make_config, scan):
    (tmp_path / "weed").mkdir()
    with seaweed(tmp_path / "weed") as port:
        url = f"http://127.0.0.1:{port}"
        keys = {"aws_access_key_id": KEYS["access_key"], "aws_secret_access_key": KEYS["secret_key"]}
        client = boto3.client("s3", endpoint_url=url, region_name=REGION, **keys)
        client.create_bucket(Bucket="pictures")
        client.put_object(Bucket="pictures", Key="set/a_red_dog.png", Body=draw("a.png").read_bytes())
        client.close()
        (sample,) = scan(make_aws(aws_endpoint_url=url, **keys)).samples
        assert sample.captions == ("a red dog",)
        wrong = make_aws(aws_endpoint_url=url, **keys | {"aws_secret_access_key": SECRET})
        with pytest.raises(DataError, match="Check aws_access_key_id and aws_secret_access_key") as caught:
            open_source(wrong, make_config(), tmp_path).check()
        assert SECRET not in str(caught.value)
