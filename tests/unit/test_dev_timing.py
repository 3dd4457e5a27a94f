"""A development system's durations reach every instance's configuration."""

from kcm_core.config import CoreConfig
from kcm_devsystem import system
from kcm_devsystem.configs import config_file
from kcm_gateway.config import GatewayConfig
from kcm_killswitch.model.timing import Timing
from kcm_runtime.config import load
from kcm_schemas.roster import Role

SHORT = Timing(probe_interval_s=1.0, l1_lease_s=4.0, clock_error=0.01)


def configs(options):
    system.init(options)
    models = {Role.CORE: CoreConfig, Role.GATEWAY: GatewayConfig}
    for member in options.everybody:
        if member.role in models:
            yield load(models[member.role], str(config_file(options.directory, member)))


def test_every_instance_has_the_durations_that_were_asked_for(tmp_path):
    options = system.Options(tmp_path / "s", regions=("eu",), applications=1, timing=SHORT)
    found = [config.timing for config in configs(options)]
    assert len(found) == 4
    assert set(found) == {SHORT}


def test_the_usual_durations_are_not_spelled_out(tmp_path):
    options = system.Options(tmp_path / "s", regions=("eu",))
    assert {config.timing for config in configs(options)} == {Timing()}
    for member in options.everybody:
        assert "timing" not in config_file(options.directory, member).read_text()
