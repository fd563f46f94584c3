EXTENSION = pgml_tune
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" pgml_tune.control)

STATE = sql/types.sql $(addprefix sql/tables/, setting.sql model.sql model_version.sql serving.sql serving_history.sql \
	cache_entry.sql call_count.sql collection.sql queue.sql tracked_column.sql job.sql evaluation.sql \
	rollout.sql call_log.sql sql_example.sql engine_choice.sql)
CODE = $(addprefix sql/functions/, internal.sql embedding.sql classification.sql schema.sql text_to_sql.sql registry.sql cache.sql \
	collection_names.sql collection_vectors.sql collection_objects.sql collection.sql queue.sql filling.sql search.sql \
	sql_check.sql ask.sql job.sql job_worker.sql training.sql \
	routes.sql alignment.sql rollout.sql twins.sql shadows.sql preparation.sql call_log.sql monitoring.sql \
	sql_examples.sql serving.sql operations.sql roles.sql) \
	sql/views.sql sql/privileges.sql
SOURCES = sql/guard.sql $(STATE) $(CODE)

SCRIPT = extension/pgml_tune--$(EXTVERSION).sql
DATA = $(sort $(SCRIPT) $(wildcard extension/pgml_tune--*.sql))

PG_CONFIG ?= pg_config
PYTHON ?= $(shell scripts/interpreter.sh "$(PG_CONFIG)")
PYTHON_PREFIX ?= /opt/pgml_tune
PYTHON_SITE ?= $(shell "$(PYTHON)" -c 'import site; print(site.getsitepackages()[0])')
SYSCONFDIR ?= /etc
DIST ?= pgml_tune-$(EXTVERSION).zip
MODEL_ROOT ?= /var/lib/pgml_tune/models
FOLDER = $(PYTHON_PREFIX)/$(EXTVERSION)
package_script = DESTDIR="$(DESTDIR)" FOLDER="$(FOLDER)" PYTHON_SITE="$(PYTHON_SITE)" SYSCONFDIR="$(SYSCONFDIR)" \
	MODEL_ROOT="$(MODEL_ROOT)" scripts/package.sh

# Without a server of your own (PGHOST) the regression tests run on the private one.
REGRESS_NAMES = registry embedding cache collection job text_to_sql operations roles
REGRESS_OPTS = --inputdir=tests --outputdir=.dev/regress \
	$(addprefix --load-extension=, plpython3u vector pgml_tune)
ifdef PGHOST
REGRESS = $(REGRESS_NAMES)
REGRESS_PREP = .dev/regress
else
REGRESS_PREP = private-installcheck
endif

all: $(SCRIPT)

$(SCRIPT): $(SOURCES) Makefile
	cat $(SOURCES) > $@

PGXS := $(shell "$(PG_CONFIG)" --pgxs 2>/dev/null)
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
else
install uninstall:
	@echo "PGXS is missing: install the server's development package, or pass PG_CONFIG" >&2; exit 1
installcheck: private-installcheck
clean:
endif

.PHONY: install-sql install-package uninstall-package install-deps install-train install-openvino dev dev-stop demo test lint unit \
	check-generated private-installcheck integration clients fuzz soak-jobs soak-queue soak-rollout soak-serving bench bench-train bench-sql bench-load bench-gpu dist

ifndef SQL_ONLY
install: install-package
uninstall: uninstall-package
endif
install-sql:
	$(MAKE) install SQL_ONLY=yes
install-package:
	$(package_script) install
uninstall-package:
	$(package_script) uninstall
install-deps:
	WHEELS="$(WHEELS)" scripts/environment.sh "$(DESTDIR)$(FOLDER)/venv" "$(PYTHON)" cli
install-train:
	WHEELS="$(WHEELS)" scripts/environment.sh "$(DESTDIR)$(FOLDER)/venv" "$(PYTHON)" cli train
install-openvino:
	WHEELS="$(WHEELS)" scripts/environment.sh "$(DESTDIR)$(FOLDER)/venv" "$(PYTHON)" cli openvino

dev dev-stop demo:
	@scripts/$@.sh

test:
	@scripts/test.sh lint unit check-generated installcheck integration clients
lint unit integration clients fuzz soak-jobs soak-queue soak-rollout soak-serving bench bench-train bench-sql bench-load bench-gpu:
	@scripts/test.sh $@
private-installcheck:
	@scripts/test.sh installcheck
check-generated:
	cat $(SOURCES) | cmp - $(SCRIPT)
	test ! -s extension/RELEASED.sha256 || (cd extension && sha256sum --quiet --check RELEASED.sha256)
.dev/regress:
	mkdir -p $@

dist:
	git archive --format=zip --prefix=pgml_tune-$(EXTVERSION)/ --output=$(DIST) HEAD
