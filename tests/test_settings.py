"""Flags, environment variables and defaults."""

from pathlib import Path

import pytest

from millm.errors import StartupError
from millm.settings import is_loopback, read_settings


def test_defaults_are_private_and_local() -> None:
    settings = read_settings([], {})
    assert (settings.host, settings.port, settings.model_cache_dir) == ("127.0.0.1", 7860, Path("data/models"))
    assert settings.loopback
    assert settings.api_key is None
    assert not settings.spaces


def test_a_flag_wins_over_the_environment() -> None:
    environ = {"PORT": "1234", "HOST": "0.0.0.0", "MILLM_ALLOWED_HOSTS": "a.example, b.example,", "SPACE_ID": "x/y"}
    settings = read_settings(["--port", "4321", "--log-format", "json"], environ)
    assert (settings.port, settings.host, settings.log_format) == (4321, "0.0.0.0", "json")
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.spaces
    assert not settings.loopback


def test_on_spaces_it_listens_where_the_platform_looks() -> None:
    assert read_settings([], {"SPACE_ID": "me/x"}).host == "0.0.0.0"
    assert read_settings([], {"SPACE_ID": "me/x", "HOST": "127.0.0.1"}).host == "127.0.0.1"


@pytest.mark.parametrize("argv", [["--port", "x"], ["--port", "0"], ["--port", "70000"], ["--log-level", "LOUD"]])
def test_an_unusable_value_is_named(argv: list[str]) -> None:
    with pytest.raises(StartupError, match=argv[0].strip("-").replace("-", "_").upper()):
        read_settings(argv, {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MILLM_ENGINE", "spark"),
        ("RAY_ADDRESS", "ray://head:10001"),
        ("RAY_ADDRESS", "head"),
        ("MILLM_REPLICAS", "0"),
        ("MILLM_REPLICAS", "4-2"),
        ("MILLM_REPLICAS", "many"),
        ("MILLM_REPLICA_CPUS", "0"),
        ("MILLM_REPLICA_CPUS", "nan"),
        ("MILLM_REPLICA_GPUS", "-1"),
    ],
)
def test_an_unusable_setting_of_replicas_is_named(variable: str, value: str) -> None:
    with pytest.raises(StartupError, match=variable):
        read_settings([], {"MILLM_ENGINE": "ray", variable: value})


def test_replicas_are_a_number_or_two() -> None:
    environ = {"MILLM_ENGINE": "ray", "RAY_ADDRESS": "10.0.0.1:6379", "MILLM_REPLICA_CPUS": "0.5"}
    settings = read_settings(["--replicas", "1-4"], environ)
    assert (settings.engine, settings.ray_address, settings.replicas) == ("ray", "10.0.0.1:6379", (1, 4))
    assert (settings.replica_cpus, settings.replica_gpus) == (0.5, 0)
    shown = {each.variable: each.value for each in settings.shown()}
    shares = ("MILLM_REPLICAS", "MILLM_REPLICA_CPUS", "MILLM_REPLICA_GPUS")
    assert [shown[name] for name in shares] == ["1-4", "0.5", "0"]
    assert read_settings(["--replicas", "3"], {}).replicas == (3, 3)


def test_an_address_of_ray_means_nothing_to_models_in_this_process() -> None:
    assert read_settings([], {"RAY_ADDRESS": "http://127.0.0.1:8265"}).ray_address == ""


def test_help_lists_every_variable_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(["--help"], {"HF_TOKEN": "hf_secret"})
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("MODEL_CACHE_DIR", "HF_TOKEN", "AUTO_LOAD_MODEL", "7860", "MILLM_ALLOWED_ORIGINS", "LOG_FORMAT"):
        assert word in text
    assert "hf_secret" not in text


def test_secrets_are_not_in_the_repr() -> None:
    settings = read_settings([], {"HF_TOKEN": "hf_secret", "MILLM_API_KEY": "key-secret"})
    assert (settings.hf_token, settings.api_key) == ("hf_secret", "key-secret")
    assert "secret" not in repr(settings)


def test_every_setting_says_where_it_came_from() -> None:
    environ = {"PORT": "1234", "HOST": "::1", "MILLM_API_KEY": "key-secret", "LOG_LEVEL": ""}
    shown = {
        each.variable: (each.value, each.given_by) for each in read_settings(["--port", "4321"], environ).shown()
    }
    assert shown["PORT"] == ("4321", "flag")
    assert shown["HOST"] == ("::1", "environment")
    assert shown["LOG_LEVEL"] == ("INFO", "default")
    assert shown["MILLM_API_KEY"] == ("set", "environment")
    assert shown["HF_TOKEN"] == ("not set", "default")
    assert shown["MILLM_ALLOWED_HOSTS"] == ("", "default")
    on_spaces = read_settings([], {"SPACE_ID": "me/x"})
    assert on_spaces.given_by == {"host": "Hugging Face Spaces"}


def test_passwords_in_addresses_are_not_shown() -> None:
    settings = read_settings([], {"HF_ENDPOINT": "https://me:pass@hub.example:8443/x", "OLLAMA_HOST": "http://[bad"})
    shown = {each.variable: each.value for each in settings.shown()}
    assert shown["HF_ENDPOINT"] == "https://hub.example:8443/x"
    assert shown["OLLAMA_HOST"] == ""


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("box", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
