"""What runs and answers are made into: tasks, phases, tables, the page."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pytest

from bench import __main__ as program
from bench import campaign, figures, measure
from bench.figures import Figure, Section, at_most
from bench.load import Record, summary
from bench.machine import ROOT, Failure, Machine, Run, playbook_command

LINES = """\
PLAY [Prepare] ****************
TASK [platform : Look] *****
ok: [localhost]
TASK [serving : Fetch the files of the model] *****
TASK [image : Build the image mlflow-anywhere/model-digits:v2-0123] *****
changed: [localhost]
TASK [serving : Roll the services out and remove those] *****
PLAY RECAP *****
localhost                  : ok=11   changed=2    unreachable=0    failed=0    skipped=9    rescued=0    ignored=0

SECONDS ******
     1.5    15%  Check everything before the first change
     8.5    85%  Serve the registered models
    10.0   100%  the whole run
"""


@pytest.fixture
def run() -> Run:
    """A run of which every line took a second."""
    lines = LINES.splitlines(keepends=True)
    return Run(100.0, [(100.0 + number, line) for number, line in enumerate(lines)], 100.0 + len(lines))


def test_a_run_tells_its_tasks_phases_and_changes(run: Run) -> None:
    assert run.tasks == [
        ("platform : Look", 101.0, 2.0),
        ("serving : Fetch the files of the model", 103.0, 1.0),
        ("image : Build the image mlflow-anywhere/model-digits:v2-0123", 104.0, 2.0),
        ("serving : Roll the services out and remove those", 106.0, 1.0),
    ]
    assert run.phases == [("Check everything before the first change", 1.5), ("Serve the registered models", 8.5)]
    assert run.worked == [1, 3]
    assert run.changed == 2
    assert run.began_task("Roll the services") == 106.0
    assert run.began_task("nothing of the kind") is None


def test_a_run_that_was_cut_off_changed_nobody_knows_what() -> None:
    assert Run(0, [(0, "PLAY [x] ***")], 1).changed is None


def test_the_phases_are_the_ones_that_the_callback_prints() -> None:
    source = (ROOT / "callback_plugins" / "phases.py").read_text()
    assert 'banner("SECONDS")' in source
    assert "the whole run" in source
    assert '"{end - start:8.1f}  {(end - start) / total:5.0%}  {name}"' in source


def test_the_first_prediction_counts_from_the_clone(run: Run) -> None:
    found = {figure.name: figure for figure in measure.first_prediction_figures(run, clone=2.0, first=110.0)}
    assert found["bare host to first prediction"].measured == "12.0 s"
    assert found["bare host to first prediction"].met
    assert found["make up: the environment that runs the playbooks"].measured.startswith("4.0 s")
    assert "make up: Serve the registered models" in found


def test_a_new_version_is_measured_from_build_to_answers(run: Run) -> None:
    records = [Record(n, 100.0 + n, 0.5, 200, "2" if n > 9 else "1") for n in range(14)]
    found = {figure.name: figure.measured for figure in measure.version_figures(run, 110.0, summary(records), 0)}
    assert found["build of the image"] == "2.0 s"
    assert found["fetch of the model's files and build, all tasks"] == "3.0 s"
    assert found["begin of the rollout to all replicas answering as the new version"] == "4.0 s"
    assert found["failed requests"] == "0"


def image(name: str, size: int, *layers: str) -> dict[str, object]:
    return {"name": name, "size": size * measure.MB, "layers": list(layers)}


def test_images_are_held_against_their_limit_and_the_runtime() -> None:
    found = [
        image("mlflow-anywhere/runtime:3", 900, "a", "b"),
        image("mlflow-anywhere/model-iris:v1-x", 901, "a", "b", "c"),
        image("mlflow-anywhere/tracking:3", 1200, "a", "d"),
        image("elsewhere:1", 9999, "e"),
    ]
    lines = {figure.name: figure for figure in measure.image_figures(found, 1 << 30)}
    assert "elsewhere:1" not in lines
    assert lines["model-iris:v1-x"].met
    assert "1 MB over the runtime" in lines["model-iris:v1-x"].measured
    assert lines["tracking:3"].met is False
    strangers = lines["tracking, training and models that do not share the runtime's layers"]
    assert (strangers.measured, strangers.met) == ("tracking:3", False)
    with pytest.raises(Failure):
        measure.image_figures([], 0)


def test_memory_is_summed_up_and_names_are_short() -> None:
    names = {f"mlflow-anywhere-model-iris.1.{'x' * 25}": measure.MIB * 200, "mlflow-anywhere-edge": measure.MIB * 24}
    found = {figure.name: figure for figure in measure.memory_figures(names, 0)}
    assert found["model-iris.1"].measured == "200 MiB"
    assert found["sum of the containers"].met


def test_wrk_is_understood() -> None:
    assert measure.wrk_result("Running 5s\nRESULT 512.500000 3 41.250000\n") == (512.5, 3, 41.25)
    with pytest.raises(Failure, match="unable to connect"):
        measure.wrk_result("unable to connect")


@pytest.mark.parametrize(("edge", "met"), [((50.0, 90.0), True), ((45.0, 81.0), False)])
def test_rates_are_compared_round_by_round(edge: tuple[float, float], met: bool) -> None:
    found: measure.Rates = {
        (8, measure.THROUGH): [(rate, 1.0) for rate in edge],
        (8, measure.DIRECT): [(100.0, 1.0), (100.0, 1.0)],
    }
    assert measure.ratio(found, 8) == pytest.approx(sum(edge) / 200)
    [figure] = [figure for figure in measure.prediction_figures("iris", found) if "edge to direct" in figure.name]
    assert figure.met is met


def section(name: str, *lines: Figure) -> Section:
    return Section(name, f"Title of {name}", "make bench", [("Heading", list(lines))], "somewhere.")


def test_a_section_replaces_itself_alone(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    figures.write(section("kills", Figure("x", "1")), page)
    figures.write(section("bench", at_most("slow", 5, 3)), page)
    figures.write(section("kills", Figure("y", "2 | 3")), page)
    text = page.read_text()
    assert text.startswith("# Measured figures\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Title of bench", "Title of kills"]
    assert "| x | 1 |" not in text
    assert r"| y | 2 \| 3 |" in text
    assert "| slow | 5.0 s | **no**: at most 3 s |" in text
    figures.write(section("kills", Figure("y", "2 | 3")), page)
    assert page.read_text() == text


def test_circumstances_name_machine_and_time() -> None:
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC, commit \S+: \d+ cores", figures.circumstances("Debian 13"))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 100])
def test_kill_points_cover_everything_in_an_order_that_is_spread(count: int) -> None:
    order = campaign.spread(range(1, count + 1))
    assert sorted(order) == list(range(1, count + 1))
    if count >= 8:
        assert order[0] <= count / 4
        assert max(order[:4]) > count / 2
    assert sorted(campaign.spread(range(1, 101), 10)) == list(range(1, 101, 10))


def damage(predictions: str, writes: str, fault: campaign.Fault, *, lost: int = 0, again: float | None = 1.0) -> Figure:
    def records(text: str) -> list[Record]:
        return [Record(n, float(n), 0.5, 200 if sign == "." else 503) for n, sign in enumerate(text)]

    return campaign.Damage(fault, summary(records(predictions)), summary(records(writes)), lost, again).figure


def test_a_fault_is_judged_by_what_clients_noticed() -> None:
    strict, lax = campaign.Fault("a", "true", 0, 15), campaign.Fault("b", "true", 10, 0)
    assert damage("....", "..x.", strict).met
    assert damage(".x..", "....", strict).met is False
    assert damage(".x..", "....", lax).met
    assert damage("." + "x" * 12, "....", lax).met is False
    assert damage("....", "...x", lax).met is False
    assert damage("....", "....", strict, lost=1).met is False
    assert damage("....", "....", strict, again=None).met is False


def test_a_kill_point_needs_a_run_that_ends_well_and_models_that_answer() -> None:
    good = campaign.KillPoint(3, "a task", tree=True, code=0, trouble="", seconds=20)
    bad = campaign.KillPoint(4, "another", tree=True, code=0, trouble="iris answers 503", seconds=30)
    lines = campaign.kill_figures([good, bad], 10)
    assert [figure.met for figure in lines if figure.name.startswith("kill points after")] == [False]
    assert [figure.name for figure in lines if figure.met is False][-1] == "task 4: another"


def test_a_request_belongs_to_the_rollouts_on_either_side() -> None:
    steps = [campaign.Step("1", "2", 10, 20), campaign.Step("2", "1", 30, 40)]

    def answers(*moments: tuple[float, str]) -> list[float]:
        records = [Record(number, at, 0.5, 200, version) for number, (at, version) in enumerate(moments)]
        return [record.start for record in campaign.out_of_turn(records, steps)]

    assert answers((5, "1"), (15, "1"), (15, "2"), (25, "2"), (35, "1"), (35, "2"), (45, "1")) == []
    assert answers((5, "2"), (25, "1"), (45, "2"), (15, "9")) == [5, 15, 25, 45]


def test_rollouts_are_judged() -> None:
    records = [Record(n, float(n), 0.01, 200, "1") for n in range(10)]
    limits = campaign.Limits(cycles=1, requests=10)
    found = campaign.rollout_figures(records, [], [30.0], 1, [], limits)
    assert not any(figure.met is False for figure in found)
    twice = campaign.rollout_figures([*records, records[0]], [], [30.0], 1, [], limits)
    assert [figure.name for figure in twice if figure.met is False] == ["requests answered twice"]


def test_a_failed_run_names_its_task() -> None:
    lines = ["TASK [tracking : Start] ***\n", "fatal: [localhost]: FAILED! => no port\n", "PLAY RECAP ***\n"]
    assert campaign.failure(Run(0, [(0, line) for line in lines], 1)).startswith(
        "tracking : Start: [localhost]: FAILED! => no port"
    )


def test_playbooks_are_run_as_the_makefile_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "PLAYBOOK = .venv/bin/ansible-playbook -i $(INVENTORY)" in makefile
    assert playbook_command("site.yml") == [".venv/bin/ansible-playbook", "-i", "inventory/local", "site.yml"]


def test_the_makefile_calls_the_program() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^bench:.*\n\t.*-m bench \|\|.*-m bench serving \|\|", makefile, re.MULTILINE)
    assert re.search(r"^campaign:.*\n\t.*-m bench fuzz .*-m bench campaign ", makefile, re.MULTILINE)
    assert program.parser().parse_args([]).command is None
    assert program.parser().parse_args(["campaign", "--only", "faults"]).only == ["faults"]


def options(tmp_path: Path, *words: str) -> argparse.Namespace:
    return program.parser().parse_args(["--page", str(tmp_path / "figures.md"), *words])


def test_a_part_that_fails_costs_the_others_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> list[Figure]:
        raise Failure("no such container")

    found = program.attempt(broken)
    assert [(figure.name, figure.met) for figure in found] == [("could not be measured", False)]
    assert "no such container" in found[0].measured
    assert "no such container" in capsys.readouterr().out


def test_a_measurement_that_is_stopped_leaves_the_page_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destroyed: list[str] = []
    monkeypatch.setattr(Machine, "create", lambda *_: sys.exit("terminated"))
    monkeypatch.setattr(Machine, "destroy", lambda machine: destroyed.append(machine.name))
    with pytest.raises(SystemExit):
        program.bench(options(tmp_path))
    assert not (tmp_path / "figures.md").exists()
    assert destroyed == ["ma-bench-deb13"]


def test_a_quick_try_does_not_replace_the_real_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    monkeypatch.setattr(figures, "write", lambda *arguments: written.append(arguments))
    assert program.finish(section("bench", at_most("x", 1, 2)), program.parser().parse_args(["--quick"]))
    assert written == []
    assert not program.finish(section("bench", at_most("x", 3, 2)), program.parser().parse_args([]))
    assert len(written) == 1


def test_the_page_in_the_repository_is_written_by_the_program() -> None:
    assert figures.PAGE.read_text().startswith(figures.HEADER)
