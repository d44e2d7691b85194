"""Which files touch a scenario."""

import ast

import pytest
from runner import references
from runner.inputs import COMMON, NOTHING, TREE, inputs, matches, nothing, scenarios

from .conftest import Repository

# What a change of one file touches, by hand from the playbooks, roles and tests. Scenarios that come or go are changed here only.
ALL = frozenset(scenarios())
WHOLE = {"fleet", "site", "way"}
EDGES = WHOLE | {"edge", "public", "serving"}
DATABASES = WHOLE | {"postgres", "serving", "tracking", "users"}
CLOUD = {"droplet", "way"}
TOUCHED = {
    # Roles, as a whole.
    "roles/docker/tasks/install.yml": ALL,
    "roles/droplet/tasks/present.yml": CLOUD,
    "roles/edge/templates/haproxy.cfg.j2": EDGES,
    "roles/host/tasks/ssh.yml": WHOLE | {"droplet", "host"},
    "roles/node/tasks/drained.yml": {"fleet"},
    "roles/platform/defaults/main.yml": ALL,
    "roles/postgres/files/entrypoint": DATABASES,
    "roles/swarm/tasks/create.yml": EDGES | DATABASES | {"swarm"},
    "roles/teardown/tasks/remove.yml": {"site"},
    "roles/training/tasks/job.yml": {"serving", "site", "way"},
    "roles/edge/README.md": set(),
    # Parts of roles that others include: validate by preflight, wait by the edge, parent by what builds the instances' images.
    "roles/base_image/tasks/build.yml": EDGES | DATABASES,
    "roles/base_image/tasks/parent.yml": ALL,
    "roles/certificate/files/acme.py": WHOLE | {"public"},
    "roles/certificate/tasks/wait.yml": EDGES,
    "roles/host/tasks/validate.yml": WHOLE | {"droplet", "host"},
    # Modules, what they share, filters and packages.
    "filter_plugins/content_archive.py": WHOLE | {"serving"},
    "filter_plugins/served_models.py": EDGES,
    "inventory_plugins/droplets.py": CLOUD,
    "library/do_droplet.py": CLOUD,
    "library/image_build.py": ALL,
    "library/swarm_rollout.py": WHOLE | {"serving"},
    "library/tcp_listeners.py": WHOLE,
    "module_utils/digitalocean.py": CLOUD,
    "module_utils/engine.py": ALL,
    "serving/app.py": WHOLE | {"serving"},
    "training/cli.py": WHOLE | {"serving"},
    # Playbooks and inventories.
    "inventory/droplet/hosts.yml": CLOUD,
    "inventory/fleet/hosts.yml": set(),
    "playbooks/drain.yml": {"fleet"},
    "playbooks/serve.yml": WHOLE | {"serving"},
    "playbooks/teardown.yml": {"site"},
    # Files of scenarios, and those that others import or name.
    "molecule/browser.py": {"site"},
    "molecule/cis.py": {"site", "way"},
    "molecule/droplet/create.yml": CLOUD,
    "molecule/edge/client.py": {"edge", "fleet", "public", "serving"},
    "molecule/postgres/database.py": {"postgres", "tracking", "users"},
    "molecule/serving/files/factor.py": {"fleet", "serving"},
    "molecule/swarm/tests/test_swarm.py": {"swarm"},
    "molecule/tracking/clients.py": {"tracking", "users"},
    "tests/cloud/double.py": CLOUD,
    "tests/cloud/test_double.py": set(),
    # What all have in common.
    "ansible.cfg": ALL,
    "callback_plugins/phases.py": ALL,
    "inventory/local/hosts.yml": ALL,
    "molecule/instance.py": ALL,
    "molecule/run.py": ALL,
    "molecule/shared/files/probe.py": ALL,
    "requirements-dev.txt": ALL,
    # Its tour is followed there.
    "README.md": {"site"},
    # What touches none.
    "bench/kill.py": set(),
    "docs/speed.md": set(),
    "pyproject.toml": set(),
}
# A scenario that starts from a copy of the golden platform, in the repository of these tests.
GOLDEN = {
    "molecule/shared/tasks/renew.yml": "- include_role: {name: beta, tasks_from: configure}\n",
    "molecule/two/molecule.yml": """\
platforms: [{name: ma-two, image: 'ma-instance/platform:${DEBIAN:-12}'}]
provisioner: {inventory: {group_vars: {all: {molecule_start: [alpha, models]}}}}
""",
    "roles/swarm/tasks/main.yml": "",
    "roles/serving/tasks/main.yml": "",
    "roles/edge/tasks/main.yml": "",
}


@pytest.mark.parametrize("path", TOUCHED)
def test_a_file_touches_exactly_its_scenarios(path: str) -> None:
    assert path in TREE.files
    assert {name for name in scenarios() if path in inputs(name)} == TOUCHED[path]
    assert nothing([path]) == ([] if TOUCHED[path] else [path])


def test_no_file_is_unknown() -> None:
    """Say of a new kind of file what it touches: name it in a scenario, or in COMMON or NOTHING of molecule/runner/inputs.py."""
    assert TREE.unknown == []


@pytest.mark.parametrize("pattern", [*COMMON, *NOTHING])
def test_every_pattern_stands_for_files(pattern: str) -> None:
    assert [path for path in TREE.files if matches(path, [pattern])]


def test_reasons_are_words() -> None:
    why = inputs("edge")
    assert why["molecule/edge/client.py"] == "its own"
    assert why["ansible.cfg"] == "common to all scenarios"
    assert why["roles/edge/tasks/main.yml"] == "role edge, which molecule/edge/converge.yml uses"
    assert why["roles/certificate/tasks/wait.yml"] == "tasks wait of role certificate, which role edge uses"
    assert why["library/engine_exec.py"] == "module engine_exec, which role edge uses"
    assert why["filter_plugins/served_models.py"] == "filter served_models, which role edge uses"


def test_a_file_of_which_nobody_knows_anything_touches_all(repository: Repository) -> None:
    tree = repository({"strategy_plugins/new.py": ""})
    assert tree.unknown == ["strategy_plugins/new.py"]
    assert {name: tree.inputs(name)["strategy_plugins/new.py"] for name in tree.scenarios()} == dict.fromkeys(
        ["one", "two"], "nobody knows what it touches"
    )
    assert tree.nothing(["strategy_plugins/new.py", "LICENSE", "roles/alpha/tasks/main.yml"]) == ["LICENSE"]


def test_untracked_files_count_and_ignored_ones_do_not(repository: Repository) -> None:
    tree = repository({})
    (tree.root / "molecule/one/new.py").touch()
    (tree.root / "molecule/one/run.log").touch()
    (tree.root / "molecule/one/tests/test_one.py").unlink()
    own = [path for path, why in tree.inputs("one").items() if why == "its own"]
    assert own == ["molecule/one/converge.yml", "molecule/one/molecule.yml", "molecule/one/new.py"]


def test_a_module_and_what_it_imports_follow_the_role_that_uses_it(repository: Repository) -> None:
    tree = repository({})
    shared = {"library/mend.py", "module_utils/tools.py", "roles/alpha/tasks/main.yml"}
    assert shared <= tree.inputs("one").keys()
    assert shared.isdisjoint(tree.inputs("two"))


def test_a_copy_depends_on_what_it_has_and_starts_of_the_platform(repository: Repository) -> None:
    tree = repository(GOLDEN)
    found = {
        path for path in tree.inputs("two") if path.startswith("roles/") and "nobody" not in tree.inputs("two")[path]
    }
    # Beta is of its converge.yml.
    assert {path.split("/")[1] for path in found} == {"alpha", "beta", "serving", "swarm"}
    assert "molecule/shared/tasks/renew.yml" in tree.inputs("two")
    assert "molecule/shared/tasks/renew.yml" not in tree.inputs("one")
    assert "roles/swarm/tasks/main.yml" not in tree.inputs("one")


def test_a_list_of_roles_replaces_the_default_where_it_is_given(repository: Repository) -> None:
    include = "- ansible.builtin.include_role: {name: '{{ item }}', tasks_from: validate}\n  loop: '{{ gate_roles }}'\n"
    files = {
        "roles/gate/defaults/main.yml": "gate_roles: [alpha, beta]\n",
        "roles/gate/tasks/main.yml": include,
        "roles/alpha/tasks/validate.yml": "- ansible.builtin.include_tasks: more.yml\n",
        "roles/alpha/tasks/more.yml": "",
        "roles/beta/tasks/validate.yml": "- ansible.builtin.include_tasks: '{{ what }}.yml'\n",
        "molecule/one/converge.yml": "- hosts: all\n  roles: [gate]\n",
        "molecule/two/converge.yml": "- hosts: all\n  roles: [{role: gate, gate_roles: [alpha]}]\n",
    }
    tree = repository(files)
    parts = {"roles/alpha/tasks/validate.yml", "roles/alpha/tasks/more.yml"}
    # Nothing runs the rest of alpha, so it touches all.
    assert tree.unknown == ["library/mend.py", "module_utils/tools.py", "roles/alpha/tasks/main.yml"]
    used = {
        name: {path for path in tree.inputs(name) if path.startswith("roles/")} - {*tree.unknown}
        for name in tree.scenarios()
    }
    gate = {"roles/gate/defaults/main.yml", "roles/gate/tasks/main.yml"}
    # A computed name may be any file of the role.
    assert used["one"] == gate | parts | {"roles/beta/tasks/main.yml", "roles/beta/tasks/validate.yml"}
    assert used["two"] == gate | parts


@pytest.mark.parametrize("path", ["molecule/two/converge.yml", "roles/beta/tasks/main.yml"])
def test_a_computed_role_may_be_any_where_no_list_says_which(path: str, repository: Repository) -> None:
    include = "{import_role: {name: '{{ which }}'}}"
    play = f"- hosts: all\n  tasks: [{include}]\n" if path.startswith("molecule") else f"- {include}\n"
    found = repository({path: play}).inputs("two")
    assert found["roles/alpha/tasks/main.yml"].startswith("role alpha, which ")


def test_files_that_cannot_be_read_name_nothing(repository: Repository) -> None:
    files = {"molecule/one/tests/test_one.py": "def (", "roles/alpha/tasks/main.yml": "a: [", "roles/alpha/x.yml": ""}
    assert {"molecule/one/tests/test_one.py", "roles/alpha/tasks/main.yml"} <= repository(files).inputs("one").keys()


def test_a_fingerprint_tells_content_mode_and_absence(repository: Repository) -> None:
    tree = repository({})
    file = tree.root / "roles/alpha/tasks/main.yml"
    before = tree.fingerprint("one")
    assert before.keys() == tree.inputs("one").keys()
    file.chmod(0o755)
    executable = tree.fingerprint("one")
    assert executable["roles/alpha/tasks/main.yml"] == before["roles/alpha/tasks/main.yml"] + "+x"
    file.write_text("- {}\n")
    assert tree.fingerprint("one")["roles/alpha/tasks/main.yml"] != executable["roles/alpha/tasks/main.yml"]
    file.unlink()
    assert tree.fingerprint("one")["roles/alpha/tasks/main.yml"] == "removed"


def test_a_path_in_pieces_is_one_text() -> None:
    """Its first pieces alone would name whole directories."""
    found = references.literals(ast.parse('x = ROOT / "a" / "b.py"\ny = Path("c") / name / "d"'))
    assert list(found) == ["a/b.py", "c", "d"]


def test_imports_are_named_in_full() -> None:
    nodes = list(ast.walk(ast.parse("import a.b\nfrom c import d\nfrom .e import f\nfrom . import g")))
    assert list(references.imports(nodes, "x/y")) == ["a.b", "c", "c.d", "x.y.e", "x.y.e.f", "x.y", "x.y.g"]


def test_programs_are_packages_after_their_flag() -> None:
    nodes = list(ast.walk(ast.parse('run(["python", "-m", "a"])\nrun("python", "-m", "b")\nrun("-m", c)')))
    assert list(references.programs(nodes)) == ["b", "a"]


def test_filters_are_what_the_plugin_returns() -> None:
    plugin = "class FilterModule:\n    def filters(self):\n        return {'a': f, 'b': g}\n\nother = {'c': 1}"
    assert references.filters(ast.parse(plugin)) == ["a", "b"]


def test_mappings_and_texts_are_found_in_depth() -> None:
    data = {"a": [{"b": "c"}], "d": "e"}
    assert list(references.mappings(data)) == [data, {"b": "c"}]
    assert list(references.strings(data)) == ["c", "e"]
