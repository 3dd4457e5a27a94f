"""A development system's root keys: whole or not at all, whenever setup is cut off."""

from pathlib import Path

import pytest
from kcm_devsystem.root_keys import RootKeys, module


def test_a_softkey_whose_making_was_cut_off_is_made(tmp_path: Path) -> None:
    keys = RootKeys(tmp_path)
    place = tmp_path / "l1" / "acme"
    place.mkdir(parents=True)
    (place / "state").write_text("enabled\n")
    assert keys.create("acme", "softkey") == f"softkey:{place}"
    made = (place / "key").read_bytes()
    assert len(made) == 32
    (place / "state").write_text("disabled\n")
    keys.create("acme", "softkey")
    assert (place / "key").read_bytes() == made
    assert (place / "state").read_text() == "disabled\n"
    assert sorted(path.name for path in place.iterdir()) == ["key", "state"]


@pytest.mark.parametrize("cut", ["while it was made", "before it was named", "after"])
def test_a_token_whose_making_was_cut_off_is_made_anew(tmp_path: Path, cut: str) -> None:
    keys = RootKeys(tmp_path)
    hsm = tmp_path / "l1" / "softhsm"
    if cut == "while it was made":
        (hsm / "tokens.new" / "half").mkdir(parents=True)
        (hsm / "softhsm2.conf.new").write_text("half")
    else:
        keys.prepare()
        (hsm / "softhsm2.conf").unlink()
        if cut == "before it was named":
            (hsm / "tokens").rename(hsm / "tokens.new")
    keys.prepare()
    assert keys.create("acme") == keys.create("acme")
    assert sorted(path.name for path in hsm.iterdir()) == ["pin", "softhsm2.conf", "tokens"]
    assert len(list((hsm / "tokens").iterdir())) == 1


def test_an_unsealer_may_load_softhsm_and_what_the_shell_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KCM_L1_MODULES", raising=False)
    assert RootKeys(tmp_path).environment["KCM_L1_MODULES"] == str(module())
    monkeypatch.setenv("KCM_L1_MODULES", "/opt/vendor.so")
    assert RootKeys(tmp_path).environment["KCM_L1_MODULES"] == f"/opt/vendor.so:{module()}"
    monkeypatch.setattr(RootKeys, "kind", "softkey")
    assert RootKeys(tmp_path).environment == {"KCM_L1_MODULES": "/opt/vendor.so"}
