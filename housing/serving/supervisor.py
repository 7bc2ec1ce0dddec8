"""The supervisor: runs gunicorn, the puller and the joiner of one server, and its monitor and shadow if it has them."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from housing.core import model_list
from housing.core.environment import HOME_VARIABLE, PROJECT, own_project
from housing.core.errors import ConfigError
from server.core.settings import ENV_PREFIX, Settings

GUNICORN = ["-m", "gunicorn", "--config", str(PROJECT / "server" / "gunicorn.conf.py")]
SIDECARS = {"puller": ["-m", "housing.serving.puller"], "joiner": ["-m", "housing.feedback.joiner"]}
SHADOW_SIDECARS = {"shadow puller": ["-m", "housing.serving.puller", "shadow"], "shadow": ["-m", "housing.traffic.shadow"]}
MONITOR_SIDECARS = {"monitor": ["-m", "housing.monitoring.monitor"]}
PORTS = ("port", "metrics_port", "webhook_port")  # names of settings; 0: none
POLL_SECONDS = 1.0
PR_SET_PDEATHSIG = 1  # option of Linux's prctl

Process = subprocess.Popen[bytes]
Sidecars = Mapping[str, tuple[list[str], Mapping[str, str]]]  # arguments and environment, by name


def server_environment(serve: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of the server's processes: this process's variables and the settings of `serve`."""
    values = {name: TEXTS.get(str(name), str)(value) for name, value in serve.items()}
    project = own_project()  # its feature blocks; the processes run in another folder
    home = {} if project is None else {HOME_VARIABLE: str(project)}
    return {**os.environ, **home, **{ENV_PREFIX + str(name).upper(): value for name, value in values.items()}}


def _models_text(models: object) -> str:
    """Return `serve.models` as text: a list with commas, and a file with its whole path, since the processes run elsewhere."""
    if isinstance(models, str):
        return os.path.abspath(models) if models.endswith(model_list.FILE_SUFFIXES) else models
    return ",".join(map(str, models)) if isinstance(models, Iterable) else str(models)


def _paths_text(files: object) -> str:
    """Return `serve.trusted_keys` as whole paths with commas, since the processes run elsewhere."""
    paths = [files] if isinstance(files, str) else files if isinstance(files, Iterable) else [str(files)]
    return ",".join(os.path.abspath(str(path)) for path in paths if path)


TEXTS: Mapping[str, Callable[[object], str]] = {"models": _models_text, "trusted_keys": _paths_text}  # settings that may be lists


def supervise(environ: Mapping[str, str]) -> int:
    """Run the server until SIGTERM, SIGINT or the end of gunicorn. Return gunicorn's exit code, or 0 after a signal."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with tempfile.TemporaryDirectory(prefix="housing-metrics-") as metrics:
        environ = {**environ, "PROMETHEUS_MULTIPROC_DIR": metrics}
        processes: dict[str, Process] = {}
        sidecars = _sidecars(environ)
        try:
            processes["gunicorn"] = _start_process(GUNICORN, environ)
            processes |= {name: _start_process(*sidecar) for name, sidecar in sidecars.items()}
            signal.signal(signal.SIGHUP, lambda *_: processes["gunicorn"].send_signal(signal.SIGHUP))
            while processes["gunicorn"].poll() is None and not stopping.wait(POLL_SECONDS):
                _restart_sidecars(processes, sidecars)
        finally:
            for process in processes.values():
                process.terminate()
            for process in processes.values():
                process.wait()
    return 0 if stopping.is_set() else processes["gunicorn"].returncode


def _sidecars(environ: Mapping[str, str]) -> Sidecars:
    commands = SIDECARS | (MONITOR_SIDECARS if Settings.from_environment(environ).monitor else {})
    sidecars = {name: (arguments, environ) for name, arguments in commands.items()}
    alias = environ.get(f"{ENV_PREFIX}SHADOW")
    if not alias:
        return sidecars
    candidate = {
        f"{ENV_PREFIX}ALIAS": alias,
        f"{ENV_PREFIX}RELEASE_DIR": f"{environ[f'{ENV_PREFIX}RELEASE_DIR']}.shadow",
        f"{ENV_PREFIX}FORBID_BREAKING_COLUMNS": "false",  # its refused rows are counted
        f"{ENV_PREFIX}WEBHOOK_PORT": "0",  # the other puller listens there
    }
    return {**sidecars, **{name: (arguments, {**environ, **candidate}) for name, arguments in SHADOW_SIDECARS.items()}}


def _restart_sidecars(processes: dict[str, Process], sidecars: Sidecars) -> None:
    for name, sidecar in sidecars.items():
        if processes[name].poll() is not None:
            print(f"The {name} exited with code {processes[name].returncode}; restarting it.", file=sys.stderr, flush=True)
            processes[name] = _start_process(*sidecar)


def _start_process(arguments: list[str], environ: Mapping[str, str]) -> Process:
    # pylint: disable-next=subprocess-popen-preexec-fn  # this process has one thread
    return subprocess.Popen([sys.executable, *arguments], env=environ, cwd=PROJECT, preexec_fn=_terminate_with_parent)


def _terminate_with_parent() -> None:
    """Request SIGTERM for this process when its parent exits, even by SIGKILL. Only Linux can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def require_writable_folder(setting: str, folder: Path) -> None:
    """Create a folder of the server if it does not exist. Raise ConfigError if this user cannot write to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{setting} must be a folder that this user can write to (got {folder}: {error.strerror})."
            f" Choose another with {setting}=FOLDER."
        ) from error


def require_free_ports(settings: Settings) -> None:
    """Raise ConfigError if a port of the server is in use or does not belong to this machine, or if two are the same."""
    ports = {name: port for name in PORTS if (port := getattr(settings, name))}
    for name, port in ports.items():
        first = next(other for other in ports if ports[other] == port)
        if first != name:
            raise ConfigError(f"serve.{name} must be another port than serve.{first} (got {port} for both).")
        _require_free_port(f"serve.{name}", settings.host, port)


def _require_free_port(setting: str, host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore connections in TIME_WAIT
            listener.bind(address)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another with {setting}= or serve.host=."
        ) from error
