"""Fills the generated parts of README.md: the workflow to paste, which is the one that `adapterbot
init` writes, and the action's inputs and outputs. Copies that workflow to docs/examples as well.
`--check` says whether all is up to date, and writes nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / "adapterbot" / "templates" / "adapter-gate.yml"


def table(fields: dict[str, dict[str, str]], with_default: bool) -> str:
    """A Markdown table of inputs or outputs, in the order of action.yml."""
    head = "| Name | Meaning | Default |" if with_default else "| Name | Meaning |"
    lines = [head, "|---" * (3 if with_default else 2) + "|"]
    for name, field in fields.items():
        meaning = " ".join(field["description"].split()).replace("|", "\\|")
        default = f"`{field['default']}` |" if field.get("default") else " |"
        lines.append(f"| `{name}` | {meaning} |" + (f" {default}" if with_default else ""))
    return "\n".join(lines)


def filled(readme: str) -> str:
    """README.md with every generated part made anew."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))

    def between(name: str, content: str) -> None:
        nonlocal readme
        start, end = rf"<!-- {name}[^>]*-->\n", rf"<!-- /{name.split(':', maxsplit=1)[0]} -->"
        readme, count = re.subn(
            f"({start}).*?({end})",
            lambda match: f"{match[1]}{content}\n{match[2]}",
            readme,
            flags=re.DOTALL,
        )
        if count != 1:
            raise SystemExit(f"README.md: the part {name!r} occurs {count} times, not once")

    workflow = WORKFLOW.read_text(encoding="utf-8").rstrip()
    between("workflow: docs/examples/adapter-gate.yml", f"```yaml\n{workflow}\n```")
    between("inputs", table(action["inputs"], with_default=True))
    between("outputs", table(action["outputs"], with_default=False))
    return readme


def main() -> None:
    """Write what is generated, or compare it."""
    readme = ROOT / "README.md"
    generated = {
        readme: filled(readme.read_text(encoding="utf-8")),
        ROOT / "docs" / "examples" / WORKFLOW.name: WORKFLOW.read_text(encoding="utf-8"),
    }
    for path, text in generated.items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{path.name} is out of date; run `python scripts/readme.py`")


if __name__ == "__main__":
    main()
