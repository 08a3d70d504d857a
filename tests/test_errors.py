"""The last line a user sees, and options that would change nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from bundle.errors import InputError, check_folder, check_overrides, find_input_error, report_errors

MAIN = str(Path("site-packages", "monai", "bundle", "__main__.py"))

CONFIG = """
initialize:
- $import bundle
- "$bundle.errors.report_errors()"
- "$bundle.errors.check_overrides()"
learning_rate: 0.1
bundle_root: "."
net: {_target_: torch.nn.Linear, in_features: 1, out_features: 2}
optimiser: {settings: {momentum: 0.9}, groups: [{weight: 1}]}
train:
  trainer: {_target_: builtins.dict, max_epochs: 2}
work: "$(_ for _ in ()).throw(bundle.errors.InputError('data.json: field sex: no such column; add it'))"
training: ["$print('trained at', @learning_rate)"]
failing: ["$@work"]
crashing: ["$1 / 0"]
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "align.yaml"
    file.write_text(CONFIG)
    return file


# --- the last line -----------------------------------------------------------------------------------------------


def run_bundle(root, *options):
    """A real command line, from the bundle's folder; finished process with its text."""
    command = [sys.executable, "-m", "monai.bundle", "run", *map(str, options)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)


def test_an_input_error_inside_a_config_ends_in_one_clear_line(root, config):
    done = run_bundle(root, "failing", "--config_file", config)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: data.json: field sex: no such column; add it"
    assert "Traceback" not in done.stderr


def test_a_mistyped_option_ends_the_run_before_it_starts(root, config):
    done = run_bundle(root, "training", "--config_file", config, "--learning_rte", "0.5")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"error: --learning_rte: no key 'learning_rte' in {config}; did you mean --learning_rate?"
    assert "trained" not in done.stdout


def test_good_options_reach_the_config(root, config):
    done = run_bundle(root, "training", "--config_file", config, "--learning_rate", "0.5", "--train::trainer::amp")
    assert done.returncode == 0, done.stderr
    assert "trained at 0.5" in done.stdout


@pytest.fixture
def hook(monkeypatch):
    """The exception hook after `report_errors`, in front of one that says 'shown'."""
    monkeypatch.setattr(sys, "excepthook", lambda *_: print("shown"))
    report_errors()
    report_errors()  # a second call, as from a second config, changes nothing
    return lambda error: sys.excepthook(type(error), error, None)


def chained(outer, inner, hide=False):
    try:
        try:
            raise inner
        except Exception as cause:
            if hide:
                raise outer from None
            raise outer from cause
    except Exception as error:
        return error


def test_wrapped_input_errors_are_found(hook, capsys):
    hook(chained(RuntimeError("Failed to evaluate"), chained(RuntimeError("again"), InputError("a: b;\n c"))))
    assert capsys.readouterr() == ("", "error: a: b; c\n")


def test_a_worker_processs_traceback_is_reduced_to_its_last_message(hook, capsys):
    text = "Caught InputError in worker 0.\nTraceback ...\n  File x\nbundle.errors.InputError: f.json: gone"
    hook(InputError(text))
    assert capsys.readouterr().err == "error: f.json: gone\n"


def test_other_errors_are_shown_as_before(hook, capsys):
    hook(KeyError("x"))
    hook(chained(RuntimeError("handled"), InputError("forgiven"), hide=True))
    assert capsys.readouterr() == ("shown\nshown\n", "")


def test_a_circular_chain_ends():
    first, second = ValueError(), ValueError()
    first.__context__, second.__context__ = second, first
    assert find_input_error(first) is None


# --- options -----------------------------------------------------------------------------------------------------


def check(config, *options):
    check_overrides([MAIN, "run", "training", "--config_file", str(config), *options])


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--learning_rate", "0.5"),
        ("--learning-rate", "0.5"),
        ("--learning_rate=-1",),
        ("--train::trainer::max_epochs", "3"),
        ("--train#trainer#max_epochs=3",),
        ("--train::trainer::amp",),  # a new argument of a component: its constructor has the last word
        ("--optimiser::groups::0::weight", "2"),
        ("--+optimiser", "{'a': 1}"),
        ("--init_id", "initialize", "--final_id", "x", "--meta_file", "m", "--logging_file", "l"),
        ("--tracking", "mlflow", "--experiment_name", "e", "--run_name", "r", "--output_dir", "o"),
        ("--workflow_type", "train"),
        ("--_meta_::version", "1"),
        ("--learning_rate", "0.1", "--", "--trace"),
    ],
    ids=" ".join,
)
def test_options_that_mean_something_pass(config, options):
    check(config, *options)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--learning_rte", "0.1"), "--learning_rte: no key 'learning_rte' .*did you mean --learning_rate"),
        (("--train.trainer.max_epochs", "3"), "did you mean --train::trainer::max_epochs"),
        (("--optimiser::settings::momentun", "0"), "no key 'momentun' .*did you mean --optimiser::settings::momentum"),
        (("--optimiser::setings::momentum", "0"), "did you mean --optimiser::settings::momentum"),
        (("--optimiser::groups::1::weight", "0"), "no key '1'"),
        (("--learning_rate::x", "0"), "no key 'x'"),
        (("--zzz",), "no key 'zzz' .*see the keys"),
        (("--run_name", "r"), "no key 'run_name'"),  # belongs to --tracking, which was not asked for
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_lead_nowhere_are_refused(config, options, hint):
    with pytest.raises(InputError, match=hint):
        check(config, *options)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--learning_rate", "false"), "read as a word; write --learning_rate False"),
        (("--train::trainer::amp", "true"), "write --train::trainer::amp True"),
        (("--learning_rate", "null"), r"write --learning_rate '\$None'"),
        (("--learning_rate=None",), r"--learning_rate None: MONAI leaves it out; write --learning_rate '\$None'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_values_that_would_be_misread_are_refused(config, options, hint):
    with pytest.raises(InputError, match=hint):
        check(config, *options)


@pytest.mark.parametrize("value", ["True", "False", "$None", "0", "''", "truth"])
def test_values_as_python_writes_them_pass(config, value):
    check(config, "--learning_rate", value)


def test_several_config_files_count_as_one(config, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text('extra: 1\n"train::trainer::max_epochs": 7\n')
    both = f"['{config}','{overlay}']"
    check(both, "--extra", "2", "--learning_rate", "1")
    with pytest.raises(InputError, match="extrs"):
        check(both, "--extrs", "2")


def test_options_in_an_args_file_are_checked_too(config, tmp_path):
    file = tmp_path / "args.yaml"
    file.write_text(f"config_file: {config}\nlerning_rate: 2\n")
    with pytest.raises(InputError, match="--learning_rate"):
        check_overrides([MAIN, "run", "training", "--args_file", str(file)])


@pytest.mark.parametrize("argv", [["pytest", "--zzz"], [MAIN, "verify_metadata", "--zzz", "1"], [MAIN], [""]])
def test_other_command_lines_are_left_alone(argv):
    check_overrides(argv)


def test_the_bundles_folder_is_recognised(root, tmp_path):
    check_folder(root)
    with pytest.raises(InputError, match="start the command in the bundle's own folder"):
        check_folder(tmp_path)
