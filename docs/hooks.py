"""What mkdocs cannot do by itself: pages outside docs/ are part of the site, and links to them work there."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    **{name: name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE")},
    "data/ml-latest-small/README.txt": "data/ml-latest-small/README.txt",
    **{
        f"benchmarks/{p.name}": f"benchmarks/{p.name}" for p in ROOT.glob("benchmarks/*") if p.suffix in (".md", ".png")
    },
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of OUTSIDE, named by their path from the root, to those of docs/."""
    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are right in the repository → as they are right in the site, where docs/ is the root."""
    source = page.file.src_uri
    if source in OUTSIDE.values():  # at the root, or one folder below it
        markdown = re.sub(r"\]\((\.\./)?docs/", r"](\1", markdown)
    else:
        markdown = markdown.replace("](../", "](")
    return markdown.replace("](README.md", "](index.md")
