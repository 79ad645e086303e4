"""The JSON that GitHub sends, from what the world remembers.

Each shape starts from the least JSON that the description allows, so that no required field can
be forgotten.
"""

from __future__ import annotations

from tests.github_server.contract import contract
from tests.github_server.records import Comment, Json, Pull


def comment_json(url: str, comment: Comment) -> Json:
    api = f"{url}/repos/{comment.repository}/issues"
    page = f"{url}/{comment.repository}/pull/{comment.number}"
    return blank("issue-comment") | {
        "id": comment.id,
        "node_id": f"IC_{comment.id}",
        "url": f"{api}/comments/{comment.id}",
        "html_url": f"{page}#issuecomment-{comment.id}",
        "issue_url": f"{api}/{comment.number}",
        "user": user_json(comment.author) if comment.author else None,  # a deleted account
        "body": comment.body,
        "author_association": "NONE",
        "created_at": comment.created_at,
        "updated_at": comment.updated_at,
    }


def pull_json(url: str, pull: Pull, schema: str) -> Json:
    shape = blank(schema)
    for side, repository, ref, sha in (
        ("head", pull.head_repository, pull.head_ref, pull.head_sha),
        ("base", pull.repository, pull.base_ref, pull.base_sha),
    ):
        shape[side] = shape[side] | {
            "label": f"{repository.split('/')[0]}:{ref}",
            "ref": ref,
            "sha": sha,
            "repo": repository_json(repository, "repository"),
            "user": user_json(repository.split("/")[0]),
        }
    if pull.head_deleted:
        shape["head"]["repo"] = None
    return shape | {
        "id": pull.number,
        "number": pull.number,
        "state": pull.state,
        "title": pull.title,
        "body": pull.body or None,
        "draft": pull.draft,
        "labels": [blank("label") | {"name": name, "description": ""} for name in pull.labels],
        "requested_reviewers": [user_json(name) for name in pull.reviewers],
        "requested_teams": [blank("team") | {"slug": name, "name": name} for name in pull.teams],
        "user": user_json(pull.author),
        "url": f"{url}/repos/{pull.repository}/pulls/{pull.number}",
        "html_url": f"{url}/{pull.repository}/pull/{pull.number}",
        "issue_url": f"{url}/repos/{pull.repository}/issues/{pull.number}",
    }


def blank(schema: str) -> Json:
    shape: Json = contract().blank(schema)
    return shape


def user_json(login: str) -> Json:
    kind = "Bot" if login.endswith("[bot]") else "User"
    return blank("simple-user") | {"login": login, "type": kind, "id": sum(login.encode())}


def repository_json(full_name: str, schema: str) -> Json:
    owner, name = full_name.split("/")
    known = {
        "full_name": full_name,
        "node_id": node_id(full_name),
        "name": name,
        "owner": user_json(owner),
        "default_branch": "main",
    }
    return blank(schema) | known


def node_id(full_name: str) -> str:
    """What GraphQL calls a repository."""
    return f"R_{full_name.encode().hex()}"


def check_json(run: Json, changes: Json) -> Json:
    output = {k: v for k, v in changes.get("output", {}).items() if k != "annotations"}
    annotations = changes.get("output", {}).get("annotations", [])
    run.setdefault("annotations", []).extend(annotations)
    run["output"] = run["output"] | output | {"annotations_count": len(run["annotations"])}
    run.update({k: v for k, v in changes.items() if k not in {"output", "actions"}})
    if "conclusion" in changes:
        run["status"] = "completed"
    return {k: v for k, v in run.items() if k not in {"repository", "annotations"}}
