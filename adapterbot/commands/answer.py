"""`adapterbot answer`: a comment asks for something; may it, what exactly, and about which commit?

Nothing is evaluated here. What was asked for leaves as outputs, bound to the commit that the pull
request is at now: whoever pushes afterwards does not get their files run on this say-so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.commands import place as places
from adapterbot.console import listener_for
from adapterbot.context import Activity, Asked
from adapterbot.gh import workflow
from adapterbot.gh.access import client_for
from adapterbot.pages import inert
from adapterbot.slash import Verb

if TYPE_CHECKING:
    from adapterbot.gh.heads import Head
    from adapterbot.gh.replies import Conversation

HELP = """\
On the first line of a new comment, from somebody who may push to this repository:

- `/adapterbot bisect [metric]` searches the checkpoints of this pull request for the one that \
broke a metric; without a metric, whichever regressed
- `/adapterbot rerun` judges the adapters again
- `/adapterbot help` shows this

What is asked for is done with the commit that the pull request is at when it is asked.
"""


@dataclass(frozen=True)
class Answer:
    """What is to be done: `bisect`, `rerun`, or nothing."""

    asked: str = ""
    metric: str = ""
    head_sha: str = ""
    base_sha: str = ""


def run(environment: Mapping[str, str] = os.environ) -> Answer:
    """Read the comment of the event, ask whether its author may, and bind it to a commit.

    Raises:
        AdapterbotError: the event, the token, or GitHub.
    """
    context = places.read_event(environment)
    say = listener_for(environment).said
    asked = context.asked
    if context.activity is Activity.ANSWER and asked and context.repository:
        from adapterbot.gh.replies import Conversation

        client = client_for(context.repository, environment)
        number = context.pull_request or 0
        talk = Conversation(client, context.repository, number, asked.comment)
        answer = _answered(talk, asked, say)
    else:
        say(f"nothing to do: {context.reason}")
        answer = Answer()
    if environment.get("GITHUB_OUTPUT"):
        named = {name.replace("_", "-"): value for name, value in asdict(answer).items()}
        workflow.write_outputs(Path(environment["GITHUB_OUTPUT"]), named)
    return answer


def _answered(talk: Conversation, asked: Asked, say: Callable[[str], None]) -> Answer:
    """What is to be done; if nothing, the reply says why."""
    from adapterbot.gh.heads import head_of

    command = asked.command
    if not talk.may_write(asked.author):
        talk.react("-1")
        talk.reply("Not done: only people who may push to this repository can ask for that.")
        say("refused: the author of the comment may not push to this repository")
        return Answer()
    if command.verb in {Verb.HELP, Verb.UNKNOWN}:
        talk.react("eyes" if command.verb is Verb.HELP else "confused")
        talk.reply(HELP)
        return Answer()
    talk.react("eyes")
    head = head_of(talk.client, talk.repository, talk.number)
    if refusal := _refusal(head, talk.repository):
        talk.react("-1")
        talk.reply(f"Not done: {inert.text(refusal)}.")
        say(f"refused: {refusal}")
        return Answer()
    return Answer(command.verb.value, command.metric, head.sha, head.base_sha)


def _refusal(head: Head, repository: str) -> str | None:
    """Why nothing is done with a pull request, whoever asks."""
    if not head.open:
        return "this pull request is closed"
    if head.repository != repository:
        return (
            "a comment does not start files of a fork on our runners; re-run its own workflow "
            "instead"
        )
    return None
