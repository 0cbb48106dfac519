"""The project keeps its own rules: import order, environment in step, sizes, nothing that runs foreign code."""

import ast
import json
import re
import tomllib

import yaml
from conftest import ROOT

# each file may import only files above it
ORDER = [
    "records", "files", "trouble", "versions", "config", "method_rows", "values", "answers", "jail", "verifiers",
    "pocket_words", "pocket_cases", "pocket_choices", "pocket", "benchmarks", "diversity", "pocket_steps", "statistics",
    "published", "spm", "internlm2_words", "internlm2", "adapters", "conversion", "models", "processes", "sharding",
    "linear", "packing", "oracle", "odds", "preferences", "projection", "row_attention", "orpo", "kto", "memory", "kv",
    "attention", "choosing", "batching", "decoding", "prompts", "prompting", "generation", "replies", "asking",
    "budget", "catalog", "servers", "guard", "serving", "sampling", "difficulty", "triplets",
    "planning", "training", "crew", "evaluation", "alive", "lines", "runs", "pilot", "queueing", "stages", "distill",
    "shards", "cards", "lmeval", "export", "upload", "standins", "compare", "groups", "methods", "sweeps",
    "method_text", "why", "figures", "method_figures", "sweep_figures", "why_figures", "study_figures", "markup",
    "lessons", "report_tables", "report_page", "report_run", "report_traces", "report_why", "report_group", "report",
    "pocket_shapes", "pocket_models", "doctor", "cli_options", "cli_groups", "cli_plan", "cli", "__main__",
]  # fmt: skip
TORCH = {
    "adapters", "attention", "batching", "choosing", "conversion", "decoding", "doctor", "generation", "internlm2",
    "internlm2_words", "kto", "kv", "linear", "memory", "models", "odds", "orpo", "packing", "pocket_models",
    "pocket_shapes", "preferences", "processes", "projection", "prompting", "row_attention",
    "sharding", "standins", "training",
}  # fmt: skip
FILES = {path.stem: path for path in (ROOT / "labkit").glob("*.py") if path.stem != "__init__"}


def _imports(path):
    """Module names imported at the top of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_has_its_place():
    assert sorted(FILES) == sorted(ORDER)


def test_imports_only_go_upwards():
    for position, name in enumerate(ORDER):
        inner = {found.split(".")[1] for found in _imports(FILES[name]) if found.startswith("labkit.")}
        below = (inner & set(ORDER)) - set(ORDER[:position])
        assert not below, f"labkit/{name}.py imports {below} from below"


def test_torch_stays_where_it_belongs_and_no_ui_is_imported():
    for name, path in FILES.items():
        roots = {found.split(".")[0] for found in _imports(path)}
        assert not roots & {"gradio", "app"}, name
        assert name in TORCH or not roots & {"torch", "transformers", "accelerate"}, name


def test_the_conda_environment_is_in_step_with_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-e ."]}  # whatever the package needs comes from pyproject.toml
    (python,) = [entry for entry in conda if entry.startswith("python")]
    lowest = re.search(r">=3\.(\d+)", project["requires-python"]).group(1)
    assert python == "python=3.12" and int(lowest) <= 12
    names = {re.split(r"[<>=]", entry)[0] for entry in project["dependencies"]}
    assert {"jupyterlab", "gradio", "torch", "transformers", "datasets", "plotly", "pandas"} <= names


def test_every_dependency_is_pinned_in_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert not {re.split(r"[<>=\[]", entry)[0].lower() for entry in wanted} - pinned


def test_the_readme_names_the_commands_that_exist():
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_security_page_names_tests_that_exist_and_figures_that_hold():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "SECURITY.md" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\btests/[\w./-]+", text))
    assert len(named) >= 8 and not [path for path in named if not (ROOT / path).exists()]
    malformed = [json.loads(line) for line in (ROOT / "tests/data/malformed.jsonl").read_text().splitlines()]
    hostile = sum(map(len, json.loads((ROOT / "tests/data/hostile.json").read_text(encoding="utf-8")).values()))
    assert f"{len(malformed)} inputs of {len({one['kind'] for one in malformed})} kinds" in text
    assert f"{hostile} texts" in text
