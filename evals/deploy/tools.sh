#!/bin/sh
# Fetch the programs that judge deploy/ into a directory, without installing them: tools.sh DIRECTORY
set -eu
place=$1
mkdir -p "$place/bin"
cd "$place"
for pair in nginx:nginx caddy:caddy promtool:prometheus; do
    program=${pair%%:*} package=${pair##*:}
    command -v "$program" >/dev/null && continue
    [ -e "usr/bin/$program" ] && continue
    if command -v apt-get >/dev/null && apt-get download -q "$package" >/dev/null 2>&1; then
        dpkg -x "$package"_*.deb . && rm -f "$package"_*.deb
    else
        echo "$program cannot be had here (Debian: $package); its tests are skipped" >&2
    fi
done
if ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null && [ ! -x bin/docker-compose ]; then
    if command -v go >/dev/null; then
        echo "building Docker Compose; this takes some minutes" >&2
        mkdir -p compose
        (cd compose && printf 'module compose\n\ngo 1.24\n' >go.mod &&
            GOFLAGS=-mod=mod go get github.com/docker/compose/v2/cmd@v2.40.3 >/dev/null 2>&1 &&
            go build -o ../bin/docker-compose github.com/docker/compose/v2/cmd) ||
            echo "Docker Compose could not be built; its test is skipped" >&2
    else
        echo "docker compose cannot be had here; its test is skipped" >&2
    fi
fi
if ! command -v helm >/dev/null && [ ! -x bin/helm ]; then
    if command -v go >/dev/null; then
        echo "building Helm; this takes some minutes" >&2
        GOBIN="$PWD/bin" go install helm.sh/helm/v3/cmd/helm@v3.22.0 || echo "Helm could not be built; its tests are skipped" >&2
    else
        echo "helm cannot be had here (Go: helm.sh/helm/v3/cmd/helm); its tests are skipped" >&2
    fi
fi
