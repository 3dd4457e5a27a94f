"""What a development system consists of is remembered, and grows only while it is down."""

import json
from pathlib import Path

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_devsystem import ports, shape, system, topology
from kcm_devsystem.errors import DevError, OtherShapeError, OtherVersionError
from kcm_devsystem.options import Options
from kcm_devsystem.shape import Shape

MADE = Shape(regions=("eu", "us"), cores=2, gateways=1, nodes={"us": 3}, ports={"eu": 20000})


def changed(**fields: object) -> Shape:
    return MADE.model_copy(update={"ports": {}} | fields)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    assert shape.load(tmp_path) is None
    shape.save(tmp_path, MADE)
    assert shape.load(tmp_path) == MADE


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0}, {"version": "2"}, {"regions": []}, {"regions": ["../x"]}, {"cores": -1},
        {"cores": "2"}, {"ports": {"eu": 0}}, {"ports": {"eu": 70000}}, {"more": 1},
    ],
)  # fmt: skip
def test_what_this_version_did_not_write_is_not_acted_upon(
    tmp_path: Path, change: dict[str, object]
) -> None:
    document = json.loads(MADE.model_dump_json()) | change
    (tmp_path / shape.FILE).write_text(json.dumps(document))
    with pytest.raises(DevError, match="not a valid shape file"):
        shape.load(tmp_path)


@pytest.mark.parametrize("version", [1, 3])
def test_a_shape_of_another_version_is_refused_by_its_version(tmp_path: Path, version: int) -> None:
    """Version 1 is of the layout in which control streams had the names `fence` and `boot`."""
    document = json.loads(MADE.model_dump_json()) | {"version": version, "more": 1}
    (tmp_path / shape.FILE).write_text(json.dumps(document))
    with pytest.raises(OtherVersionError, match=f"version {version} of its format; .* reads 2"):
        shape.load(tmp_path)


@pytest.mark.parametrize(("version", "told"), [(1, "version 1"), (None, "no version")])
def test_a_command_on_a_system_of_the_version_before_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: int | None, told: str
) -> None:
    root = tmp_path / "s"
    system.init(Options(root, regions=("eu",), cores=1))
    document = json.loads((root / shape.FILE).read_text()) | {"version": version}
    if version is None:
        del document["version"]
    (root / shape.FILE).write_text(json.dumps(document))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for command in ("up", "down", "status"):
        assert run(["dev", command, "--dir", str(root)]) != Exit.OK
        error = json.loads(capsys.readouterr().err)
        assert f"has {told} of its format; this kcm reads 2" in error["detail"]
        assert "kcm that made the system" in error["hint"]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_the_same_has_the_ports_of_before() -> None:
    assert shape.agreed(changed(), MADE, runs=True) == MADE
    assert shape.agreed(changed(), None, runs=False) == changed()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"regions": ("us",)}, "--region us: the system was made with --region eu --region us"),
        ({"regions": ("us", "eu")}, "--region us --region eu: the system was made with"),
        ({"cores": 1}, "--cores 1: the system was made with --cores 2"),
        ({"gateways": 0}, "--gateways 0: the system was made with --gateways 1"),
        ({"nodes": {}}, "--nodes us=1: the system was made with --nodes us=3"),
        ({"nodes": {"eu": 3, "us": 3}}, "--nodes eu=3: the system was made with --nodes eu=1"),
    ],
)
def test_what_does_not_grow_is_refused_with_the_option_and_what_is_remembered(
    fields: dict[str, object], said: str
) -> None:
    for runs in (True, False):
        with pytest.raises(OtherShapeError, match=said) as caught:
            shape.agreed(changed(**fields), MADE, runs=runs)
        assert "down --wipe" in caught.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"regions": ("eu", "us", "asia"), "nodes": {"us": 3, "asia": 3}},
        {"cores": 3},
        {"gateways": 2},
        {"applications": 1},
    ],
)
def test_what_grows_has_to_be_down(fields: dict[str, object]) -> None:
    with pytest.raises(OtherShapeError, match="the system runs with") as caught:
        shape.agreed(changed(**fields), MADE, runs=True)
    assert caught.value.hint == "`kcm dev down`, then the same command"
    grown = shape.agreed(changed(**fields), MADE, runs=False)
    assert grown == changed(**fields).model_copy(update={"ports": MADE.ports})


def test_a_watcher_is_added_to_a_system_that_runs_and_not_taken_away() -> None:
    watched = MADE.model_copy(update={"watch": True})
    assert shape.agreed(changed(watch=True), MADE, runs=True).watch
    assert not shape.agreed(changed(), watched, runs=False).watch
    with pytest.raises(OtherShapeError, match="--no-watch: the system runs with --watch"):
        shape.agreed(changed(), watched, runs=True)


def test_known_ports_are_kept_and_new_ones_are_nobody_elses() -> None:
    wanted = ports.names(["eu", "us"], {"us": 3})
    assert len(set(wanted)) == len(wanted) == 2 + 2 + 5
    known = {"eu": 7, "backbone": 8}
    found = dict(zip(wanted, ports.numbers(wanted, known, lambda n: tuple(range(n))), strict=True))
    assert (found["eu"], found["backbone"]) == (7, 8)
    assert len(set(found.values())) == len(wanted)
    assert ports.server_of("us-2/route") == "us-2"


def test_the_names_of_a_plans_ports_are_those_that_it_was_made_with(tmp_path: Path) -> None:
    made = topology.plan(tmp_path, ["eu", "us"], nodes={"us": 3})
    assert set(made.ports) == set(ports.names(["eu", "us"], {"us": 3}))
    again = topology.plan(tmp_path, ["eu", "us"], nodes={"us": 3}, known=made.ports)
    assert again == made


def test_what_was_made_and_never_started_has_the_same_ports_when_it_is_made_again(
    tmp_path: Path,
) -> None:
    options = Options(tmp_path / "s", regions=("eu",), cores=1)
    first, _ = system.init(options)
    second, _ = system.init(options)
    assert first.ports == second.ports


def test_the_command_takes_what_is_remembered_where_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--dir", str(tmp_path / "s"), "-o", "json"]
    assert run(["dev", "init", "--region", "eu", "--cores", "3", *place]) == Exit.OK
    made = shape.load(tmp_path / "s")
    assert made is not None
    assert (made.regions, made.cores, made.watch) == (("eu",), 3, True)
    assert run(["dev", "init", *place]) == Exit.OK
    assert shape.load(tmp_path / "s") == made
    capsys.readouterr()
    assert run(["dev", "init", "--cores", "2", *place]) == Exit.USAGE
    said = json.loads(capsys.readouterr().err)
    assert said["error"] == "other_shape"
    assert said["detail"] == "--cores 2: the system was made with --cores 3"
    assert "--dir" in said["hint"]
