"""The lock's requirements for the Python of the images."""

from tests.containers.lock_for import lock_for

LOCK = """# made by a tool
alpha==1 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via beta
beta==1 ; python_full_version < '3.11.5' \\
    --hash=sha256:ba
beta==2 ; python_full_version >= '3.11.5' \\
    --hash=sha256:bb
gamma==1 ; sys_platform == 'no-such-system' \\
    --hash=sha256:cc
"""
ALPHA = """alpha==1 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via beta
"""


def test_markers_are_evaluated_for_the_version_that_is_named():
    older = lock_for(LOCK, "3.11.2")
    assert older == ALPHA + "beta==1 \\\n    --hash=sha256:ba"
    assert lock_for(LOCK, "3.11.7") == ALPHA + "beta==2 \\\n    --hash=sha256:bb"
