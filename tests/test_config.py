"""Settings: the recipes are valid, every field explains itself, and a mistake is named in one line."""

import pytest

from labkit.config import RunConfig, configure, parse_changes, recipe, recipes, variants
from labkit.records import LabError


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_is_valid_and_knows_its_name(name):
    assert recipe(name).recipe == name


def test_the_defaults_are_the_papers():
    config = configure({"benchmarks": "gsm8k"})
    assert (config.k, config.temperature, config.rouge_threshold) == (8, 0.8, 0.8)
    assert (config.lam, config.phi, config.epochs, config.nll_span) == (1.0, 0.5, 5, "response")


def test_every_setting_is_described():
    assert [name for name, field in RunConfig.model_fields.items() if not field.description] == []


def test_changes_on_the_command_line_are_read_as_their_type():
    config = recipe(
        "pocket-quick", parse_changes(["phi=1", "lam = 0.1", "benchmarks=pocket_arc, pocket_gsm8k", "problems=none"])
    )
    assert (config.phi, config.lam, config.problems) == (1.0, 0.1, None)
    assert config.benchmarks == ("pocket_arc", "pocket_gsm8k")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phi": "2"}, ["phi = '2'", "less than or equal to 1"]),
        ({"k": "0"}, ["k = '0'", "greater than or equal to 1"]),
        ({"lam": "nan"}, ["lam", "finite"]),
        ({"epochs": "many"}, ["epochs = 'many'", "integer"]),
        ({"method": "dpo"}, ["method = 'dpo'", "orpo"]),
        ({"lamda": "1"}, ["unknown setting 'lamda'", "'lam'"]),
        ({"benchmarks": ""}, ["benchmarks"]),
        ({"benchmarks": "gsm8k,gsm8k"}, ["twice"]),
        ({"k": "9", "max_draws": "8"}, ["max_draws = 8", "k = 9"]),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_what_is_allowed(change, said):
    with pytest.raises(LabError) as error:
        recipe("pocket-quick", change)
    assert all(part in str(error.value) for part in said), error.value
    assert "\n" not in str(error.value)


def test_a_recipe_of_your_own_is_a_yaml_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("benchmarks: [pocket_arc]\nk: 2\n")
    config = recipe(str(tmp_path / "mine.yaml"))
    assert (config.recipe, config.k) == ("mine", 2)


@pytest.mark.parametrize("text", ["k: [", "just words", "benchmarks: {a: 1}"])
def test_a_broken_recipe_file_is_refused(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(LabError):
        recipe(str(tmp_path / "mine.yaml"))


def test_unknown_recipe_and_malformed_change():
    with pytest.raises(LabError, match=r"one of paper-ablations, .*pocket"):
        recipe("nope")
    with pytest.raises(LabError, match="field=value"):
        parse_changes(["phi"])


def test_a_recipe_can_list_variants_for_a_group_of_runs(tmp_path):
    (tmp_path / "mine.yaml").write_text("benchmarks: [pocket_arc]\nvariants:\n  few: {k: 2}\n  many: {k: 9}\n")
    name = str(tmp_path / "mine.yaml")
    assert recipe(name).k == 8 and variants(name) == {"few": {"k": 2}, "many": {"k": 9}}
    assert variants("pocket") == {}
    for bad in ("variants: [a]", "variants: {a: 1}", "variants: {'a/b': {k: 2}}"):
        (tmp_path / "mine.yaml").write_text(f"benchmarks: [pocket_arc]\n{bad}\n")
        with pytest.raises(LabError, match="variant"):
            variants(name)
