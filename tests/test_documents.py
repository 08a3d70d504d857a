"""The documents: what they point to exists, and every equation names a function that is there."""

import re

import pytest

PAGES = ["README.md", "docs/README.md", "docs/method.md", "docs/results.md", "docs/extending.md", "docs/data.md"]
PAGES += ["docs/which.md", "docs/pipelines.md", "docs/zoo.md", "docs/clusters.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_to_files(root, page):
    text = (root / page).read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    paths = re.findall(r"`((?:bundle|configs|docs|models|scripts|tests)/[\w./]+\w)`", text)
    missing = [path for path in paths if not (root / path).exists() and not path.startswith("docs/results/")]
    assert missing == []
    assert [link for link in links if not ((root / page).parent / link).exists()] == []


def test_every_equation_stands_beside_a_function_that_exists(root):
    source = "\n".join(path.read_text() for path in (root / "bundle").rglob("*.py"))
    lines = [line for line in (root / "docs" / "method.md").read_text().splitlines() if line.startswith("    ")]
    columns = [re.split(r"\s{2,}", line.strip())[-1] for line in lines if re.search(r"\S\s{2,}\S", line)]
    named = [name for column in columns for name in re.findall(r"(?:[A-Z]\w+\.)?\w*[a-z]{3}\w*", column)]
    assert len(named) > 20
    for name in named:
        assert re.search(rf"(def|class) {name.split('.')[-1]}\b", source), f"{name}: no such function"


def test_the_readme_maps_every_part(root):
    text = (root / "README.md").read_text()
    modules = {path.name for path in (root / "bundle").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert [name for name in modules if f"bundle/{name}/" not in text] == []
