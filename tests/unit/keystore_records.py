"""Records of wrapped keys, as they are in the two stores of a rig's region."""

from kcm_schemas import subjects
from kcm_schemas.signed import Kind

from tests.unit import trust_rig
from tests.unit.core_rig import signed

SUBJECT = subjects.bucket_subject(subjects.KEYS_BUCKET, "root", "acme")


def keys(revision=1, region="eu", **changes):
    return trust_rig.root_keys(region).model_copy(update={"revision": revision, **changes})


def files(world):
    found = (path for path in world.directory.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(world.directory)) for path in found)


def lay(world, record, signer="core-eu", subject=SUBJECT):
    world.bus.stream.sequence += 1
    data = signed(Kind.ROOT_KEYS, record, signer)
    world.bus.stream.stored[subject] = (world.bus.stream.sequence, data)


def only_file(world):
    """Of the second store, however it names what it keeps."""
    (path,) = [path for path in world.directory.rglob("*") if path.is_file()]
    return path
