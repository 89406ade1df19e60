"""The files in deploy/: judged by the tools that will read them, and run where they can be.

`make deploy-check` installs what a machine lacks; a test whose tool is missing is skipped.
"""

import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
import yaml

from certs import Authority
from gateway import Gateway, start, stop
from headgate import config
from headgate.cli import COMMANDS
from headgate.config import addresses, loading
from headgate.edge.metrics import Metrics
from headgate.errors import Kind
from played import PlayedUpstream
from programs import optional
from waiting import PATIENCE_S, wait_for

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CHAT = {"model": "MiniMax-M2", "stream": True, "messages": [{"role": "user", "content": "held"}]}


def ok(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert not done.returncode, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


# --- documents ----------------------------------------------------------------------------------

PAGES = ("deployment", "network", "releasing")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_files_and_commands_that_exist(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert not [each for each in links if not (ROOT / "docs" / each).exists()]
    files = re.findall(r"`((?:tests|src|deploy|evals)/[\w./-]+)`", text)
    assert not [each for each in files if not (ROOT / each).exists()]
    commands = {c for c in re.findall(r"(?:^    |`)headgate ([a-z]+)", text, re.M)}
    assert commands and not commands - set(COMMANDS)
    targets = {t for t in re.findall(r"`make ([a-z-]+)", text)}
    makefile = (ROOT / "Makefile").read_text()
    assert not [each for each in targets if f"\n{each}:" not in makefile]


@pytest.mark.parametrize("page", PAGES)
def test_a_configuration_on_a_page_is_right(page: str, tmp_path: Path) -> None:
    """Blocks of TOML, and the indented ones that begin with a table."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, re.S)
    blocks += [
        re.sub("^    ", "", block, flags=re.M)
        for block in re.findall(r"(?:^    .*\n)+", text, re.M)
        if block.startswith("    [")
    ]
    secret = tmp_path / "minimax"
    secret.write_text("k")
    for block in blocks:
        file = tmp_path / "headgate.toml"
        file.write_text(block.replace("/run/credentials/headgate.service/minimax", str(secret)))
        loading.load(str(file), {"HOME": "/"})
    assert blocks or page == "releasing"


# --- metrics ------------------------------------------------------------------------------------


def exported() -> set[str]:
    """Every name of a sample that /metrics can have."""
    metrics = Metrics()
    metrics.tls_handshakes = {"done": 0}
    names = set(re.findall(r"^# TYPE (\S+) ", metrics.page().decode(), re.M))
    source = "".join(p.read_text() for p in (ROOT / "src").rglob("*.py"))
    names |= set(re.findall(r'gauge\(\s*"(headgate_\w+)"', source))
    return names | {f"{n}_{end}" for n in names for end in ("bucket", "sum", "count", "total")}


def expressions() -> list[str]:
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((DEPLOY / "grafana/headgate.json").read_text())
    found += [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    found += [v["query"]["query"] for v in dashboard["templating"]["list"] if "datasource" in v]
    return found


def test_alerts_and_dashboard_use_metrics_that_exist() -> None:
    used = set(re.findall(r"\b(?:headgate|process)_\w+", " ".join(expressions())))
    assert len(used) > 15
    assert not used - exported()


def test_alerts_and_dashboard_name_kinds_of_failure_that_exist() -> None:
    named = re.findall(r'(?:outcome|kind)=~?"([^"$]+)"', " ".join(expressions()))
    assert len(named) > 3
    known = {*get_args(Kind), "input", "output", "cached", "reasoning"}
    assert not {word for text in named for word in text.split("|")} - known


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["summary"] and rule["annotations"]["action"], rule["alert"]


def test_prometheus_takes_the_alerts_and_they_fire() -> None:
    promtool = optional("promtool", "Debian: prometheus")
    ok(promtool, "check", "config", DEPLOY / "prometheus/prometheus.yml")
    ok(promtool, "test", "rules", DEPLOY / "prometheus/alerts_test.yml")


# --- systemd ------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is here in the place of ours."""
    text = (DEPLOY / "systemd/headgate.service").read_text()
    path = tmp_path / "headgate.service"
    path.write_text(text.replace("/opt/headgate/bin/headgate", "/bin/true"))
    beside = (DEPLOY / "systemd/headgate.socket").read_text()
    (tmp_path / "headgate.socket").write_text(beside)
    return path


def test_systemd_takes_the_units_without_a_word(unit: Path) -> None:
    systemd = optional("systemd-analyze", "Debian: systemd")
    assert ok(systemd, "verify", "--man=no", unit, unit.with_suffix(".socket")) == ""


def test_the_socket_unit_names_an_address_of_the_gateway() -> None:
    text = (DEPLOY / "systemd/headgate.socket").read_text()
    (name,) = re.findall(r"^FileDescriptorName=(\S+)$", text, re.M)
    assert name in get_args(addresses.AddressName)
    assert re.search(r"^ListenStream=\S+:8787$", text, re.M)
    assert "headgate.socket" in (DEPLOY / "systemd/headgate.service").read_text()


def test_the_unit_is_as_closed_as_its_work_allows(unit: Path) -> None:
    """2.0 of 10; an ordinary unit has 9.6."""
    systemd = optional("systemd-analyze", "Debian: systemd")
    ok(systemd, "security", "--offline=true", "--no-pager", "--threshold=20", unit)


# --- proxies ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("deploy") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_TRUSTED_PROXIES="127.0.0.1",
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def nginx(place: Path, gate: Gateway, authority: Authority) -> tuple[list[str], str]:
    cert, key = authority.issue("nginx")
    port = free_port()
    text = (DEPLOY / "nginx/headgate.conf").read_text()
    for old, new in (
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        ("/etc/headgate/tls/fullchain.pem", str(cert)),
        ("/etc/headgate/tls/privkey.pem", str(key)),
        ("server 127.0.0.1:8787", f"server {gate.url.removeprefix('http://')}"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    paths = "".join(
        f"{name}_temp_path {place}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if Path("/proc/self").owner() == "root" else ""
    (place / "nginx.conf").write_text(
        f"{user}daemon off; pid {place}/pid; error_log {place}/error.log; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{text}\n}}\n"
    )
    program = optional("nginx", "Debian: nginx")
    return [program, "-p", str(place), "-c", str(place / "nginx.conf")], f"https://localhost:{port}"


def caddy(place: Path, gate: Gateway, authority: Authority) -> tuple[list[str], str]:
    cert, key = authority.issue("caddy")
    port = free_port()
    text = (DEPLOY / "caddy/Caddyfile").read_text()
    for old, new in (
        ("{\n\tservers {", "{\n\tadmin off\n\tauto_https off\n\tservers {"),
        ("llm.example.com {", f"https://localhost:{port} {{\n\ttls {cert} {key}"),
        ("reverse_proxy 127.0.0.1:8787", f"reverse_proxy {gate.url.removeprefix('http://')}"),
    ):
        assert old in text, old
        text = text.replace(old, new, 1)
    (place / "Caddyfile").write_text(text)
    program = optional("caddy", "Debian: caddy")
    return [
        program,
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        str(place / "Caddyfile"),
    ], f"https://localhost:{port}"


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_a_stream_passes_the_proxy_as_it_comes_with_its_clients_address(
    proxy: Any, gate: Gateway, authority: Authority, tmp_path: Path
) -> None:
    command, url = proxy(tmp_path, gate, authority)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        )
    trusting = ssl.create_default_context(cafile=str(authority.cert))
    client = httpx2.Client(verify=trusting, timeout=PATIENCE_S, base_url=url)
    try:

        def ready() -> bool:
            try:
                return bool(client.get("/readyz").status_code == 200)
            except httpx2.HTTPError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                return False

        wait_for(ready)
        key = {"authorization": f"Bearer {gate.key}"}
        assert gate.upstream is not None
        with client.stream("POST", "/v1/chat/completions", json=CHAT, headers=key) as reply:
            assert reply.status_code == 200
            pieces = reply.iter_bytes()
            first = next(pieces)  # while the upstream still holds the rest back
            assert first.startswith(b"data: ")
            gate.upstream.release(gate.upstream.last)
            assert b"[DONE]" in first + b"".join(pieces)
        big = {**CHAT, "stream": False, "messages": [{"role": "user", "content": "x" * 2_000_000}]}
        assert client.post("/v1/chat/completions", json=big, headers=key).status_code != 413
        # The address that the client made up for itself is not taken for its own.
        guess = {"authorization": "Bearer hg_live_wrong", "x-forwarded-for": "203.0.113.9"}
        assert client.get("/v1/models", headers=guess).status_code == 401
        if proxy is caddy:
            assert client.get("/metrics").status_code == 404
    finally:
        client.close()
        process.terminate()
        process.wait(PATIENCE_S)


# --- containers and Kubernetes ------------------------------------------------------------------


def test_the_image_is_pinned_by_hash_and_runs_without_privileges() -> None:
    text = (DEPLOY / "container/Containerfile").read_text()
    for line in re.findall(r"^RUN .*pip install.*$", text, re.M):
        assert "--require-hashes" in line or "/build/headgate-*.whl" in line, line
        assert "--no-deps" in line
    final = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!0)\d+:\d+$", final, re.M)
    assert "HEALTHCHECK" in final and 'CMD ["headgate", "status", "--quiet"]' in final
    # As the tests run with: those of `make run`, and asyncpg.
    tested, image = ((ROOT / f"requirements/{n}.lock").read_text() for n in ("test", "image"))
    pinned = re.findall(r"^([\w.-]+==\S+)", image, re.M)
    assert len(pinned) > 15
    assert not [each for each in pinned if f"\n{each} " not in f"\n{tested}"]
    assert "\nasyncpg==" in image


def composed(name: str = "compose.yaml") -> dict[str, Any]:
    """The project as Docker Compose reads it."""
    program = optional("docker-compose", "Go: github.com/docker/compose/v2/cmd")
    text = ok(program, "-f", DEPLOY / "compose" / name, "config", "--format", "json")
    found: dict[str, Any] = json.loads(text)
    return found


def test_compose_takes_the_project_and_every_file_is_there() -> None:
    services = composed()["services"]
    gateway = services["gateway"]
    assert gateway["read_only"] is True and gateway["cap_drop"] == ["ALL"]
    named = {name for name in gateway["environment"] if name.startswith("HEADGATE_")}
    assert named <= {*config.VARIABLES.values(), "HEADGATE_CONFIG"}
    for service in services.values():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind" and not volume["source"].endswith("/tls"):
                assert Path(volume["source"]).is_file(), volume["source"]


def test_the_configuration_of_compose_is_right(tmp_path: Path) -> None:
    text = (DEPLOY / "compose/headgate.toml").read_text()
    secret, file = tmp_path / "minimax", tmp_path / "headgate.toml"
    secret.write_text("k")
    file.write_text(text.replace("/run/secrets/minimax", str(secret)))
    settings = loading.load(str(file), {"HOME": "/"})
    project = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    patience_s = float(project["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert patience_s >= settings.drain_delay_s + settings.drain_s + 10


def rendered(*options: str) -> list[dict[str, Any]]:
    helm = optional("helm", "Go: helm.sh/helm/v3/cmd/helm")
    text = ok(helm, "template", "x", DEPLOY / "helm/headgate", "--kube-version", "1.29", *options)
    return [each for each in yaml.safe_load_all(text) if each]


def test_the_chart_is_taken_by_helm_and_its_configuration_by_us(tmp_path: Path) -> None:
    helm = optional("helm", "Go: helm.sh/helm/v3/cmd/helm")
    ok(helm, "lint", "--strict", DEPLOY / "helm/headgate")
    found = rendered("--set", "tls.secret=t,ingress.enabled=true,podMonitor.enabled=true")
    kinds = [each["kind"] for each in found]
    assert kinds.count("StatefulSet") == 1 and {"Ingress", "PodMonitor", "Service"} < set(kinds)
    (text,) = [each["data"]["headgate.toml"] for each in found if each["kind"] == "ConfigMap"]
    file = tmp_path / "headgate.toml"
    file.write_text(text)
    settings = loading.load(str(file), {"HOME": "/", "MINIMAX_API_KEY": "k"})
    (pods,) = [each["spec"]["template"]["spec"] for each in found if each["kind"] == "StatefulSet"]
    (container,) = pods["containers"]
    drain_s = settings.drain_delay_s + settings.drain_s
    assert pods["terminationGracePeriodSeconds"] >= drain_s + 10
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pods["securityContext"]["runAsNonRoot"] is True
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in ("/livez", "/readyz")
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    assert not [
        e
        for e in container["env"]
        if "KEY" in e["name"] and "value" in e and "tls" not in e["value"]
    ]
    # Settings that the environment takes; a wrong name would be ignored without a word.
    named = {e["name"] for e in container["env"] if e["name"].startswith("HEADGATE_")}
    assert named <= set(config.VARIABLES.values())


def test_a_database_for_the_ledger_is_a_secret_by_reference() -> None:
    found = rendered("--set", "database.secret=pg")
    (pods,) = [each["spec"]["template"]["spec"] for each in found if each["kind"] == "StatefulSet"]
    env = {e["name"]: e for e in pods["containers"][0]["env"]}
    assert env["HEADGATE_DATABASE"]["valueFrom"]["secretKeyRef"] == {"name": "pg", "key": "url"}


def test_several_pods_share_a_database_and_a_pepper_and_are_refused_without() -> None:
    helm = optional("helm", "Go: helm.sh/helm/v3/cmd/helm")
    chart = [helm, "template", "x", str(DEPLOY / "helm/headgate"), "--kube-version", "1.29"]
    for options in (
        "replicas=3,database.secret=pg",
        "replicas=2,pepper.secret=p",
        "autoscaling.enabled=true,database.secret=pg",
    ):
        done = subprocess.run([*chart, "--set", options], capture_output=True, text=True)
        assert done.returncode and "share keys and budgets through PostgreSQL" in done.stderr
    found = rendered("--set", "replicas=3,database.secret=pg,pepper.secret=p")
    (set_,) = [each["spec"] for each in found if each["kind"] == "StatefulSet"]
    pods = set_["template"]["spec"]
    assert set_["replicas"] == 3
    env = {e["name"]: e for e in pods["containers"][0]["env"]}
    path = Path(env["HEADGATE_PEPPER_FILE"]["value"])
    (mount,) = [m for m in pods["containers"][0]["volumeMounts"] if m["name"] == "pepper"]
    (volume,) = [v for v in pods["volumes"] if v["name"] == "pepper"]
    assert Path(mount["mountPath"]) == path.parent
    assert volume["secret"]["items"] == [{"key": "pepper", "path": path.name}]


def test_pods_are_scaled_by_open_streams_and_evicted_one_at_a_time() -> None:
    shared = "database.secret=pg,pepper.secret=p,podDisruptionBudget.enabled=true"
    found = {e["kind"]: e for e in rendered("--set", f"{shared},autoscaling.enabled=true")}
    scaler, pods = found["HorizontalPodAutoscaler"]["spec"], found["StatefulSet"]
    assert scaler["scaleTargetRef"]["name"] == pods["metadata"]["name"]
    assert "replicas" not in pods["spec"]  # an update of the release would undo the scaler's number
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] in exported()
    assert int(metric["pods"]["target"]["averageValue"]) > 0
    kept = {}
    for replicas in (1, 3):
        one = rendered("--set", f"{shared},replicas={replicas}")
        (budget,) = [e["spec"] for e in one if e["kind"] == "PodDisruptionBudget"]
        kept[replicas] = budget["maxUnavailable"]
    assert kept == {1: 0, 3: 1} and found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_the_project_of_three_gateways_is_taken_and_its_nginx_differs_in_the_servers_only() -> None:
    services = composed("cluster.yaml")["services"]
    gateways = {name: s for name, s in services.items() if name.startswith("gateway-")}
    assert len(gateways) == 3
    data = set()
    for service in gateways.values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        named = {name for name in service["environment"] if name.startswith("HEADGATE_")}
        assert named <= {*config.VARIABLES.values(), "HEADGATE_CONFIG"}
        secrets = {f"/run/secrets/{s['source']}" for s in service["secrets"]}
        assert service["environment"]["HEADGATE_PEPPER_FILE"] in secrets
        assert service["environment"]["HEADGATE_DATABASE"].removeprefix("file:") in secrets
        data |= {v["source"] for v in service["volumes"] if v["target"] == "/data"}
    assert len(data) == 3
    one, several = (
        (DEPLOY / "nginx" / name).read_text().splitlines()[2:]
        for name in ("headgate.conf", "cluster.conf")
    )
    servers = {f"    server {name}:8787 max_fails=2 fail_timeout=5s;" for name in gateways}
    assert set(several) - set(one) == servers
    assert [line for line in several if line not in servers] == [
        line for line in one if "server 127.0.0.1:8787" not in line
    ]
