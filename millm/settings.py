"""Environment variables and command-line flags, read once into one frozen value."""

import argparse
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from millm.errors import StartupError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("console", "json")
ENGINES = ("local", "ray")
REPLICAS = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
RAY_ADDRESS = re.compile(r"|auto|[^\s/@]+:\d{1,5}")


@dataclass(frozen=True)
class Settings:
    """How this process runs. A flag wins over its environment variable, which wins over the default.

    engine: "local" or "ray". ray_address: "" for a Ray of its own. replicas: the fewest and the most.
    spaces: miLLM runs on Hugging Face Spaces, whose proxy owns host names, origins and access.
    given_by: where the settings came from that are not at their defaults, by field: "flag", "environment" or a name.
    """

    model_cache_dir: Path = Path("data/models")
    hf_token: str | None = field(default=None, repr=False)
    auto_load_model: str | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    api_key: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    log_level: str = "INFO"
    log_format: str = "console"
    hf_endpoint: str | None = None
    ollama_host: str = "http://127.0.0.1:11434"
    engine: str = "local"
    ray_address: str = ""
    replicas: tuple[int, int] = (1, 1)
    replica_cpus: float = 1.0
    replica_gpus: float = 0.0
    spaces: bool = False
    given_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return is_loopback(self.host)

    def shown(self) -> tuple["Shown", ...]:
        """Every setting as people may see it: of a secret only whether it is set."""
        return tuple(
            Shown(variable, _readable(name, getattr(self, name)), self.given_by.get(name, "default"))
            for name, variable in VARIABLES.items()
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting as people see it. value: "" for none. given_by: see `Settings`, or "default"."""

    variable: str
    value: str
    given_by: str


def is_loopback(host: str) -> bool:
    """Whether a bind address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Reads the settings of one process start.

    Raises:
        StartupError: a value cannot be used.
        SystemExit: `--help` was asked for (0) or a flag is unknown (2).
    """
    flags = vars(_parser().parse_args(list(argv)))
    variables = {name: environ[variable] for name, variable in VARIABLES.items() if environ.get(variable)}
    platform = {"host": EVERYWHERE} if "SPACE_ID" in environ else {}
    given = {**DEFAULTS, **platform, **variables, **flags}
    try:
        port = int(given["port"])
    except ValueError:
        port = -1
    if not 0 < port < 65536:
        raise StartupError(f"PORT must be a number from 1 to 65535, not {given['port']!r}.")
    for name, choices in (("log_level", LOG_LEVELS), ("log_format", LOG_FORMATS), ("engine", ENGINES)):
        if given[name] not in choices:
            raise StartupError(f"{VARIABLES[name]} must be one of {', '.join(choices)}, not {given[name]!r}.")
    return Settings(
        model_cache_dir=Path(given["model_cache_dir"]).expanduser(),
        hf_token=given["hf_token"] or None,
        auto_load_model=given["auto_load_model"] or None,
        host=given["host"],
        port=port,
        api_key=given["api_key"] or None,
        allowed_hosts=_split(given["allowed_hosts"]),
        allowed_origins=_split(given["allowed_origins"]),
        log_level=given["log_level"],
        log_format=given["log_format"],
        hf_endpoint=given["hf_endpoint"] or None,
        ollama_host=given["ollama_host"],
        engine=given["engine"],
        ray_address=_ray_address(given["ray_address"]) if given["engine"] == "ray" else "",
        replicas=_replicas(given["replicas"]),
        replica_cpus=_share("replica_cpus", given["replica_cpus"], above=0),
        replica_gpus=_share("replica_gpus", given["replica_gpus"]),
        spaces=bool(environ.get("SPACE_ID")),
        given_by={
            **dict.fromkeys(platform, "Hugging Face Spaces"),
            **dict.fromkeys(variables, "environment"),
            **dict.fromkeys(flags, "flag"),
        },
    )


# flag, environment variable, default, help
OPTIONS = (
    ("model-cache-dir", "MODEL_CACHE_DIR", "./data/models", "where model files and registry.json are kept"),
    ("hf-token", "HF_TOKEN", "", "access token for gated repositories; kept in memory only"),
    ("auto-load-model", "AUTO_LOAD_MODEL", "", "name of a model to load at start"),
    ("host", "HOST", "127.0.0.1", "address to listen on"),
    ("port", "PORT", "7860", "port to listen on"),
    ("api-key", "MILLM_API_KEY", "", "key that every route but /health then asks for"),
    ("allowed-hosts", "MILLM_ALLOWED_HOSTS", "", "further Host names to accept, separated by commas"),
    (
        "allowed-origins",
        "MILLM_ALLOWED_ORIGINS",
        "",
        "browser origins that may call /v1, separated by commas",
    ),
    ("log-level", "LOG_LEVEL", "INFO", " | ".join(LOG_LEVELS)),
    ("log-format", "LOG_FORMAT", "console", " | ".join(LOG_FORMATS)),
    ("hf-endpoint", "HF_ENDPOINT", "", "address of another hub than the public one"),
    ("ollama-host", "OLLAMA_HOST", "http://127.0.0.1:11434", "the Ollama server used for source ollama"),
    ("engine", "MILLM_ENGINE", "local", "where models run: local (this process) | ray (replicas on Ray Serve)"),
    (
        "ray-address",
        "RAY_ADDRESS",
        "",
        "host:port of a Ray cluster's head, or auto; else miLLM starts a Ray of its own",
    ),
    ("replicas", "MILLM_REPLICAS", "1", "copies of the model on Ray: a number, or 1-4 to follow the requests"),
    ("replica-cpus", "MILLM_REPLICA_CPUS", "1", "cores, and so threads, of each replica"),
    ("replica-gpus", "MILLM_REPLICA_GPUS", "0", "GPUs of each replica"),
)
DEFAULTS = {flag.replace("-", "_"): default for flag, _, default, _ in OPTIONS}
VARIABLES = {flag.replace("-", "_"): variable for flag, variable, _, _ in OPTIONS}
SECRETS = frozenset({"hf_token", "api_key"})
EVERYWHERE = "0.0.0.0"  # where Hugging Face Spaces, which sets SPACE_ID, looks for the page


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py", description="miLLM: get, load, try and serve language models from one process."
    )
    for flag, variable, default, text in OPTIONS:
        shown = f" (default: {default})" if default else ""
        parser.add_argument(
            f"--{flag}",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{text} [{variable}]{shown}".replace("%", "%%"),
        )
    return parser


def _ray_address(text: str) -> str:
    if not RAY_ADDRESS.fullmatch(text):
        raise StartupError(f"RAY_ADDRESS must be host:port of a Ray cluster's head, or auto, not {text!r}.")
    return text


def _replicas(text: str) -> tuple[int, int]:
    """The fewest and the most replicas."""
    found = REPLICAS.fullmatch(text)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < fewest <= most:
        raise StartupError(f"MILLM_REPLICAS must be a number, or two like 1-4, not {text!r}.")
    return fewest, most


def _share(name: str, text: str, above: float | None = None) -> float:
    """How much of something a replica gets; Ray knows halves of a core, too."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 10_000 or share == above:
        raise StartupError(
            f"{VARIABLES[name]} must be a number, {'more than 0' if above == 0 else '0 or more'}, not {text!r}."
        )
    return share


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _readable(name: str, value: object) -> str:
    if name in SECRETS:
        return "set" if value else "not set"
    if isinstance(value, tuple):
        text = "-".join(map(str, sorted({*value}))) if name == "replicas" else ", ".join(value)
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value or "")
    return _without_password(text) if "://" in text else text


def _without_password(address: str) -> str:
    """An address of a server that names no user: one may hold a password."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
