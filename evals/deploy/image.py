"""Run the steps of deploy/container/Containerfile in namespaces, and then the image as its operator would.

    sudo python evals/deploy/image.py DIST

For machines without a container engine.  The base is this machine's own system, read-only; COPY, RUN,
USER, ENV, ENTRYPOINT and HEALTHCHECK are carried out as written, and the result runs without privileges on
a read-only root with /data and /tmp alone writable.  It must become healthy, refuse to write elsewhere, and drain on
SIGTERM.  Needs root for mounts (in a namespace of its own) and a package index for the build's pip.
"""

import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = ("usr", "bin", "lib", "lib64", "sbin", "etc")  # of the base, read-only
IN_BUILD = ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "PIP_TRUSTED_HOST")


class Stage:
    """One FROM: a root directory, and what its instructions have set."""

    def __init__(self, place: Path) -> None:
        self.root = place
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        self.user = "0:0"
        self.entrypoint: list[str] = []
        self.command: list[str] = []
        self.health: list[str] = []
        for name in (*SYSTEM, "proc", "dev", "tmp", "build", "opt"):
            (place / name).mkdir(parents=True, exist_ok=True)

    def run(
        self,
        command: list[str],
        env: dict[str, str],
        user: str = "0:0",
        writable: tuple[str, ...] = (),
    ) -> list[str]:
        """Return the command line that runs a command in this root, in namespaces of its own."""
        script = ["set -e", "mount --make-rprivate /"]
        for name in SYSTEM:
            here = self.root / name
            script += [f"mount --rbind /{name} {here}", f"mount -o remount,bind,ro {here}"]
        script += [f"mount --rbind /dev {self.root}/dev", f"mount -t proc proc {self.root}/proc"]
        if writable:
            script += [
                f"mount --bind {self.root} {self.root}",
                f"mount -o remount,bind,ro {self.root}",
            ]
            # A bind of the root hides what was mounted in it.
            for name in (*SYSTEM, "dev"):
                script.append(f"mount --rbind /{name} {self.root}/{name}")
            script.append(f"mount -t proc proc {self.root}/proc")
            for place in writable:
                script.append(f"mount --bind {self.root.parent}/volumes{place} {self.root}{place}")
        uid, gid = user.split(":")
        drop = (
            f"setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all"
            if uid != "0"
            else ""
        )
        variables = " ".join(shlex.quote(f"{n}={v}") for n, v in env.items())
        script.append(
            f"cd /; exec chroot {self.root} {drop} env -i {variables} {shlex.join(command)}"
        )
        return [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=SIGTERM",
            "sh",
            "-c",
            "\n".join(script),
        ]


def instructions(text: str) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    return [
        (line.split(None, 1)[0], line.split(None, 1)[1].strip())
        for line in text.splitlines()
        if line.strip()
    ]


def build(place: Path) -> Stage:
    stages: dict[str, Stage] = {}
    stage = Stage(place / "none")
    for word, rest in instructions((ROOT / "deploy/container/Containerfile").read_text()):
        match word:
            case "ARG" | "LABEL" | "EXPOSE" | "STOPSIGNAL" | "VOLUME":
                pass
            case "FROM":
                name = rest.split(" AS ")[1] if " AS " in rest else "final"
                stage = stages[name] = Stage(place / name)
            case "COPY":
                *sources, target = [p for p in rest.split() if not p.startswith("--")]
                from_ = re.search(r"--from=(\S+)", rest)
                base = stages[from_[1]].root if from_ else ROOT
                for source in sources:
                    found = glob.glob(str(base / source.lstrip("/")))
                    assert found, f"COPY {source}: there is no such file"
                    for one in found:
                        to = stage.root / target.lstrip("/")
                        if os.path.isdir(one):
                            shutil.copytree(one, to, symlinks=True)
                        else:
                            shutil.copy(one, to / Path(one).name if target.endswith("/") else to)
            case "RUN":
                print(f"RUN {rest[:100]}", flush=True)
                env = stage.env | {n: os.environ[n] for n in IN_BUILD if n in os.environ}
                subprocess.run(stage.run(["sh", "-c", rest], env), check=True)
            case "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", rest):
                    stage.env[name] = value
            case "USER":
                stage.user = rest
            case "ENTRYPOINT":
                stage.entrypoint = json.loads(rest)
            case "CMD":
                stage.command = json.loads(rest)
            case "HEALTHCHECK":
                stage.health = json.loads(rest.partition("CMD ")[2])
            case _:
                raise AssertionError(f"this script does not know {word}")
    return stage


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        stage = build(place)
        assert stage.user.split(":")[0] != "0", "the image runs as root"
        volumes = place / "volumes"
        for volume in ("data", "tmp"):
            (volumes / volume).mkdir(parents=True)
            os.chown(volumes / volume, 65532, 65532)
        env = stage.env | {
            "HEADGATE_UPSTREAM_URL": "http://127.0.0.1:9/v1",
            "HEADGATE_PORT": "18787",
        }
        env["HEADGATE_HOST"] = "127.0.0.1"  # no network of its own here
        open_ = ("/data", "/tmp")
        refused = subprocess.run(
            stage.run(
                ["sh", "-c", "touch /opt/x || touch /x || touch /opt/headgate/x"],
                env,
                stage.user,
                open_,
            ),
            capture_output=True,
        )
        assert refused.returncode, "the root can be written"
        process = subprocess.Popen(
            stage.run([*stage.entrypoint, *stage.command], env, stage.user, open_)
        )
        try:
            healthy = stage.run(stage.health, env, stage.user, open_)
            until = time.monotonic() + 120
            while subprocess.run(healthy).returncode:
                assert process.poll() is None, "the gateway ended"
                assert time.monotonic() < until, "it did not become healthy"
                time.sleep(0.5)
            print("healthy, as uid 65532 on a read-only root")
        finally:
            # The first process of the namespace is the gateway's supervisor; unshare hands the signal on.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGTERM)
            code = process.wait(60)
        assert code == 0, f"it ended with {code}"
        print("drained and ended with 0")


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("this needs root, for mounts in a namespace of its own")
    main()
