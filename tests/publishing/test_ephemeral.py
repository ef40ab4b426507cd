"""What is taken for a machine that is thrown away: by its mounts, its environment, and what the user says."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtuner.publishing.ephemeral import find_mount, judge, lies_apart

DISK = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw"
LAYERS = "27 1 0:50 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a,upperdir=/b"
MEMORY = "30 27 0:21 / /data rw - tmpfs tmpfs rw,size=4k"
BIND = "31 27 254:1 /srv/models /data rw,relatime - ext4 /dev/sdb1 rw"
NFS = "32 27 0:44 / /data rw,relatime shared:9 - nfs4 10.0.0.1:/export rw,vers=4.2"
BUCKET = "33 27 0:45 / /data rw,nosuid - fuse.gcsfuse bucket rw,user_id=0"
PVC = "34 27 8:32 /vol/pvc-1 /data rw - xfs /dev/sdc rw"
EMPTY_DIR = "35 27 8:1 /var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/scratch /data rw - ext4 /dev/sda1 rw"
SPACES = "36 27 0:44 / /data/my\\040runs rw - nfs4 server:/x rw"
RAM = "37 27 0:3 / /data rw - ramfs none rw"
ROOTLESS = "38 1 0:60 / / rw - fuse.fuse-overlayfs fuse-overlayfs rw"
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}

CASES = [
    ("a plain disk", [DISK], {}, (), "durable"),
    ("a container's layers", [LAYERS], {}, (), "ephemeral"),
    ("a rootless container's layers", [ROOTLESS], {}, (), "ephemeral"),
    ("memory", [DISK, MEMORY], {}, (), "ephemeral"),
    ("ramfs", [DISK, RAM], {}, (), "ephemeral"),
    ("a bind mount in a container", [LAYERS, BIND], {}, ("/.dockerenv",), "durable"),
    ("NFS in a pod", [LAYERS, NFS], POD, (), "durable"),
    ("a claimed volume in a pod", [LAYERS, PVC], POD, (), "durable"),
    ("an emptyDir in a pod", [LAYERS, EMPTY_DIR], POD, (), "ephemeral"),
    ("a bucket in a job of the Hub", [LAYERS, BUCKET], {"JOB_ID": "1", "HF_ENDPOINT": "x"}, (), "durable"),
    ("a job of the Hub", [DISK], {"JOB_ID": "1", "HF_ENDPOINT": "x"}, (), "ephemeral"),
    ("a job of the Hub, by its hardware", [DISK], {"JOB_ID": "1", "ACCELERATOR": "a10g"}, (), "ephemeral"),
    ("a job of some cluster", [DISK], {"JOB_ID": "1"}, (), "unknown"),
    ("a Space", [DISK], {"SPACE_ID": "me/space"}, (), "ephemeral"),
    ("a pod on its node's disk", [DISK], POD, (), "ephemeral"),
    ("Colab", [DISK], {"COLAB_RELEASE_TAG": "r"}, (), "ephemeral"),
    ("Kaggle", [DISK], {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, (), "ephemeral"),
    ("Modal", [DISK], {"MODAL_TASK_ID": "ta-1"}, (), "ephemeral"),
    ("RunPod, outside its volume", [DISK], {"RUNPOD_POD_ID": "p"}, (), "ephemeral"),
    ("ECS", [DISK], {"ECS_CONTAINER_METADATA_URI_V4": "http://x"}, (), "ephemeral"),
    ("SageMaker", [DISK], {"SM_TRAINING_ENV": "{}"}, (), "ephemeral"),
    ("an empty variable", [DISK], {"SPACE_ID": ""}, (), "durable"),
    ("only the mark of Docker", [DISK], {}, ("/.dockerenv",), "unknown"),
    ("only the mark of Podman", [DISK], {}, ("/run/.containerenv",), "unknown"),
    ("the later of two mounts at one point", [DISK, MEMORY, NFS], {}, (), "durable"),
    ("no list of mounts, as on a Mac", [], {}, (), "durable"),
    ("lines that are no mounts", ["", "27 1", "a - b"], POD, (), "ephemeral"),
]


@pytest.mark.parametrize(
    ("mounts", "environ", "marks", "level"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_machine_is_judged(mounts: list[str], environ: dict[str, str], marks: tuple[str, ...], level: str) -> None:
    found = judge(Path("/data/output"), "auto", environ, "\n".join(mounts), marks.__contains__)
    assert found.level == level
    assert found.reasons


def test_what_the_user_says_beats_everything() -> None:
    assert judge(Path("/data"), "no", POD, LAYERS).level == "durable"
    assert judge(Path("/data"), "yes", {}, DISK).level == "ephemeral"


def test_a_reason_names_the_mount_and_the_machine() -> None:
    told = str(judge(Path("/data/output"), "auto", POD, f"{LAYERS}\n{EMPTY_DIR}"))
    assert told == (
        "/data/output lies on an emptyDir volume (ext4) mounted at /data; "
        "KUBERNETES_SERVICE_HOST is set: this is a Kubernetes pod"
    )


def test_a_mount_point_with_spaces_is_found() -> None:
    mount = find_mount(Path("/data/my runs/one"), f"{DISK}\n{SPACES}")
    assert mount is not None and mount.point == "/data/my runs"
    other = find_mount(Path("/data/my"), f"{DISK}\n{SPACES}")
    assert other is not None and other.point == "/"


def test_a_folder_beside_the_output_does_not_outlive_it() -> None:
    output, beside, share = Path("/home/user/output"), Path("/home/user/copies"), Path("/data/models")
    assert not lies_apart(beside, output, f"{LAYERS}\n{NFS}")
    assert lies_apart(share, output, f"{LAYERS}\n{NFS}")
    assert not lies_apart(share, output, f"{LAYERS}\n{MEMORY}")
    assert not lies_apart(share, output, "")
