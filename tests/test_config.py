"""What an operator may set: where values come from, how mistakes are told, and that secrets stay in."""

import json
import re
from pathlib import Path

import pytest

from headgate import config
from headgate.config import ConfigError, Settings, addresses, explain, loading

CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "headgate.toml"


def load(file: Path, text: str, **env: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return loading.load(str(file), env)


def mistake(file: Path, text: str, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, text, **env)
    return str(caught.value)


# --- where values come from ------------------------------------------------------------------


def test_nothing_has_to_be_set() -> None:
    settings = loading.load(None, {})
    assert (settings.host, settings.port, settings.log) == ("127.0.0.1", 8787, "info")
    assert settings.notes == () and settings.origins == {}


def test_the_command_line_beats_the_environment_which_beats_the_file(file: Path) -> None:
    text = "port = 1001\ndrain_s = 1\nhost = '127.0.0.2'"
    file.write_text(text)
    env = {"HEADGATE_PORT": "1002", "HEADGATE_DRAIN_S": "2"}
    settings = loading.load(str(file), env, port=1003)
    assert (settings.port, settings.drain_s, settings.host) == (1003, 2.0, "127.0.0.2")
    assert settings.origins == {"port": "option", "drain_s": "env", "host": "file"}


def test_every_variable_that_is_promised_is_read() -> None:
    said = {
        "host": "::1",
        "log": "debug",
        "edges": "4",
        "data": "/d",
        "database": "postgresql://gate:word@db/headgate",
        "cache": "redis://:word@cache/1",
        "memory": "false",
        "default_aliases": "false",
        "public_url": "https://gate.test",
        "trusted_proxies": "10.0.0.0/8, 192.0.2.1",
        "forwarded_header": "forwarded",
        "metrics": "127.0.0.1:9464",
        "listen": "127.0.0.1:9443",
        "origins": "https://app.test, http://localhost:3000",
        "retired_to_successor": "true",
        "reply_model": "served",
    }
    env = {variable: said.get(place[-1], "2048") for place, variable in config.VARIABLES.items()}
    env |= {v: "true" for p, v in config.VARIABLES.items() if p[0] in ("fidelity", "pages")}
    env |= {"HEADGATE_RETRY_ATTEMPTS": "3", "HEADGATE_RESPONSES_STORE": "true"}
    search = {"PROVIDER": "brave", "URL": "https://s.test", "RESULTS": "3", "SEARCHES": "4"}
    env |= {f"HEADGATE_SEARCH_{name}": value for name, value in search.items()}
    settings = loading.load(None, env)
    assert settings.timeouts == config.Timeouts(2048, 2048, 2048, 2048, 2048)
    assert settings.retry.attempts == 3
    assert settings.memory is False and settings.default_aliases is False
    assert settings.fidelity.coerce and settings.pages.errors
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.1")
    assert settings.cors.origins == ("https://app.test", "http://localhost:3000")
    assert (settings.admin.listen, settings.tls.cert) == ("127.0.0.1:9443", "2048")
    assert (settings.host, settings.port, settings.body_bytes) == ("::1", 2048, 2048)
    assert set(settings.origins.values()) == {"env"} and len(settings.origins) == len(env)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.test", "10.0.0.0/33", ""])
def test_a_trusted_proxy_is_a_network(network: str, file: Path) -> None:
    file.write_text(f"trusted_proxies = ['127.0.0.1', '{network}']")
    with pytest.raises(config.ConfigError, match=f"`trusted_proxies` has `{network}`"):
        loading.load(str(file), {})


def test_an_empty_variable_is_as_good_as_none() -> None:
    settings = loading.load(
        None, {"HEADGATE_PORT": "", "MINIMAX_API_KEY": "", "HEADGATE_CONFIG": ""}
    )
    assert settings == loading.load(None, {})


def test_headgate_config_names_the_file(file: Path) -> None:
    file.write_text("port = 9")
    assert loading.load(None, {"HEADGATE_CONFIG": str(file)}).port == 9


def test_data_falls_back_to_the_users_data_directory(tmp_path: Path) -> None:
    assert loading.load(None, {"XDG_DATA_HOME": str(tmp_path)}).data == str(tmp_path / "headgate")
    assert loading.load(None, {}).data == str(Path.home() / ".local/share/headgate")
    assert loading.load(None, {"HEADGATE_DATA": "~/x"}).data == str(Path.home() / "x")
    with pytest.raises(ConfigError, match="`data`"):
        loading.load(None, {"HEADGATE_DATA": "~nobody-of-this-name/x"})


def test_listening_to_the_world_makes_a_note() -> None:
    assert "TLS" in loading.load(None, {"HEADGATE_HOST": "0.0.0.0"}).notes[0]


# --- how mistakes are told -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("prot = 1", "prot", "port"),
        ("PORT = 1", "PORT", "port"),
        ("[timeouts]\nfirst_tokn = 1", "timeouts.first_tokn", "first_token"),
        ("[retry]\natempts = 1", "retry.atempts", "attempts"),
        ("[upstreams.ok]\n[upstreams.a]\nbase_ulr = ''", "upstreams.a.base_ulr", "base_url"),
        ("[models.'MiniMax-M2.7']\nroute = []", "models.MiniMax-M2.7.route", "routes"),
        ("[models.m]\nroutes=[{upsteam='a'}]", "models.m.routes[0].upsteam", "upstream"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(
    file: Path, text: str, key: str, near: str
) -> None:
    assert mistake(file, text) == f"{file}: unknown key `{key}`. Did you mean `{near}`?"


def test_an_unknown_key_like_no_other_is_told_with_all_known_ones(file: Path) -> None:
    assert "unknown key `zzz`. Known: host, port, public_url, data" in mistake(file, "zzz = 1")
    assert "Known: attempts." in mistake(file, "[retry]\nzzz = 1")


@pytest.mark.parametrize("name", ["notes", "origins"])
def test_what_the_program_notes_for_itself_cannot_be_set(file: Path, name: str) -> None:
    assert f"unknown key `{name}`" in mistake(file, f"{name} = []")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port = 'x'", "`port`: Expected `int`, got `str` (got `x`)"),
        ("port = 8080.5", "`port`: Expected `int`, got `float`"),
        ("port = true", "`port`: Expected `int`, got `bool`"),
        ("port = 65536", "`port`: Expected `int` <= 65535 (got `65536`)"),
        ("log = 'loud'", "`log`: Invalid enum value 'loud'"),
        ("timeouts = 3", "`timeouts`: Expected `object`, got `int`"),
        ("timeouts.stall = 0", "`timeouts.stall`: Expected `float` > 0.0"),
        ("timeouts.stall = nan", "`timeouts.stall`: Expected `float`"),
        ("timeouts.stall = inf", "`timeouts.stall`: Expected `float`"),
        ("retry.attempts = 0", "`retry.attempts`: Expected `int` >= 1"),
        ("upstreams = []", "`upstreams`: Expected `object`, got `array`"),
        ("[upstreams]\nok={}\na=3", "`upstreams.a`: Expected `object`, got `int`"),
        (
            "[upstreams.ok]\n[upstreams.a]\nallow_http='x'",
            "`upstreams.a.allow_http`: Expected `bool`",
        ),
        ("[models.m]\ncontext_window = 0", "`models.m.context_window`: Expected `int` >= 1"),
        ("[models.m]\nroutes=[{upstream=3}]", "`models.m.routes[0].upstream`: Expected `str`"),
        (
            "[models.m]\nroutes=[{}]",
            "`models.m.routes[0]`: Object missing required field `upstream`",
        ),
        ("[aliases]\nok='m'\n'gpt-*' = 3", "`aliases.gpt-*`: Expected `str`, got `int`"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_its_file(file: Path, text: str, told: str) -> None:
    said = mistake(file, text)
    assert said.startswith(f"{file}: {told}"), said


def test_a_wrong_variable_is_told_by_its_own_name_and_not_the_files(file: Path) -> None:
    said = mistake(file, "host = '127.0.0.1'", HEADGATE_TIMEOUTS_STALL="x")
    assert said.startswith("HEADGATE_TIMEOUTS_STALL: `timeouts.stall`: Expected `float`")
    assert mistake(file, "timeouts = 3", HEADGATE_TIMEOUTS_STALL="1").startswith(f"{file}: `timeo")
    with pytest.raises(ConfigError, match=r"^the command line: `port`"):
        loading.load(None, {}, port=99999)


def test_a_file_that_is_missing_or_no_toml_is_told_by_its_path(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"headgate\.toml: No such file"):
        loading.load(str(file), {})
    assert mistake(file, "port =").startswith(f"{file}: not valid TOML: ")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        loading.load(str(file), {})


# --- secrets ---------------------------------------------------------------------------------


def key_of(settings: Settings, name: str = "a") -> str:
    return settings.upstreams[name].key


def test_a_key_is_read_from_a_variable_or_a_file(file: Path, tmp_path: Path) -> None:
    settings = load(file, "[upstreams.a]\nkey = 'env:MY_KEY'", MY_KEY=CANARY)
    assert key_of(settings) == CANARY and settings.notes == ()
    secret = tmp_path / "secret"
    secret.write_text(f"{CANARY}\n")
    settings = load(file, f"[upstreams.a]\nkey = 'file:{secret}'")
    assert key_of(settings) == CANARY and settings.notes == ()


def test_a_missing_variable_or_file_is_told_by_its_name(file: Path, tmp_path: Path) -> None:
    assert mistake(file, "[upstreams.a]\nkey = 'env:MY_KEY'") == (
        "`upstreams.a.key` names the variable MY_KEY, which is not set."
    )
    gone = tmp_path / "gone"
    assert f"names the file {gone}: No such file" in mistake(
        file, f"[upstreams.a]\nkey='file:{gone}'"
    )
    gone.write_text("\n")
    assert "which is empty" in mistake(file, f"[upstreams.a]\nkey='file:{gone}'")
    gone.write_bytes(b"\xff")
    assert "not text" in mistake(file, f"[upstreams.a]\nkey='file:{gone}'")
    assert "`upstreams.a.key`" in mistake(file, '[upstreams.a]\nkey = "file:/x\\u0000"')
    assert "`upstreams.a.key`" in mistake(file, "[upstreams.a]\nkey = 'file:~nobody-of-this/x'")


def test_a_key_in_the_file_itself_works_and_makes_a_note(file: Path) -> None:
    settings = load(file, f"[upstreams.a]\nkey = '{CANARY}'")
    assert key_of(settings) == CANARY
    assert len(settings.notes) == 1 and settings.notes[0].startswith("`upstreams.a.key` stands in")
    assert CANARY not in settings.notes[0]


@pytest.mark.parametrize("key", ["a b", "a\\r\\nx-injected: 1", "schlüssel", "a\\u0000"])
def test_a_key_that_would_break_a_header_is_refused(file: Path, key: str) -> None:
    assert "characters that no API key has" in mistake(file, f'[upstreams.a]\nkey = "{key}"')


@pytest.mark.parametrize(
    "text",
    [
        f"[upstreams.a]\nkey = ['{CANARY}']",
        f"[upstreams.a]\nkey = '{CANARY} '",
        f"[upstreams.a]\nkeys = '{CANARY}'",
        f"[upstreams.a]\nkeys = ['{CANARY} ']",
        f"[upstreams.a]\nkeys = ['{CANARY}', '{CANARY}']",
        f"[upstreams.a]\nkey = '{CANARY}'\nkeys = ['{CANARY}']",
        f"[upstreams.a]\nkeys = ['{CANARY}', '']",
        f"[upstreams.a]\nkeys = ['{CANARY}', 'env:NOT_SET']",
        f"[upstreams.a]\nkeys = ['{CANARY}', 3]",
        f"[upstreams.a]\nkey = 'env:{CANARY}'",
        f"[upstreams.a]\nkey = '{CANARY}' oops",
        f"[upstreams.a]\nkey = '{CANARY}\n",
        f"[upstreams.a]\nkey = '{CANARY}'\nbase_ulr = ''",
        f"[upstreams.a]\nkey = '{CANARY}'\nbase_url = 'https://user:{CANARY}@example.com'",
        f"[upstreams.a]\nkey = '{CANARY}'\nbase_url = 'https://example.com/?key={CANARY}'",
        f"[upstreams.a]\nkey = '{CANARY}'\nbase_url = 'http://example.com'",
    ],
)
def test_no_mistake_is_told_with_a_secret_in_it(file: Path, text: str) -> None:
    assert CANARY not in mistake(file, text)


def test_secrets_are_masked_in_what_is_shown_and_in_reprs(file: Path) -> None:
    text = f"[upstreams.a]\nkey='env:K'\n[upstreams.b]\nkey='{CANARY}b'\n[upstreams.'c.key']\n"
    settings = load(file, text + f"key='{CANARY}c'", K=CANARY)
    rows = explain.show(settings)
    assert CANARY not in repr(rows) and CANARY not in repr(settings)
    assert ("upstreams.a.key", "********", "file") in rows
    assert ("upstreams.a.preset", "openai", "file") in rows
    assert ("port", "8787", "default") in rows
    shown = {key for key, _, _ in rows}
    assert not shown & {"notes", "origins"} and "timeouts.stall" in shown


def test_a_pool_of_keys_is_read_and_masked(file: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{CANARY}b\n")
    text = f"[upstreams.a]\nkey='env:K'\nkeys=['file:{tmp_path}/key', '{CANARY}c']"
    settings = load(file, text, K=CANARY)
    assert settings.upstreams["a"].keys == (f"{CANARY}b", f"{CANARY}c")
    rows = explain.show(settings)
    assert CANARY not in repr(rows) + repr(settings) + repr(settings.notes)
    assert ("upstreams.a.keys", "********, ********", "file") in rows


def test_a_mistake_in_a_pool_is_named_by_its_place(file: Path) -> None:
    assert "`upstreams.a.keys[1]`" in mistake(file, "[upstreams.a]\nkeys = ['k', 'env:NOT_SET']")
    assert "`upstreams.a.keys[1]`" in mistake(file, "[upstreams.a]\nkeys = ['k', 'k']")
    assert "`upstreams.a.keys[0]`" in mistake(file, "[upstreams.a]\nkeys = ['']")


# --- addresses (promises.md T13) -------------------------------------------------------------


def allowed(file: Path, url: str, allow_http: bool) -> bool:
    text = f"[upstreams.a]\nbase_url = {json.dumps(url)}\nallow_http = {str(allow_http).lower()}"
    try:
        load(file, text)
    except ConfigError as error:
        assert "`upstreams.a.base_url`" in str(error)
        return False
    return True


@pytest.mark.parametrize(
    "url",
    [
        "https://api.minimax.io/v1",
        "https://10.1.2.3",
        "https://vllm:8443/v1",
        "https://[2606:4700::1]",
        "http://127.0.0.1:8000/v1",
        "http://127.9.9.9",
        "http://localhost:8000",
        "http://LOCALHOST",
        "http://[::1]:8000",
    ],
)
def test_https_and_this_machine_need_no_leave(file: Path, url: str) -> None:
    assert allowed(file, url, False)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/v1",
        "http://172.31.255.1",
        "http://192.168.1.1:8000",
        "http://[fd00::1]",
        "http://vllm:8000/v1",
    ],
)
def test_plain_http_to_a_private_network_needs_leave(file: Path, url: str) -> None:
    assert not allowed(file, url, False)
    assert allowed(file, url, True)


@pytest.mark.parametrize(
    "url",
    [
        # public, or not sure to be private
        "http://8.8.8.8",
        "http://example.com",
        "http://172.32.0.1",
        "http://[2606:4700::1]",
        "http://100.64.0.1",  # carrier-grade NAT
        "http://192.0.2.1",
        "http://198.18.0.1",
        "http://vllm.internal",
        "http://x.localhost",
        "http://localhost.",
        # what resolvers take for 127.0.0.1, or for any other address
        "http://2130706433",
        "http://0x7f000001",
        "http://127.1",
        "http://0x7f.1",
        "http://0177.0.0.1",
        "http://[::ffff:127.0.0.1]",
        "http://[::ffff:8.8.8.8]",
        "https://[::ffff:10.0.0.1]",
        "http://[64:ff9b::7f00:1]",
        "http://[2002:7f00:1::]",
        "https://[64:ff9b::a9fe:a9fe]",
        # where no upstream is
        "http://0.0.0.0",
        "http://[::]",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254",
        "http://[fe80::1]",
        "http://224.0.0.1",
        "http://255.255.255.255",
        # no addresses of an upstream
        "ftp://example.com",
        "file:///etc/passwd",
        "//example.com",
        "example.com",
        "https://",
        "https:///v1",
        "https://user@example.com",
        "https://user:pw@example.com",
        "https://example.com/?a=b",
        "https://example.com/#f",
        "https://example.com:99999",
        "https://[::1",
        "https://exa mple.com",
        "https://example.com/\tx",
        "https://exämple.com",
        "https://example.com/\r\nx: y",
    ],
)
def test_no_leave_opens_any_other_address(file: Path, url: str) -> None:
    assert not allowed(file, url, False)
    assert not allowed(file, url, True)


# --- upstreams from the environment ----------------------------------------------------------


def test_with_no_key_the_local_model_answers() -> None:
    upstreams = loading.load(None, {}).upstreams
    assert {n: u.preset for n, u in upstreams.items()} == {"local": "local"}
    settings = addresses.with_local_url(loading.load(None, {}), "http://127.0.0.1:7/v1")
    assert settings.upstreams["local"].base_url == "http://127.0.0.1:7/v1"


def test_every_key_in_the_environment_makes_an_upstream_in_a_fixed_order() -> None:
    env = {
        "OPENROUTER_API_KEY": "o",
        "RUNAPI_TOKEN": "r",
        "MINIMAX_API_KEY": "m",
        "HEADGATE_UPSTREAM_KEY": "c",
        "HEADGATE_UPSTREAM_URL": "http://vllm:8000/v1",
    }
    found = [(n, u.preset, u.key) for n, u in loading.load(None, env).upstreams.items()]
    assert found == [
        ("custom", "custom", "c"),
        ("minimax", "minimax", "m"),
        ("runapi", "runapi", "r"),
        ("openrouter", "openrouter", "o"),
    ]
    rows = explain.show(loading.load(None, env))
    assert ("upstreams.minimax.key", "********", "env") in rows


@pytest.mark.parametrize("variable", ["MINIMAX_API_KEY", "RUNAPI_TOKEN", "OPENROUTER_API_KEY"])
def test_one_key_alone_is_enough(variable: str) -> None:
    assert [u.key for u in loading.load(None, {variable: "k"}).upstreams.values()] == ["k"]


def test_an_upstream_url_alone_is_enough_and_speaks_openai() -> None:
    env = {"HEADGATE_UPSTREAM_URL": "https://example.com"}
    (custom,) = loading.load(None, env).upstreams.values()
    assert (custom.base_url, custom.key, custom.dialect) == ("https://example.com", "", "openai")
    env["HEADGATE_UPSTREAM_DIALECT"] = "anthropic"
    assert loading.load(None, env).upstreams["custom"].dialect == "anthropic"


def test_a_wrong_upstream_variable_is_told() -> None:
    env = {"HEADGATE_UPSTREAM_URL": "https://example.com", "HEADGATE_UPSTREAM_DIALECT": "opnai"}
    with pytest.raises(ConfigError, match="HEADGATE_UPSTREAM_DIALECT is `opnai`"):
        loading.load(None, env)
    with pytest.raises(ConfigError, match=r"`upstreams\.custom\.base_url`"):
        loading.load(None, {"HEADGATE_UPSTREAM_URL": "http://example.com"})
    with pytest.raises(ConfigError, match=r"`upstreams\.minimax\.key` has characters"):
        loading.load(None, {"MINIMAX_API_KEY": "a b"})


def test_upstreams_in_the_file_stand_alone(file: Path) -> None:
    settings = load(file, "[upstreams.a]\nkey = 'env:K'", K="k", MINIMAX_API_KEY="m")
    assert list(settings.upstreams) == ["a"]


# --- the schema ------------------------------------------------------------------------------


def test_the_schema_describes_every_key_of_the_file_and_no_other() -> None:
    defs = explain.schema()["$defs"]
    own = {"notes", "origins"}
    for kind in (Settings, config.Upstream, config.Timeouts, config.Retry, config.Model):
        described = defs[kind.__name__]
        assert set(described["properties"]) == set(kind.__struct_fields__) - own
        assert described["additionalProperties"] is False
    assert defs["Settings"]["properties"]["port"]["maximum"] == 65535


def test_the_cache_is_an_address_and_its_password_is_never_shown(tmp_path: Path) -> None:
    url = "rediss://gate:word@cache:6380/2"
    file = tmp_path / "headgate.toml"
    file.write_text('cache = "env:THE_CACHE"\n')
    settings = loading.load(str(file), {"THE_CACHE": url})
    assert settings.cache == url
    assert ("cache", "********", "file") in explain.show(settings)
    for wrong in ("http://h:word", "redis://", "redis://u:word@h/x", "redis://u:word@h:99999/0"):
        with pytest.raises(config.ConfigError, match="`cache`") as raised:
            loading.load(None, {"HEADGATE_CACHE": wrong})
        assert "word" not in str(raised.value)


def test_the_database_is_an_address_and_its_password_is_never_shown(tmp_path: Path) -> None:
    url = "postgresql://gate:secret-word@db/headgate"
    file = tmp_path / "headgate.toml"
    file.write_text('database = "env:THE_DATABASE"\n')
    settings = loading.load(str(file), {"THE_DATABASE": url})
    assert settings.database == url
    assert ("database", "********", "file") in explain.show(settings)
    for wrong in ("mysql://gate:secret-word@db/x", "secret-word", "env:NOT_SET"):
        with pytest.raises(config.ConfigError, match="`database`") as told:
            loading.load(None, {"HEADGATE_DATABASE": wrong})
        assert "secret-word" not in str(told.value)


def test_an_old_name_of_a_setting_is_refused_with_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text('[models.M]\nroutes = [{ upstream = "u", share = 3 }]\n')
    with pytest.raises(config.ConfigError, match="called `weight` now"):
        loading.load(str(file), {})


# --- web search ---


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"URL": "https://s.test"}, "`search.provider` is missing"),
        ({"PROVIDER": "searxng"}, "`search.url` is missing"),
        ({"PROVIDER": "brave"}, "`search.key` is missing"),
        ({"PROVIDER": "searxng", "URL": "http://169.254.169.254"}, "where no upstream can be"),
        ({"PROVIDER": "searxng", "URL": "http://search.example"}, "plain http to another machine"),
        ({"PROVIDER": "searxng", "URL": "file:///etc/passwd"}, "must begin with https://"),
    ],
)
def test_a_search_provider_that_cannot_be_asked_is_refused(
    fields: dict[str, str], words: str
) -> None:
    with pytest.raises(config.ConfigError, match=re.escape(words)):
        loading.load(None, {f"HEADGATE_SEARCH_{name}": value for name, value in fields.items()})


def test_the_key_of_a_search_provider_is_not_shown() -> None:
    env = {
        "HEADGATE_SEARCH_PROVIDER": "brave",
        "HEADGATE_SEARCH_KEY": "env:BRAVE",
        "BRAVE": "s3cret",
    }
    settings = loading.load(None, env)
    assert settings.search.key == "s3cret"
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(explain.show(settings))
