"""The commands: what they print, where, and how they end."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import headgate.cli as cli
from headgate import __version__
from headgate.cli.options import Duration, when
from headgate.storage.sqlite.database import Store


@pytest.fixture(autouse=True)
def nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in os.environ:
        if re.match(r"HEADGATE|MINIMAX|RUNAPI|OPENROUTER", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADGATE_DATA", str(tmp_path / "data"))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli._headgate, arguments, prog_name="headgate")


def printed(*arguments: str) -> object:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_help_and_version_need_neither_the_store_nor_the_catalog() -> None:
    code = """
import sys
from headgate.cli import main
sys.argv = ["headgate", sys.argv[1]]
try:
    main()
except SystemExit as end:
    assert not end.code
heavy = {"apsw", "rich", "msgspec", "uvloop", "headgate.config"} & set(sys.modules)
assert not heavy, heavy
"""
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "headgate" in done.stdout.lower()


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"headgate {__version__}\n"


def test_the_helps_of_groups_say_what_they_are_and_return_nothing() -> None:
    assert "Headgate is a self-hosted gateway" in run("--help").stdout
    for arguments in ([], ["admin"], ["admin", "keys"], ["keys"], ["models"], ["config"]):
        shown = run(*arguments, "--help").stdout
        assert shown.startswith("Usage:") and "  Return " not in shown, shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_that_is_listed_exists_and_explains_itself(name: str) -> None:
    assert name in run("--help").stdout
    result = run(name, "--help")
    assert result.exit_code == 0 and result.stdout.startswith(f"Usage: headgate {name} ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("models",), 0),
        (("nope",), 2),
        (("models", "--nope"), 2),
        (("keys", "create"), 2),
        (("keys", "create", "a", "--expires", "soon"), 2),
        (("keys", "create", "a", "--models", "MiniMax-M9"), 2),
        (("keys", "create", "a", "--models", ""), 2),
        (("keys", "create", "a", "--budget-usd", "1e3"), 2),
        (("keys", "create", "a", "--budget-usd", "-1"), 2),
        (("keys", "create", "a", "--budget-usd", "0.0000000001"), 2),
        (("keys", "create", "a", "--budget-usd", "1", "--budget-period", "week"), 2),
        (("keys", "create", "a", "--budget-usd", "1", "--budget-zone", "Mars/Base"), 2),
        (("keys", "create", "a", "--budget-period", "day"), 2),
        (("keys", "create", "a", "--rpm", "-1"), 2),
        (("keys", "create", "a", "--tpm", "1.5"), 2),
        (("keys", "change", "unknown", "--rpm", "1"), 1),
        (("keys", "change", "unknown"), 2),
        (("keys", "revoke", "unknown"), 1),
        (("keys", "rotate", "unknown"), 1),
        (("config", "check", "--config", "absent.toml"), 1),
    ],
)
def test_the_exit_code_tells_a_wrong_call_from_a_failure(
    arguments: tuple[str, ...], code: int
) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    if code:
        assert result.stdout == "" and "Error: " in result.stderr
        assert "Traceback" not in result.stderr


def test_a_new_key_is_the_only_thing_on_stdout_and_it_opens(nothing_of_ours: Path) -> None:
    result = run("keys", "create", "alice")
    assert re.fullmatch(r"hg_live_\w{57}\n", result.stdout)
    assert "alice" in result.stderr and result.stdout.strip() not in result.stderr
    store = Store(nothing_of_ours / "data")
    assert store.ring().authenticate(result.stdout.strip(), 1e12) is not None
    store.close()


def test_a_key_gets_the_models_and_the_end_it_was_given() -> None:
    models = "minimax-m2,MiniMaxAI/MiniMax-M3,MiniMax-M2"
    made = printed("keys", "create", "a", "--models", models, "--expires", "30d", "--json")
    assert isinstance(made, dict)
    assert made["models"] == ["MiniMax-M2", "MiniMax-M3"]
    assert made["expires_s"] - made["created_s"] == pytest.approx(30 * 86400)


def test_a_key_cancels_on_a_hang_up_unless_it_was_told_to_drain() -> None:
    made = printed("keys", "create", "a", "--json")
    assert isinstance(made, dict)
    assert made["on_disconnect"] == "cancel"
    assert run("keys", "change", made["id"], "--on-disconnect", "drain").exit_code == 0
    rotated = printed("keys", "rotate", made["id"], "--json")
    assert isinstance(rotated, dict)
    assert rotated["on_disconnect"] == "drain"
    assert "finishes and bills on disconnect" in run("keys", "list").stdout
    assert run("keys", "create", "b", "--on-disconnect", "ignore").exit_code == 2


def test_a_key_and_its_rotations_may_be_used_from_the_networks_it_was_given() -> None:
    made = printed("keys", "create", "a", "--allow-from", "10.0.0.0/8, 192.0.2.7", "--json")
    assert isinstance(made, dict)
    assert made["allowed_cidrs"] == ["10.0.0.0/8", "192.0.2.7/32"]
    rotated = printed("keys", "rotate", made["id"], "--json")
    assert isinstance(rotated, dict)
    assert rotated["allowed_cidrs"] == made["allowed_cidrs"]
    assert "only from 10.0.0.0/8, 192.0.2.7/32" in run("keys", "list").stdout
    id = rotated["id"]
    for wrong in ("10.0.0.1/8", "example.org", ""):
        assert run("keys", "change", id, "--allow-from", wrong).exit_code == 2
    changed = printed("keys", "change", id, "--allow-from", "any", "--json")
    assert isinstance(changed, dict) and changed["allowed_cidrs"] == []


def test_a_key_gets_the_limits_and_the_budget_it_was_given() -> None:
    options = "--budget-usd 0.1 --budget-period month --budget-zone Europe/Berlin --rpm 60 --tpm 0"
    made = printed("keys", "create", "a", *options.split(), "--concurrency", "3", "--json")
    assert isinstance(made, dict)
    assert (made["budget_nano"], made["budget_usd"]) == (100_000_000, "0.10")
    assert (made["budget_period"], made["budget_zone"]) == ("month", "Europe/Berlin")
    assert (made["rpm"], made["tpm"], made["concurrency"]) == (60, 0, 3)
    assert (
        "\t0.10 USD a month (Europe/Berlin), 60 requests/min, 0 tokens/min, 3 concurrent"
        in run("keys", "list").stdout
    )
    free = printed("keys", "create", "b", "--rpm", "none", "--json")
    assert isinstance(free, dict)
    assert (free["budget_usd"], free["budget_nano"], free["rpm"]) == (None, None, None)


def test_a_change_leaves_what_is_not_named_and_none_takes_away() -> None:
    id = run(
        "keys", "create", "a", "--budget-usd", "5", "--rpm", "60", "--models", "minimax-m2"
    ).stdout[8:16]
    changed = printed(
        "keys", "change", id, "--rpm", "none", "--tpm", "100", "--expires", "1d", "--json"
    )
    assert isinstance(changed, dict)
    assert (changed["rpm"], changed["tpm"], changed["budget_usd"]) == (None, 100, "5.00")
    assert changed["models"] == ["MiniMax-M2"] and changed["expires_s"] > time.time() + 86000
    said = run("keys", "change", id, "--models", "all", "--budget-usd", "none").stdout
    assert said == f"Changed {id}: 100 tokens/min.\n"
    assert run("keys", "change", id, "--tpm", "none").stdout == f"Changed {id}: no limits.\n"
    made = json.loads(run("keys", "rotate", id, "--json").stdout)
    assert made["models"] == [] and made["rotation_group"] == id
    assert run("keys", "change", id, "--models", "MiniMax-M9").exit_code == 2


def test_no_list_ever_shows_a_secret() -> None:
    text = run("keys", "create", "alice").stdout.strip()
    for arguments in (("keys", "list"), ("keys", "list", "--json")):
        shown = run(*arguments).output
        assert "alice" in shown and text[8:16] in shown
        assert text[16:28] not in shown


def test_a_key_goes_from_open_to_revoked() -> None:
    id = run("keys", "create", "a").stdout[8:16]

    def states() -> list[str]:
        rows = printed("keys", "list", "--json")
        assert isinstance(rows, list)
        return [row["state"] for row in rows]

    assert states() == ["open"]
    assert printed("keys", "revoke", id, "--json") == {"id": id, "revoked": True}
    assert states() == ["revoked"]
    assert run("keys", "rotate", id).exit_code == 1


def test_rotation_prints_another_key_and_the_old_one_ends_soon() -> None:
    old = run("keys", "create", "a").stdout
    new = run("keys", "rotate", old[8:16], "--overlap", "1h").stdout
    assert re.fullmatch(r"hg_live_\w{57}\n", new) and new != old
    assert "ends soon" in run("keys", "list").stdout


def test_an_interrupted_command_ends_as_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "keys", interrupt)
    assert run("keys", "list").exit_code == 130


def test_a_data_directory_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (
        ["list"],
        ["create", "a"],
        ["revoke", "a"],
        ["rotate", "a"],
        ["change", "a", "--rpm", "1"],
    ):
        result = run("keys", *arguments, "--data", str(tmp_path / "file" / "below"))
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_a_name_of_a_model_that_is_nearly_right_is_told_with_the_right_one() -> None:
    result = run("keys", "create", "a", "--models", "MiniMax-M2,MiniMax-M2.77")
    assert (
        result.exit_code == 2
        and "no model `MiniMax-M2.77`. Did you mean MiniMax-M2.7" in result.stderr
    )
    assert json.loads(run("keys", "list", "--json").stdout) == []


def test_a_key_that_expired_is_listed_as_such(nothing_of_ours: Path) -> None:
    store = Store(nothing_of_ours / "data")
    store.create_key("a", expires_s=2, now_s=1)
    store.close()
    assert "\texpired\t" in run("keys", "list").stdout


# --- in processes of their own ---------------------------------------------------------------


def process(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headgate.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=300,
    )


def on_a_terminal(*arguments: str, **env: str) -> str:
    """What the command prints when its standard output is a terminal."""
    pty = pytest.importorskip("pty")
    ours, its = pty.openpty()
    whole = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", **env}
    whole = {k: v for k, v in whole.items() if v}
    with subprocess.Popen(
        [sys.executable, "-m", "headgate.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        env=whole,
    ) as command:
        os.close(its)
        out = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says EIO when the other side is closed
                break
            if not piece:
                break
            out += piece
    os.close(ours)
    assert command.returncode == 0, out
    return out.decode().replace("\r\n", "\n")


def test_help_takes_no_more_than_a_few_bare_starts_of_python() -> None:
    resource = pytest.importorskip("resource")

    def cpu_s(*arguments: str) -> float:
        took = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(took)

    assert cpu_s("-m", "headgate.cli", "--help") < 15 * cpu_s("-c", "pass")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["config", "check"], 0), (["keys", "revoke", "nope"], 1), (["keys", "revoke"], 2)],
)
def test_a_process_ends_with_the_same_exit_codes(arguments: list[str], code: int) -> None:
    done = process(*arguments)
    assert done.returncode == code, done.stderr
    assert ("Error: " in done.stderr) == (code > 0) and "Traceback" not in done.stderr


def test_only_a_terminal_gets_a_table_with_styles() -> None:
    plain = process("models", FORCE_COLOR="", NO_COLOR="").stdout
    assert "\x1b" not in plain and plain.startswith("model\t")
    shown = on_a_terminal("models", NO_COLOR="")
    assert "\x1b[" in shown and "max output" in shown and "MiniMax-M2.5-highspeed" in shown


def test_no_color_is_heard_on_a_terminal() -> None:
    for arguments in (["models"], ["config", "show"], ["--help"]):
        shown = on_a_terminal(*arguments, NO_COLOR="1")
        colours = [
            c for c in re.findall(r"\x1b\[([0-9;]*)m", shown) if set(c.split(";")) - {"0", "1"}
        ]
        assert not colours and len(shown) > 100


def test_a_name_is_shown_on_a_terminal_as_it_was_given() -> None:
    names = ["[red]x[/red]", "[/x]", ":smile:", "日本"]
    for name in names:
        assert run("keys", "create", name).exit_code == 0
    shown = on_a_terminal("keys", "list")
    assert all(name in shown for name in names)


def test_no_command_prints_an_upstreams_key(nothing_of_ours: Path) -> None:
    canary = "sk-canary-0123456789abcdef"
    (nothing_of_ours / "secret").write_text(canary + "file")
    config = nothing_of_ours / "headgate.toml"
    config.write_text(
        f"[upstreams.a]\npreset = 'minimax'\nkey = '{canary}'\n"
        "[upstreams.b]\npreset = 'runapi'\nkey = 'env:CANARY'\n"
        f"[upstreams.c]\npreset = 'openai'\nkey = 'file:{nothing_of_ours / 'secret'}'\n"
        "[upstreams.d]\npreset = 'openrouter'\n"
    )
    env = {"CANARY": canary, "OPENROUTER_API_KEY": canary, "HEADGATE_CONFIG": str(config)}
    for arguments in (
        ["config", "show"],
        ["config", "show", "--json"],
        ["config", "check"],
        ["config", "check", "--json"],
        ["config", "schema"],
        ["models"],
        ["models", "--json"],
        ["env"],
        ["env", "--json"],
        ["keys", "list"],
        ["keys", "create", "a"],
        ["keys", "create", "b", "--json"],
    ):
        done = process(*arguments, **env)
        assert done.returncode == 0, done.stderr
        assert canary[:14] not in done.stdout + done.stderr, arguments
    assert canary[:14] not in on_a_terminal("config", "show", **env)
    config.write_text(config.read_text() + "timeouts = 3\n")
    assert canary[:14] not in process("config", "check", **env).stderr


def test_a_table_in_a_pipe_is_tab_separated_and_has_no_colour() -> None:
    titles, *lines = run("models").stdout.splitlines()
    assert titles == "model\tcontext\tmax output\tinput\troutes\tother names"
    cells = lines[0].split("\t")
    assert cells[:5] == [
        "MiniMax-M3",
        "1,000,000",
        "524,288",
        "text, image, video",
        "local/smollm2-135m",
    ]
    assert cells[5].startswith("claude-*, ")
    assert len(lines) == 9 and "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("statsu",), "no command `statsu`. Did you mean `status`?"),
        (("keys", "lsit"), "no command `lsit`. Did you mean `list`?"),
        (("keys", "zzz"), "no command `zzz`. Known: change, create, list, revoke, rotate, usage."),
    ],
)
def test_a_mistyped_command_is_answered_with_the_near_one(words: list[str], hint: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "") and hint in result.stderr


def test_a_table_without_rows_has_its_titles_in_a_pipe(tmp_path: Path) -> None:
    listed = run("keys", "list", "--data", str(tmp_path / "none"))
    assert listed.stdout.split("\t")[:4] == ["id", "name", "account", "state"]
    assert len(listed.stdout.splitlines()) == 1 and "keys create NAME" in listed.stderr


def test_models_shows_the_names_that_stand_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text('[aliases]\n"claude-*" = "MiniMax-M2"\n')
    lines = [line.split("\t") for line in run("models", "--config", str(file)).stdout.splitlines()]
    shown = {line[0]: line[5].split(", ") for line in lines}
    assert shown["MiniMax-M2"] == ["claude-*"]
    assert "gpt-*" in shown["MiniMax-M3"] and "claude-*" not in shown["MiniMax-M3"]
    assert "claude-*haiku*" in shown["MiniMax-M2.1"]
    rows = json.loads(run("models", "--json").stdout)
    names = {a["name"]: (m["id"], a["from"]) for m in rows for a in m["aliases"]}
    assert names["claude-*haiku*"] == ("MiniMax-M2.1", "default_aliases")
    monkeypatch.setenv("HEADGATE_DEFAULT_ALIASES", "false")
    assert "claude" not in run("models").stdout
    left = [a["from"] for m in json.loads(run("models", "--json").stdout) for a in m["aliases"]]
    assert "default_aliases" not in left  # a model's other name in the catalog stays


def test_models_as_json_name_their_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "k")
    rows = printed("models", "--json")
    assert isinstance(rows, list)
    routes = {row["id"]: row["routes"] for row in rows}
    assert routes["MiniMax-M2"] == ["openrouter/minimax/minimax-m2"]
    assert routes["MiniMax-M2.5-highspeed"] == []


def test_env_gives_each_protocols_clients_the_base_they_expect() -> None:
    found = printed("env", "--url", "https://gate.example/", "--key", "k", "--json")
    assert isinstance(found, dict)
    model = "MiniMax-M3"
    assert found == {
        "HEADGATE_API_KEY": "k",
        "OPENAI_BASE_URL": "https://gate.example/v1",
        "OPENAI_API_BASE": "https://gate.example/v1",
        "OPENAI_API_KEY": "k",
        "OPENAI_MODEL": model,
        "ANTHROPIC_BASE_URL": "https://gate.example",
        "ANTHROPIC_AUTH_TOKEN": "k",
        "ANTHROPIC_MODEL": model,
        **{f"ANTHROPIC_DEFAULT_{f}_MODEL": model for f in ("OPUS", "SONNET", "HAIKU", "FABLE")},
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "1000000",
        "GOOGLE_GEMINI_BASE_URL": "https://gate.example",
        "GEMINI_API_KEY": "k",
        "GEMINI_MODEL": model,
        "GEMINI_DEFAULT_AUTH_TYPE": "gemini-api-key",
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_VERTEX_BASE_URL": "https://gate.example",
        "GOOGLE_API_KEY": "k",
    }
    other = printed("env", "--model", "minimax-m2", "--json")
    assert isinstance(other, dict)
    assert other["ANTHROPIC_MODEL"] == other["GEMINI_MODEL"] == "MiniMax-M2"
    assert other["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "204800"


# A value with all that a shell may act on, and how each shell writes it. Sources: POSIX 2.2.2,
# fishshell.com/docs/current/language.html#quotes, about_Quoting_Rules of PowerShell 7.
@pytest.mark.parametrize(
    ("shell", "line", "gone"),
    [
        ("bash", "export GEMINI_API_KEY='$(x)`y` \\ \"z\"'", "unset ANTHROPIC_API_KEY"),
        ("zsh", "export GEMINI_API_KEY='$(x)`y` \\ \"z\"'", "unset ANTHROPIC_API_KEY"),
        ("fish", "set -gx GEMINI_API_KEY '$(x)`y` \\\\ \"z\"'", "set -e ANTHROPIC_API_KEY"),
        (
            "powershell",
            "$env:GEMINI_API_KEY = '$(x)`y` \\ \"z\"'",
            "Remove-Item Env:ANTHROPIC_API_KEY -ErrorAction Ignore",
        ),
    ],
)
def test_env_quotes_for_each_shell(shell: str, line: str, gone: str) -> None:
    shown = run("env", "--shell", shell, "--key", '$(x)`y` \\ "z"').stdout.splitlines()
    assert line in shown and shown[0] == gone


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        ("/usr/bin/fish", "set -gx "),
        ("/bin/zsh", "export "),
        ("/opt/microsoft/pwsh", "$env:"),
        ("/bin/odd", "export "),
        ("", "export "),
    ],
)
def test_env_takes_the_persons_own_shell(
    monkeypatch: pytest.MonkeyPatch, path: str, begins: str
) -> None:
    monkeypatch.setenv("SHELL", path)
    assert run("env").stdout.splitlines()[1].startswith(begins)


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")]
)
def test_env_names_an_address_that_can_be_called(
    monkeypatch: pytest.MonkeyPatch, host: str, shown: str
) -> None:
    monkeypatch.setenv("HEADGATE_HOST", host)
    assert f"export OPENAI_BASE_URL='http://{shown}:8787/v1'\n" in run("env").stdout


def test_env_is_taken_by_a_shell_as_it_is_and_cannot_be_broken_out_of() -> None:
    script = run("env", "--key", "$(echo x)`y` \\").stdout + 'printf %s "$GEMINI_API_KEY"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "$(echo x)`y` \\"
    assert run("env", "--key", "a'; rm -rf x; '").exit_code == 2


def test_config_check_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    path = tmp_path / "headgate.toml"
    path.write_text("prot = 1\n")
    result = run("config", "check", "--config", str(path))
    assert result.exit_code == 1
    assert "unknown key `prot`. Did you mean `port`?" in result.stderr
    path.write_text("port = 1\n")
    assert printed("config", "check", "--config", str(path), "--json") == {"ok": True, "notes": []}


def test_config_check_names_a_model_that_nothing_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "k")
    assert "MiniMax-M2.5-highspeed has no route." in run("config", "check").stderr


def test_config_show_has_origins_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIMAX_API_KEY", "sk-not-to-be-seen")
    shown = printed("config", "show", "--json")
    assert isinstance(shown, dict)
    assert shown["data"]["origin"] == "env" and shown["port"]["origin"] == "default"
    assert shown["upstreams.minimax.key"]["value"] == "********"
    assert "sk-not-to-be-seen" not in run("config", "show").output


def test_config_schema_is_json_schema() -> None:
    schema = printed("config", "schema")
    assert isinstance(schema, dict) and "$defs" in schema


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2592000), ("12h", 43200), ("90s", 90)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "d", "0d", "-1d", "1.5h", "10", "1y", "²d", "101y", "36501d", "9" * 5000 + "d"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_moments_are_shown_in_utc() -> None:
    assert when(0) == "1970-01-01 00:00" and when(None) == ""
