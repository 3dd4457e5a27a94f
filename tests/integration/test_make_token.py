"""The script that plays the customer's security officer, with the real SoftHSM."""

import os
import subprocess
import sys
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy" / "softhsm"
USE = """
import sys, pkcs11
token = pkcs11.lib("/usr/lib/softhsm/libsofthsm2.so").get_token(token_label="kcm")
with token.open(user_pin=open(sys.argv[1]).read()) as session:
    key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label="root")
    public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label="root")
    assert key[pkcs11.Attribute.SENSITIVE] and not key[pkcs11.Attribute.EXTRACTABLE]
    assert public[pkcs11.Attribute.MODULUS_BITS] == 3072
    oaep = {
        "mechanism": pkcs11.Mechanism.RSA_PKCS_OAEP,
        "mechanism_param": (pkcs11.Mechanism.SHA_1, pkcs11.MGF.SHA1, None),
    }
    assert key.decrypt(public.encrypt(b"x" * 32, **oaep), **oaep) == b"x" * 32
    print(token.serial.hex())
"""


def test_it_makes_one_key_that_works_and_cannot_be_read_and_keeps_it(tmp_path):
    text = (DEPLOY / "softhsm2.conf").read_text()
    assert "/var/lib/kcm-softhsm/tokens" in text
    conf = tmp_path / "softhsm2.conf"
    conf.write_text(text.replace("/var/lib/kcm-softhsm", str(tmp_path)))
    env = {**os.environ, "SOFTHSM2_CONF": str(conf)}

    def run(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, *argv], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    serials = []
    for _ in range(2):
        run(str(DEPLOY / "make_token.py"), str(tmp_path))
        serials.append(run("-c", USE, str(tmp_path / "pin")))
    assert serials[0] == serials[1] != ""
    assert (tmp_path / "pin").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "pin").read_text()) == 32
