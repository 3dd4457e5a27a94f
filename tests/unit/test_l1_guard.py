"""The guard changes the interpreter it runs in, so each test gives it one of its own."""

import subprocess
import sys

import pytest
from kcm_core.unsealer.import_guard import FORBIDDEN


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


INSTALL = "from kcm_core.unsealer.import_guard import "
INSTALL += "CloudSdkImportError, forbid_cloud_sdks; forbid_cloud_sdks()\n"


@pytest.mark.parametrize(
    "name",
    [*FORBIDDEN, "pkcs11._pkcs11", "google.cloud.kms", "azure.identity", "botocore.session"],
)
def test_a_cloud_sdk_cannot_be_imported(name):
    program = f"""
try:
    import {name}
except CloudSdkImportError as error:
    print(error.name)
"""
    # A package is refused before what is in it, and ``google`` alone is only a name space.
    assert name.startswith(run(INSTALL + program)[0])


def test_the_refusal_is_for_lack_of_permission_not_of_the_package():
    assert run("import pkcs11, botocore; print('installed')") == ["installed"]


def test_all_else_can_be_imported():
    assert run(INSTALL + "import cryptography, pydantic, http.client; print('fine')") == ["fine"]


def test_an_sdk_that_is_there_already_is_noticed():
    program = """
import pkcs11
from kcm_core.unsealer.import_guard import CloudSdkImportError, forbid_cloud_sdks
try:
    forbid_cloud_sdks()
except CloudSdkImportError as error:
    print(error.name)
"""
    assert run(program) == ["pkcs11"]


def test_installing_it_twice_is_harmless():
    program = "import sys; before = len(sys.meta_path); forbid_cloud_sdks();"
    assert run(INSTALL + program + "print(len(sys.meta_path) - before)") == ["0"]


def test_the_core_can_use_the_unsealer_behind_the_guard():
    program = """
import sys
import kcm_core.unsealer.client, kcm_core.unsealer.port
PREFIX = "kcm_core.providers."
print([name for name in sys.modules if name.startswith(PREFIX)
       and name.endswith((".provider", ".catalog"))] == [])
"""
    assert run(INSTALL + program) == ["True"]


def test_a_pkcs11_provider_cannot_be_opened_in_the_core():
    program = """
from kcm_core.providers.catalog import open_provider
from kcm_core.providers.uri import Pkcs11Uri
try:
    open_provider(Pkcs11Uri("/x"), development=True)
except CloudSdkImportError:
    print("refused")
"""
    assert run(INSTALL + program) == ["refused"]
