"""Cut the part of GitHub's OpenAPI description that adapterbot uses.

    python scripts/openapi_slice.py                       # fetched with `npm pack`
    python scripts/openapi_slice.py --description api.github.com.json

The description comes from the npm package @octokit/openapi at the version pinned below (file
`generated/api.github.com.json`, 13 MB). What goes in is decided by `OPERATIONS`; every schema,
parameter, header and response that these reach goes with them. Prose and examples are dropped,
since a validator reads neither. One line per path and per component, sorted, so that a new
version of the description shows as a readable diff.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "@octokit/openapi@23.0.2"
MEMBER = "package/generated/api.github.com.json"
DEFAULT_OUTPUT = Path(__file__).parent.parent / "tests" / "github_server" / "openapi-slice.json"

OPERATIONS = frozenset(
    {
        "actions/download-artifact",
        "actions/list-artifacts-for-repo",
        "actions/list-workflow-run-artifacts",
        "apps/create-installation-access-token",
        "apps/get-repo-installation",
        "checks/create",
        "checks/get",
        "checks/list-for-ref",
        "checks/update",
        "git/create-blob",
        "git/create-commit",
        "git/create-ref",
        "git/create-tree",
        "git/delete-ref",
        "git/get-blob",
        "git/get-commit",
        "git/get-ref",
        "git/get-tree",
        "git/update-ref",
        "issues/add-labels",
        "issues/create-comment",
        "issues/delete-comment",
        "issues/get-comment",
        "issues/list-comments",
        "issues/update-comment",
        "pulls/create",
        "pulls/get",
        "pulls/list",
        "pulls/list-files",
        "pulls/list-reviews",
        "pulls/request-reviewers",
        "pulls/update",
        "reactions/create-for-issue-comment",
        "repos/compare-commits",
        "repos/create-commit-status",
        "repos/get",
        "repos/get-collaborator-permission-level",
        "users/get-authenticated",
    }
)

_PROSE = frozenset({"description", "summary", "externalDocs", "example", "examples", "tags"})
_METHODS = ("get", "put", "post", "delete", "patch")


def main() -> int:
    """Write the slice; 1 when the description lacks an operation that we use."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--description", type=Path, help="a local api.github.com.json")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    arguments = parser.parse_args()
    raw = arguments.description.read_bytes() if arguments.description else _fetch()
    description = json.loads(raw)
    missing = OPERATIONS - {operation["operationId"] for operation in _operations(description)}
    if missing:
        print(f"not in the description: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    arguments.output.write_text(_dump(_cut(description)), encoding="utf-8")
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1024:.0f} KiB", file=sys.stderr)
    return 0


def _fetch() -> bytes:
    """The description out of the npm package, without installing anything."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["npm", "pack", "--silent", PACKAGE]
        subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(directory).glob("*.tgz")
        with tarfile.open(archive) as package:
            member = package.extractfile(MEMBER)
            if member is None:
                raise SystemExit(f"{PACKAGE} holds no {MEMBER}")
            return member.read()


def _operations(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in description["paths"].values():
        yield from (item[method] for method in _METHODS if method in item)


def _cut(description: dict[str, Any]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for path, item in description["paths"].items():
        used = {m: o for m, o in item.items() if m in _METHODS and o["operationId"] in OPERATIONS}
        if used:
            shared = {"parameters": item["parameters"]} if "parameters" in item else {}
            paths[path] = _without_prose(shared | used)
    components: dict[str, dict[str, Any]] = {}
    waiting = list(_references(paths))
    while waiting:
        _, _, section, name = waiting.pop().split("/")
        if name in components.setdefault(section, {}):
            continue
        component = _without_prose(description["components"][section][name])
        components[section][name] = component
        waiting.extend(_references(component))
    return {
        "openapi": description["openapi"],
        "info": {"title": f"A slice of {PACKAGE}", "version": description["info"]["version"]},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    }


def _without_prose(node: Any, *, names: bool = False) -> Any:
    """Drop what only people read. Below `properties` keys are names, not keywords."""
    if isinstance(node, list):
        return [_without_prose(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {k: v for k, v in node.items() if names or (k not in _PROSE and k[:2] != "x-")}
    stripped = {
        key: value if key == "enum" else _without_prose(value, names=key == "properties")
        for key, value in kept.items()
    }
    # GitHub writes `nullable: true` beside an enum without null (a check run that has no
    # conclusion yet); OpenAPI 3.0.3 reads that as "never null", which GitHub's replies contradict.
    if not names and stripped.get("nullable") is True and None not in stripped.get("enum", [None]):
        stripped["enum"] = [*stripped["enum"], None]
    # A response without a description is not OpenAPI; every response has `content` or nothing.
    if not names and "description" in node and _is_response(node):
        stripped["description"] = ""
    return stripped


def _is_response(node: dict[str, Any]) -> bool:
    return not ({"type", "in", "operationId", "$ref"} & node.keys()) and (
        "content" in node or set(node) <= {"description", "headers"}
    )


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)


def _dump(slice_: dict[str, Any]) -> str:
    def line(value: Any) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def lines(mapping: dict[str, Any]) -> str:
        return ",\n".join(f"{line(key)}:{line(mapping[key])}" for key in sorted(mapping))

    sections = slice_["components"]
    components = ",\n".join(
        f'"{name}":{{\n{lines(sections[name])}\n}}' for name in sorted(sections)
    )
    head = ",\n".join(f"{line(key)}:{line(slice_[key])}" for key in ("openapi", "info", "servers"))
    return (
        f'{{\n{head},\n"paths":{{\n{lines(slice_["paths"])}\n}},\n'
        f'"components":{{\n{components}\n}}\n}}\n'
    )


if __name__ == "__main__":
    raise SystemExit(main())
