"""Write the documentation as a site with search, from Markdown, docstrings and notebooks: `make docs-site`.

    python tests/make_docs_site.py FOLDER

A link to a heading or a file that does not exist is an error.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
GUIDES = {
    "Guides": ["bootstrap_core/README", "converters/README", "zoo/README", "specs/README"],
    "Notebooks": sorted(f"tests/notebooks/{path.stem}" for path in (ROOT / "tests/notebooks").glob("*.ipynb")),
    "Reference": [f"reference/{package}" for package in ("zoo", "converters", "bootstrap_core", "specs")],
    "Project": ["ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "tests/benchmarks/README"],
}
"""Pages by heading of the sidebar, in their order; the first page of all is the README. The search leaves out those of
the project, which name everything."""
SETTINGS = {
    "project": "snnzoo",
    "root_doc": "README",
    "highlight_language": "none",
    "html_theme": "furo",
    "html_title": "snnzoo",
    "html_copy_source": "0",
    "extensions": "myst_nb,sphinx.ext.autodoc,sphinx.ext.napoleon",
    "exclude_patterns": "tests/golden",
    "nb_execution_mode": "auto",
    "nb_execution_timeout": "600",
    "nb_execution_raise_on_error": "1",
    "myst_heading_anchors": "4",
    "default_role": "literal",
    "autodoc_typehints": "none",
    "autodoc_member_order": "bysource",
    "napoleon_use_ivar": "1",
    "napoleon_use_rtype": "0",
}
"""Settings of Sphinx. Its search works without a server, also from a folder."""
SCORER = """
var Scorer = {objNameMatch: 3, objPartialMatch: 1, objPrio: {0: 2, 1: 0, 2: -1}, objPrioDefault: 0,
              title: 15, partialTitle: 7, term: 5, partialTerm: 2};
"""
"""Scores of the search: pages that explain a word come before names in Python that contain it."""
SIDEBAR = """
```{{toctree}}
:hidden:
:maxdepth: 1
:caption: {title}

{pages}
```
"""
REFERENCE = """
# {package}

```{{eval-rst}}
.. automodule:: {package}
   :members:
   :exclude-members: model_config
```
"""


def write_pages(folder: Path) -> None:
    """Copy Markdown, pictures and notebooks to the folder, and add the sidebar and a page of each package's names."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if Path(name).suffix in {".md", ".ipynb", ".gif", ".png", ".py"} or name == "LICENSE":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    with (folder / "README.md").open("a") as readme:
        for title, pages in GUIDES.items():
            readme.write(SIDEBAR.format(title=title, pages="\n".join(pages)))
    for page in GUIDES["Project"]:
        path = folder / f"{page}.md"
        path.write_text(f"---\nnosearch: true\n---\n{path.read_text()}")
    (folder / "scorer.js").write_text(SCORER)
    (folder / "reference").mkdir()
    for page in GUIDES["Reference"]:
        (folder / f"{page}.md").write_text(REFERENCE.format(package=Path(page).name))


def main(folder: Path) -> int:
    """Write the site to a folder; return 1 after a warning, such as of a dead link."""
    from sphinx.cmd.build import main as build

    with TemporaryDirectory() as pages:
        write_pages(Path(pages))
        values = {**SETTINGS, "html_search_scorer": f"{pages}/scorer.js"}
        settings = [part for name, value in values.items() for part in ("-D", f"{name}={value}")]
        code = build(["-q", "-W", "--keep-going", "-C", *settings, pages, str(folder)])
    (folder / "index.html").write_text('<meta http-equiv="refresh" content="0; url=README.html">')
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
