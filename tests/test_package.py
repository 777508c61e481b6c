"""The package as installed: what its command loads, and that what is written about it is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmctr_jax import __version__, cli

ROOT = Path(__file__).parents[1]


def test_the_commands_help_loads_no_library():
    program = """
import sys
before = set(sys.modules)
from mmctr_jax.cli import main
sys.argv = ["mmctr", "--help"]
try:
    main()
finally:
    loaded = {name.split(".")[0] for name in set(sys.modules) - before}
    print(*sorted(loaded - sys.stdlib_module_names), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr.split() == ["mmctr_jax"]
    assert all(f"\n    {name} " in result.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_module_of_its_name(name):
    assert (ROOT / "mmctr_jax" / "commands" / f"{name}.py").is_file()


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__


def test_the_readme_is_read_in_three_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_file_that_the_documentation_links_to_exists():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    missing = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                missing.append(f"{page.name}: {target}")
    assert missing == []
