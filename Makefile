# Each target is a thin line over a playbook or a tool that can be run by hand from .venv/bin.
INVENTORY ?= inventory/local
ARGS ?=
SCENARIO ?=
# A revision: `make affected` tests what has changed since; without it, what has changed since each scenario was green.
BASE ?=
# How long `make test` may take, such as 80m: what would not end in time is not begun, and is named at the end.
LIMIT ?=
BEGAN := $(shell date +%s)

# Ansible finds its settings here even where this directory is writable by all, and prints UTF-8 wherever it runs.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export LC_ALL := C.UTF-8
# What Python compiles is kept: where this variable is set, Ansible and MLflow are compiled anew for each process.
unexport PYTHONDONTWRITEBYTECODE
PLAYBOOK = .venv/bin/ansible-playbook -i $(INVENTORY) $(ARGS)

.PHONY: help up update check smoke train serve down audit test lint unit molecule affected bench campaign docs lock
help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

up: .venv/.up ## bare host to served models; ends with a summary of URLs and versions
	$(PLAYBOOK) site.yml

update: .venv/.up ## images with the newest packages of Debian and the locked ones of Python, rolled out
	$(PLAYBOOK) playbooks/update.yml

check: .venv/.up ## dry run of `up` that shows every difference
	$(PLAYBOOK) site.yml --check --diff

smoke: .venv/.up ## ask everything what a client would ask
	$(PLAYBOOK) playbooks/smoke.yml

train: .venv/.up ## train what has no champion yet (ARGS='-e training_retrain=true' trains anew)
	$(PLAYBOOK) playbooks/train.yml

serve: .venv/.up ## what the aliases say goes live
	$(PLAYBOOK) playbooks/serve.yml

down: .venv/.up ## remove containers, services, networks; data stays (ARGS='-e teardown_data=true' removes it too)
	$(PLAYBOOK) playbooks/teardown.yml

test: lint unit molecule ## everything that must pass

lint: .venv/.test ## linters, types, generated documentation
	.venv/bin/yamllint --strict .
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/ansible-lint
	.venv/bin/python tools/generate_docs.py --check

unit: .venv/.test .cache/checkers/made ## tests without containers
	.venv/bin/pytest -q --numprocesses=2

molecule: .venv/.test ## scenarios in test instances (SCENARIO=name runs one)
	.venv/bin/python molecule/run.py $(if $(LIMIT),--limit $(LIMIT) --began $(BEGAN)) $(if $(BASE),--base $(BASE)) $(SCENARIO)

affected: .venv/.test .cache/checkers/made ## what a change can touch, since BASE or since each scenario was green
	.venv/bin/python molecule/run.py --affected $(if $(LIMIT),--limit $(LIMIT)) $(if $(BASE),--base $(BASE))

audit: .cache/audit/made ## known vulnerabilities in locked packages and images (ARGS=--locks-only leaves the images out)
	.venv/bin/python tools/audit.py $(ARGS)

bench: .venv/.test ## measure a platform in a test instance, then the prediction API against its peers
	@status=0; .venv/bin/python -m bench || status=$$?; .venv/bin/python -m bench serving || status=$$?; exit $$status

campaign: .venv/.test ## long fuzz run, long fault and load runs in a test instance, hostile requests beside 10,000 good ones
	@status=0; .venv/bin/python -m bench fuzz || status=$$?; .venv/bin/python -m bench campaign || status=$$?; \
	.venv/bin/python molecule/run.py serving || status=$$?; exit $$status

docs: .venv/.test ## renew docs/variables.md and the roles' tables of variables
	.venv/bin/python tools/generate_docs.py

lock: .venv/.up ## renew the locked requirements from the .in files
	.venv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --python-version 3.11 requirements.in -o requirements.txt
	.venv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --python-version 3.11 requirements-dev.in -o requirements-dev.txt
	cd roles/runtime_image/files && $(CURDIR)/.venv/bin/uv pip compile --quiet --upgrade --generate-hashes --no-annotate uv.in -o uv.txt
	cd roles/runtime_image/files && $(CURDIR)/.venv/bin/uv pip compile --quiet --upgrade --generate-hashes --no-annotate \
		--python-version 3.13 --python-platform linux requirements.in -o requirements.txt
	cd roles/certificate/files && $(CURDIR)/.venv/bin/uv pip compile --quiet --upgrade --generate-hashes --no-annotate \
		--python-version 3.13 --python-platform linux requirements.in -o requirements.txt
	cd tools && $(CURDIR)/.venv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --python-version 3.11 audit.in -o audit.txt
	cd tests/serving/clients && $(CURDIR)/.venv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate \
		--python-version 3.11 kserve.in -o kserve.txt
	cd bench/serving/peers && for peer in *.in; do $(CURDIR)/.venv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes \
		--no-annotate --python-version 3.11 $$peer -o $${peer%.in}.txt || exit; done

.venv/.up: requirements.txt tools/venv
	@echo 'Installing what runs the playbooks into .venv'
	@tools/venv requirements.txt
	@touch $@

.venv/.test: requirements-dev.txt .venv/.up
	@echo 'Installing what checks the repository into .venv'
	@tools/venv requirements-dev.txt
	@touch $@

# An environment of its own: what it needs has nothing to do with what runs the playbooks.
.cache/audit/made: tools/audit.txt .venv/.up
	@echo 'Installing what looks up known vulnerabilities into .cache/audit'
	@.venv/bin/uv venv --quiet --clear --python .venv/bin/python .cache/audit
	@UV_SYSTEM_CERTS=1 .venv/bin/uv pip install --quiet --require-hashes --python .cache/audit/bin/python -r tools/audit.txt
	@touch $@

# Where it cannot be made, it says so and the tests that need it are skipped.
.cache/checkers/made: tools/checkers
	@echo 'Fetching the programs that check what the roles write into .cache/checkers'
	@tools/checkers
