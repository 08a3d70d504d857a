"""Errors that a user can act on: one clear last line, and the check of the command line that MONAI leaves out."""

import difflib
import functools
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used. The message, one line, names the file, the field and the remedy."""


def find_input_error(error: BaseException | None) -> InputError | None:
    """Return the outermost ``InputError`` among an exception and its causes, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, InputError):
            return error
        seen.add(id(error))
        hidden = error.__suppress_context__ or error.__cause__ is not None
        error = error.__cause__ if hidden else error.__context__
    return None


def report_errors() -> None:
    """Let a run that an ``InputError`` ends print the line ``error: <message>`` instead of a traceback.

    MONAI wraps whatever a config raises ("Failed to evaluate ..."), so the message that matters would be buried. The
    exit status stays 1, and every other exception is shown as before. A config calls this first in ``initialize``.
    """
    if getattr(sys.excepthook, "func", None) is not _report:
        sys.excepthook = functools.partial(_report, sys.excepthook)


def _report(show: Any, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    found = find_input_error(error)
    if found is None:
        show(kind, error, trace)
        return
    sys.stdout.flush()
    # A data loader's worker hands its whole traceback on as the message; the part that counts stands last.
    message = str(found).rpartition("InputError: ")[2]
    print("error:", " ".join(message.split()), file=sys.stderr, flush=True)


def check_folder(bundle_root: str | Path = ".") -> None:
    """Raise ``InputError`` unless ``bundle_root`` is the bundle's folder.

    The configs name their parts (``%configs/common.yaml::...``), weights and cohorts relative to that folder.
    """
    root = Path(bundle_root)
    if not (root / "configs" / "metadata.json").is_file():
        raise InputError(
            f"bundle_root '{bundle_root}': {root.resolve()} holds no configs/metadata.json; "
            "start the command in the bundle's own folder"
        )


def check_overrides(argv: list[str] | None = None) -> None:
    """Refuse options of ``python -m monai.bundle run`` that would change nothing.

    MONAI takes ``--learning_rte 0.1`` or ``--train.trainer.max_epochs 3`` for new top-level entries that nobody reads,
    and says nothing; it takes ``false`` for a word, which is true, and leaves ``None`` out. Here an id must lead to an
    entry of the config files; only a component (a dictionary with ``_target_``) may be given a new argument, because
    its constructor checks the name.

    Args:
        argv: a command line as in ``sys.argv`` (default); one that is not of ``monai.bundle run`` passes.

    Raises:
        InputError: naming the option and the nearest key, or how its value is written.
    """
    options = _run_options(sys.argv if argv is None else argv)
    if not options.get("config_file"):
        return
    from monai.bundle import ConfigParser

    files = options["config_file"]
    config = ConfigParser.load_config_files(files)
    allowed = _arguments_of_run(options.get("tracking"))
    for name, value in options.items():
        if name not in allowed and not name.startswith("_meta_"):
            _check_id(config, name.removeprefix("+"), files)
            _check_value(name, value)


def _run_options(argv: list[str]) -> dict[str, Any]:
    """Options of a ``monai.bundle run`` command line by name, read as MONAI reads them; empty for any other."""
    if Path(argv[0]).parts[-3:] != ("monai", "bundle", "__main__.py") or argv[1:2] not in (["run"], ["run_workflow"]):
        return {}
    import fire
    from monai.bundle import ConfigParser, scripts

    command = getattr(scripts, argv[1])
    words, _ = fire.parser.SeparateFlagArgs(argv[2:])
    # fire's own reading of the words, so that quoting, `--key=value` and lone flags mean here what they mean there
    named, _, bare = fire.core._ParseKeywordArgs(words, fire.inspectutils.GetFullArgSpec(command))
    free = [name for name in inspect.signature(command).parameters if name not in named]
    given = {**named, **dict(zip(free, bare))}
    options = {name: fire.parser.DefaultParseValue(value) for name, value in given.items()}
    defaults = ConfigParser.load_config_file(options["args_file"]) if options.get("args_file") else {}
    return {**defaults, **options}


def _arguments_of_run(tracking: Any) -> set[str]:
    """Names that belong to the command itself, or that ``--tracking`` adds to the config."""
    from monai.bundle import ConfigParser, ConfigWorkflow, scripts
    from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

    names = {"workflow_name"}
    for function in (scripts.run, scripts.run_workflow, ConfigWorkflow.__init__):
        names.update(inspect.signature(function).parameters)
    if tracking is not None:
        known = isinstance(tracking, str) and tracking in DEFAULT_EXP_MGMT_SETTINGS
        settings = DEFAULT_EXP_MGMT_SETTINGS[tracking] if known else ConfigParser.load_config_files(tracking)
        names.update(settings.get("configs", {}), ("output_dir", "save_execute_config"))
    return names


def _check_id(config: dict, name: str, files: Any) -> None:
    """Raise ``InputError`` unless the id ``a::b::c`` leads to an entry of the config or to a component's argument."""
    rest, node = _follow(config, name)
    if not rest or (len(rest) == 1 and "_target_" in _keys(node)):
        return
    parts = name.replace("#", "::").split("::")
    dotted = name.replace(".", "::")
    near = difflib.get_close_matches(rest[0], _keys(node), n=1)
    hint = "see the keys of that file"
    if not _follow(config, dotted)[0]:
        hint = f"did you mean --{dotted}?"
    elif near:
        hint = f"did you mean --{'::'.join([*parts[: -len(rest)], near[0], *rest[1:]])}?"
    raise InputError(f"--{name}: no key '{rest[0]}' in {files}; {hint}")


# Words that another language would read as what the user means, and None, which MONAI drops -> how to write it here.
MEANT = {"true": "True", "false": "False", "null": "'$None'", "none": "'$None'", None: "'$None'"}


def _check_value(name: str, value: Any) -> None:
    """Raise ``InputError`` for a value that would be read as a word, a true one at that, or not at all."""
    if isinstance(value, str | None) and (meant := MEANT.get(value)):
        read = "MONAI leaves it out" if value is None else "read as a word"
        raise InputError(f"--{name} {value}: {read}; write --{name} {meant}")


def _follow(config: Any, name: str) -> tuple[list[str], Any]:
    """Walk the id ``a::b::c``; return the parts that lead nowhere, and the entry where the walk ended."""
    parts = name.replace("#", "::").split("::")
    while parts and parts[0] in _keys(config):
        config = config[int(parts[0])] if isinstance(config, list) else config[parts[0]]
        parts = parts[1:]
    return parts, config


def _keys(node: Any) -> list[str]:
    if isinstance(node, list):
        return [str(index) for index in range(len(node))]
    return list(node) if isinstance(node, dict) else []


def chosen(entries: Mapping[str, Any], name: str, field: str) -> Any:
    """The entry called ``name``, that a config's ``field`` asks for. Raises InputError where there is none."""
    if name not in entries:
        raise InputError(f"{field} '{name}' is unknown; choose one of {', '.join(entries)}")
    return entries[name]
