# Each target is enough by itself on a machine that has make and Python 3.11 or newer. What it needs is installed once,
# into .venv, and again when pyproject.toml changes. 'make PYTHON=python3.12 …' keeps an environment of its own.

ifdef PYTHON
VENV := .venv-$(notdir $(PYTHON))
FIND_PYTHON := echo $(PYTHON)
else
VENV := .venv
FIND_PYTHON := sh .ci/find-python
endif
OLDEST := $(VENV)-oldest
DATABASE_TESTS := $(addprefix tests/conformance/test_,storage.py items.py same_answers.py server_failures.py drivers.py conflicts.py) \
	$(addprefix tests/core/test_mongo,.py _connect.py) tests/adapters/test_langchain_store.py
LITELLM := $(VENV)-litellm
LITELLM_OLDEST := $(VENV)-litellm-oldest
LITELLM_TESTS := -k 'litellm or LiteLLM' $(addprefix tests/core/test_,capture_litellm.py provider_memory.py requests_untouched.py)
# With what LiteLLM's own 'responses' asks for in newer versions, without saying so.
LITELLM_NEEDS := --editable '.[litellm]' mcp 'blockbuster>=1.5,<2' 'hypothesis>=6.130,<7' 'pytest>=9.0,<10' \
	'pytest-timeout>=2.4,<3'
PYDANTIC_AI_OLDEST := $(VENV)-pydantic-ai-oldest
PYDANTIC_AI_TESTS := $(addprefix tests/adapters/test_pydantic_ai,.py _agents.py _bedrock.py)
# With the oldest SDKs that its models take, which are newer than the oldest that memori takes by themselves.
PYDANTIC_AI_NEEDS := --editable '.[pydantic-ai]' 'pydantic-ai-slim[openai,anthropic,bedrock]' \
	openai==3.26.0 anthropic==1.12.1 boto3==1.42.63 \
	'blockbuster>=1.5,<2' 'hypothesis>=6.130,<7' 'pytest>=9.0,<10' 'pytest-timeout>=2.4,<3'
LANGCHAIN_OLDEST := $(VENV)-langchain-oldest
LANGCHAIN_TESTS = $(wildcard tests/adapters/test_langchain*.py)
# With the models of other providers' that go with the oldest LangChain, of which there is no floor: no extra brings them.
LANGCHAIN_NEEDS := --editable '.[bedrock]' langchain-openai langchain-anthropic langchain-google-genai \
	'blockbuster>=1.5,<2' 'hypothesis>=6.130,<7' 'pytest>=9.0,<10' 'pytest-timeout>=2.4,<3'
AGNO_OLDEST := $(VENV)-agno-oldest
AGNO_TESTS := $(addprefix tests/adapters/test_,agno.py agno_agents.py agno_models.py)
# With the oldest SDKs that its models take.
AGNO_NEEDS := --editable '.[agno]' openai==2.0.0 anthropic==1.0.0 google-genai==1.52.0 'boto3>=1.40,<2' \
	'blockbuster>=1.5,<2' 'hypothesis>=6.130,<7' 'pytest>=9.0,<10' 'pytest-timeout>=2.4,<3'
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-databases lint format bench bench-databases bench-processes test-oldest test-litellm clean
.DELETE_ON_ERROR:

help:  ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)/.demo  ## Run the quick example, against a local provider unless OPENAI_API_KEY is set
	@$(VENV)/bin/python .ci/loopback.py
	@$(VENV)/bin/python examples/quickstart.py

test: $(VENV)/.dev  ## Run the tests
	@$(VENV)/bin/python .ci/loopback.py
	$(VENV)/bin/python -m pytest

test-databases: $(VENV)/.dev  ## Run the databases' tests on all servers that can be started here
	@servers="$(VENV)/bin/python tests/services/servers.py --folder $$(mktemp -d)"; \
		trap "$$servers stop" EXIT; eval "$$($$servers start)"; \
		$(VENV)/bin/python -m pytest $(DATABASE_TESTS)

lint: $(VENV)/.dev  ## Check style, types and import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict packages tests examples benchmarks
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/lint-imports --no-logo --no-cache

format: $(VENV)/.dev  ## Rewrite the code in the house style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.dev  ## Measure what memori costs on this machine
	$(VENV)/bin/python -m benchmarks

bench-databases: $(VENV)/.dev  ## Measure what each database server that can be started here costs
	@servers="$(VENV)/bin/python tests/services/servers.py --folder $$(mktemp -d)"; \
		trap "$$servers stop" EXIT; eval "$$($$servers start)"; \
		PYTHONPATH=tests/services $(VENV)/bin/python -m benchmarks.databases

bench-processes: $(VENV)/.dev  ## Let ten processes store into one database while workers are killed: DATABASES='URL …'
	$(VENV)/bin/python -m benchmarks.workers $(DATABASES)

test-oldest: $(OLDEST)/.dev $(PYDANTIC_AI_OLDEST)/.dev $(LANGCHAIN_OLDEST)/.dev $(AGNO_OLDEST)/.dev  ## Run the tests on the oldest versions of the dependencies
	$(OLDEST)/bin/python -m pytest
	$(PYDANTIC_AI_OLDEST)/bin/python -m pytest $(PYDANTIC_AI_TESTS)
	$(LANGCHAIN_OLDEST)/bin/python -m pytest $(LANGCHAIN_TESTS)
	$(AGNO_OLDEST)/bin/python -m pytest $(AGNO_TESTS)

test-litellm: $(LITELLM)/.dev $(LITELLM_OLDEST)/.dev  ## Test LiteLLM's newest and oldest; it holds other packages back
	$(LITELLM)/bin/python -m pytest $(LITELLM_TESTS)
	$(LITELLM_OLDEST)/bin/python -m pytest $(LITELLM_TESTS)

clean:  ## Remove all that make has made, the environments included
	rm -rf .venv* build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find packages tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# $(call environment,folder,packages): (re)make a virtual environment that is missing or half made, install into it.
define environment
@$(1)/bin/python -m pip --version >/dev/null 2>&1 || { python=$$($(FIND_PYTHON)) && "$$python" -m venv --clear $(1); }
@echo "Installing memori into $(1) (once; needs the network) …"
$(1)/bin/python -m pip install --quiet $(2)
endef

$(VENV)/.demo: pyproject.toml
	$(call environment,$(VENV),--editable '.[openai]')
	@touch $@

$(VENV)/.dev: pyproject.toml
	$(call environment,$(VENV),--editable '.[dev]')
	@touch $(VENV)/.demo $@

$(OLDEST)/.dev: pyproject.toml .ci/floors.py
	$(call environment,$(OLDEST),pip)
	$(OLDEST)/bin/python .ci/floors.py >$(OLDEST)/floors.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/floors.txt --editable '.[tests]'
	@touch $@

$(LITELLM)/.dev: pyproject.toml
	$(call environment,$(LITELLM),$(LITELLM_NEEDS))
	@touch $@

$(LITELLM_OLDEST)/.dev: pyproject.toml .ci/floors.py
	$(call environment,$(LITELLM_OLDEST),pip)
	$(LITELLM_OLDEST)/bin/python .ci/floors.py litellm openai >$(LITELLM_OLDEST)/floors.txt
	$(LITELLM_OLDEST)/bin/python -m pip install --quiet --constraint $(LITELLM_OLDEST)/floors.txt $(LITELLM_NEEDS)
	@touch $@

$(PYDANTIC_AI_OLDEST)/.dev: pyproject.toml .ci/floors.py
	$(call environment,$(PYDANTIC_AI_OLDEST),pip)
	$(PYDANTIC_AI_OLDEST)/bin/python .ci/floors.py pydantic-ai >$(PYDANTIC_AI_OLDEST)/floors.txt
	$(PYDANTIC_AI_OLDEST)/bin/python -m pip install --quiet --constraint $(PYDANTIC_AI_OLDEST)/floors.txt $(PYDANTIC_AI_NEEDS)
	@touch $@

$(LANGCHAIN_OLDEST)/.dev: pyproject.toml .ci/floors.py
	$(call environment,$(LANGCHAIN_OLDEST),pip)
	$(LANGCHAIN_OLDEST)/bin/python .ci/floors.py langchain bedrock >$(LANGCHAIN_OLDEST)/floors.txt
	$(LANGCHAIN_OLDEST)/bin/python -m pip install --quiet --constraint $(LANGCHAIN_OLDEST)/floors.txt $(LANGCHAIN_NEEDS)
	@touch $@

$(AGNO_OLDEST)/.dev: pyproject.toml .ci/floors.py
	$(call environment,$(AGNO_OLDEST),pip)
	$(AGNO_OLDEST)/bin/python .ci/floors.py agno >$(AGNO_OLDEST)/floors.txt
	$(AGNO_OLDEST)/bin/python -m pip install --quiet --constraint $(AGNO_OLDEST)/floors.txt $(AGNO_NEEDS)
	@touch $@
