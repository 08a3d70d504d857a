"""Who may import whom, read from the syntax trees; the table is the one in docs/extending.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Modules that stand below everything: they import nothing from the bundle but each other, and all may import them.
FLOOR = {"_torchvision", "errors", "files", "images", "randomness", "tuning", "weights"}

MAY_IMPORT = {
    "attributes": set(),
    "sampling": set(),
    "generation": {"sampling"},
    "networks": set(),
    "transforms": set(),
    "cohorts": {"attributes"},
    "prompts": {"attributes"},
    "evaluation": {"attributes"},
    "conditioning": {"prompts"},
    "training": {"attributes", "prompts", "conditioning", "sampling", "generation"},
    "evaluating": {"attributes", "cohorts", "prompts", "generation", "networks", "evaluation"},  # jobs, like a config
    "inference": {"attributes", "cohorts.tables", "prompts", "generation", "sampling"},
    "fairdiffusion": {"attributes", "training"},
    "alignment": {"attributes", "prompts", "conditioning", "sampling", "generation", "evaluation.prevalence"},
}


class _ForTypesOnly(ast.NodeTransformer):
    """Drop `if TYPE_CHECKING:` blocks: a name in an annotation ties nothing at run time."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imported_modules(source: str) -> set[str]:
    """Dotted names of every import made at run time, wherever it stands; `from a import b` counts as `a.b`."""
    names = set()
    for node in ast.walk(_ForTypesOnly().visit(ast.parse(source))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def violations(part: str, source: str, allowed: set[str]) -> set[str]:
    """Imports of the bundle that a part of it may not make."""
    inside = {name.removeprefix("bundle.") for name in imported_modules(source) if name.startswith("bundle.")}
    granted = allowed | FLOOR | {part}
    return {name for name in inside if not any(name == other or name.startswith(f"{other}.") for other in granted)}


def parts() -> list[tuple[str, Path]]:
    """Every module of the bundle with the name of the part it belongs to."""
    folder = ROOT / "bundle"
    files = sorted(path for path in folder.rglob("*.py") if path != folder / "__init__.py")
    return [(path.relative_to(folder).parts[0].removesuffix(".py"), path) for path in files]


@pytest.mark.parametrize(("part", "path"), parts(), ids=lambda value: value if isinstance(value, str) else value.stem)
def test_imports_point_the_right_way(part, path):
    assert part in MAY_IMPORT or part in FLOOR, f"{part}: say in MAY_IMPORT what it may import"
    wrong = violations(part, path.read_text(), MAY_IMPORT.get(part, set()))
    assert not wrong, f"{path.relative_to(ROOT)} may not import {sorted(wrong)}"


def test_the_bundle_never_imports_scripts_or_tests():
    for _, path in parts():
        assert not {name.partition(".")[0] for name in imported_modules(path.read_text())} & {"scripts", "tests"}


def test_the_checker_sees_what_it_must():
    assert violations("alignment", "from bundle.evaluation import quality", MAY_IMPORT["alignment"])
    assert violations("alignment", "def f():\n    import bundle.fairdiffusion.search", MAY_IMPORT["alignment"])
    assert not violations("alignment", "from bundle.evaluation.prevalence import adjust", MAY_IMPORT["alignment"])
    assert not violations("cohorts", "from bundle.cohorts import record\nfrom bundle.errors import x", {"attributes"})
    assert not violations("alignment", "if TYPE_CHECKING:\n    from bundle.networks import x", MAY_IMPORT["alignment"])
    assert len(parts()) >= 10
