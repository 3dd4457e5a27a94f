"""Every instance of a development system gets the durations that were asked for."""

import tomllib

from kcm.dev import system
from kcm.dev.configs import config_file
from kcm_control.timing import Timing
from kcm_core.config import CoreConfig


def test_the_timing_of_a_system_is_written_for_everybody(tmp_path):
    timing = Timing(control_lease_s=6.0, renew_every_s=1.5, partition_grace_s=20.0)
    options = system.Options(tmp_path, timing=timing, applications=1)
    system.init(options)
    for member in options.everybody:
        content = tomllib.loads(config_file(tmp_path, member).read_text())
        assert Timing(**content["timing"]) == timing
    core = tomllib.loads(config_file(tmp_path, options.members[0]).read_text())
    assert CoreConfig.model_validate(core).timing == timing


def test_the_defaults_are_not_repeated(tmp_path):
    options = system.Options(tmp_path)
    system.init(options)
    text = config_file(tmp_path, options.members[0]).read_text()
    assert "timing" not in tomllib.loads(text)
