"""The real evaluators; torch, where it is needed, is imported when the first one is made."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapterbot.commands.interrupts import never_swallowed
from adapterbot.config import Config, Server
from adapterbot.console import tame_library_logs
from adapterbot.errors import InputError
from adapterbot.eval.library import import_library
from adapterbot.eval.settings import EngineSettings, engine_settings
from adapterbot.files.yamlfile import YamlFile, validate
from adapterbot.importing import extras, for_good
from adapterbot.lock.digest_cache import users_caches
from adapterbot.pipeline import EvaluatorFor


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Where scores are kept between runs: on a self-hosted runner, beside its other tools.

    The folder must outlive the job, and must not lie in the workspace that a pull request fills.

    Raises:
        InputError: this user has no folder of their own.
    """
    given = environment.get("ADAPTERBOT_CACHE")
    return Path(given) if given else _caches(environment) / "scores"


def checkpoints_directory(environment: Mapping[str, str]) -> Path:
    """Where checkpoints that were fetched are kept, likewise.

    Raises:
        InputError: as `cache_directory`.
    """
    given = environment.get("ADAPTERBOT_CACHE")
    return (Path(given) if given else _caches(environment)) / "checkpoints"


def _caches(environment: Mapping[str, str]) -> Path:
    tools = environment.get("RUNNER_TOOL_CACHE")
    found = Path(tools) / "adapterbot" if tools else users_caches(environment)
    if found is None:
        raise InputError(
            "is not set, and this user has no home folder to keep scores and checkpoints in",
            file="HOME",
            fix="set it, or ADAPTERBOT_CACHE",
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Who evaluates, and how, as options say it; what they leave open is adapterbot.yaml's."""

    device: str | None = None
    engine: tuple[str, ...] = ()
    server: str | None = None
    ray: str | None = None

    def chosen(self, config: Config | None) -> tuple[EngineSettings, Server | None]:
        """How this machine or the cluster's compute, and the server that does instead, if any: the
        config's, at the address given by hand if there is one. The config is the base ref's, so no
        pull request chooses where its weights are sent.

        Raises:
            InputError: a setting or an address cannot be one.
        """
        settings = engine_settings(config.engine if config else None, self.engine, self.device)
        server = config.server if config else None
        if self.server is not None:
            given = {**(server.model_dump() if server else {}), "url": self.server}
            server = validate(Server, YamlFile("--server", None, {}), given)
        return settings, server


def engine(
    settings: EngineSettings,
    environment: Mapping[str, str] = os.environ,
    *,
    server: Server | None = None,
    ray: str | None = None,
) -> Callable[[], EvaluatorFor]:
    """What imports the engine and makes evaluators.

    Args:
        settings: where and how this machine, or the cluster's, compute.
        server: who answers instead of this machine.
        ray: the cluster whose machines compute; `local` for the GPUs or processors of this one.

    Raises:
        InputError: there is no such device.

    The function that is returned raises OurFailure when the packages it needs are not installed.
    """
    if server and ray:
        raise InputError("cannot be used with a server", field="--ray", fix="choose one of them")
    if server:
        return partial(_remote, server, environment)
    if ray:
        return partial(_cluster, settings, environment, ray)
    return partial(_local, settings, environment)


def _remote(server: Server, environment: Mapping[str, str]) -> EvaluatorFor:
    with extras("remote", "evaluating on a server"):
        from adapterbot.eval.cache import ScoreCache
        from adapterbot.eval.evaluation import Evaluation
        from adapterbot.eval.remote import ServerModel
    key = environment.get("ADAPTERBOT_SERVER_KEY") or None
    # Without a revision nobody knows whether the server still runs what it ran yesterday.
    cache = ScoreCache(cache_directory(environment) if server.revision else None)
    return lambda base: Evaluation(ServerModel(str(base), server, key), cache=cache)


def _cluster(
    settings: EngineSettings, environment: Mapping[str, str], address: str
) -> EvaluatorFor:
    with extras("eval,ray", "evaluating on a cluster"):
        from adapterbot.eval.cache import ScoreCache
        from adapterbot.eval.cluster import ClusterModel
        from adapterbot.eval.evaluation import Evaluation
    tame_library_logs()
    cache = ScoreCache(cache_directory(environment))
    return lambda base: Evaluation(ClusterModel(base, settings, address), cache=cache)


def _local(settings: EngineSettings, environment: Mapping[str, str]) -> EvaluatorFor:
    with _importing():
        found_base = importlib.import_module("adapterbot.eval.found_base")
        found_base.device_of(settings.device)
        found_base.versions()
        from adapterbot.eval.cache import ScoreCache
        from adapterbot.eval.engine import Engine
    tame_library_logs()
    cache = ScoreCache(cache_directory(environment))
    load = partial(import_engine, None)  # of the device it is known
    return lambda base: Engine(base, settings, cache=cache, imported=load)


def import_engine(settings: EngineSettings | None) -> None:
    """Imports what evaluating on this machine takes.

    Args:
        settings: whose device is to be here; None where another machine's is meant, or any will do.

    Raises:
        InputError: there is no such device.
        OurFailure: a package is not installed.
    """
    with _importing():
        # Torch alone knows what devices there are, and is the lesser part of what is imported.
        found_base = importlib.import_module("adapterbot.eval.found_base")
        if settings:
            found_base.device_of(settings.device)
        import_library()
        importlib.import_module("adapterbot.eval.local")
    tame_library_logs()


@contextmanager
def _importing() -> Iterator[None]:
    with extras("eval", "evaluating"), for_good(), never_swallowed():
        yield
