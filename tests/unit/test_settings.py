import os
import re
from pathlib import Path

import pytest

from pgml_tune.errors import InvalidArgument, NotReady, ObjectNotFound
from pgml_tune.settings import DEFAULT_PATHS, SETTINGS, Limits, parse_cache_preference, read_paths, setting_named


def test_defaults_are_valid_and_parse():
    for setting in SETTINGS.values():
        assert setting.check(setting.default) == setting.default
    limits = Limits.from_rows({})
    assert limits.threads == 1
    assert limits.long_input == "truncate"


@pytest.mark.parametrize("value", ["", "0", "-1", "257", "1.0", "1e3", "NaN", " 1", "0x1", "9" * 40, "١", "on"])
def test_a_number_out_of_range_is_refused(value):
    with pytest.raises(InvalidArgument):
        setting_named("threads").check(value)


def test_a_number_is_stored_in_its_plain_form():
    assert setting_named("threads").check("007") == "7"


@pytest.mark.parametrize("value", ["", "ON", "true", "role;shared"])
def test_a_word_that_is_no_choice_is_refused(value):
    with pytest.raises(InvalidArgument):
        setting_named("cache_scope").check(value)


def test_an_unknown_setting_is_reported_with_the_known_ones():
    with pytest.raises(ObjectNotFound) as caught:
        setting_named("model_root")
    assert "threads" in caught.value.detail
    assert caught.value.hint == ""


def test_a_preference_of_the_session_is_no_setting_and_the_hint_says_how_it_is_set():
    with pytest.raises(ObjectNotFound) as caught:
        setting_named("runtime")
    assert caught.value.hint.startswith("SET pgml_tune.runtime")


@pytest.mark.parametrize("text", [None, "", "on"])
def test_an_unset_preference_means_on(text):
    assert parse_cache_preference(text) == "on"


def test_an_unknown_preference_is_refused():
    with pytest.raises(InvalidArgument):
        parse_cache_preference("of")


def test_paths_come_from_the_file_that_the_environment_names(tmp_path):
    file = tmp_path / "pgml_tune.toml"
    file.write_text('model_root = "/m"\nspool_dir = "/s"\nimport_dirs = ["/i"]\n')
    paths = read_paths({"PGML_TUNE_CONFIG": str(file)})
    assert (str(paths.model_root), str(paths.spool_dir), [str(path) for path in paths.import_dirs]) == (
        "/m", "/s", ["/i"],
    )  # fmt: skip


def test_a_missing_key_has_its_default(tmp_path):
    file = tmp_path / "pgml_tune.toml"
    file.write_text("")
    assert read_paths({"PGML_TUNE_CONFIG": str(file)}).model_root == DEFAULT_PATHS.model_root


@pytest.mark.parametrize("content", ["model_rot = '/x'", "model_root = ", "\x00"])
def test_a_file_with_unknown_keys_or_broken_syntax_is_refused(tmp_path, content):
    file = tmp_path / "pgml_tune.toml"
    file.write_text(content)
    with pytest.raises(NotReady):
        read_paths({"PGML_TUNE_CONFIG": str(file)})


@pytest.mark.parametrize(
    "content",
    [
        *(f"{key} = {value}" for key in ("model_root", "spool_dir") for value in ("1", "[]", '""', "'m'", "'./m'")),
        r'model_root = "/m\u0000"', "import_dirs = '/i'", "import_dirs = 1", "import_dirs = ['i']", "import_dirs = [1]",
        "import_dirs = [['/i']]", "import_dirs = {a = '/i'}", "import_dirs = " + "[" * 100_000,
    ],
    ids=lambda content: content[:40],
)  # fmt: skip
def test_a_path_that_is_not_absolute_is_refused(tmp_path, content):
    file = tmp_path / "pgml_tune.toml"
    file.write_text(content)
    with pytest.raises(NotReady):
        read_paths({"PGML_TUNE_CONFIG": str(file)})


@pytest.mark.parametrize("key", ["listen", "connect"])
@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("127.0.0.1:5488", ("127.0.0.1", 5488)), ("127.255.0.9:1", ("127.255.0.9", 1)), ("[::1]:65535", ("::1", 65535)),
    ],
)  # fmt: skip
def test_a_port_is_one_of_this_machine(tmp_path, key, value, read):
    file = tmp_path / "pgml_tune.toml"
    file.write_text(f'{key} = "{value}"')
    found = getattr(read_paths({"PGML_TUNE_CONFIG": str(file)}), key)
    assert (found, str(found)) == (read, value)


@pytest.mark.parametrize("key", ["listen", "connect"])
@pytest.mark.parametrize(
    "value",
    [
        "'0.0.0.0:5488'", "'192.168.0.1:5488'", "'128.0.0.1:5488'", "'[::]:5488'", "'[fe80::1]:5488'", "'::1:5488'",
        "'[::ffff:127.0.0.1]:5488'", "'localhost:5488'", "'127.0.0.1'", "'127.0.0.1:'", "'127.0.0.1:0'",
        "'127.0.0.1:65536'", "'127.0.0.256:1'", "'127.0.0.01:1'", "'127.1:1'", "'127.0.0.1:1 '", "'127.0.0.1:0x1'",
        "'127.0.0.1:١'", "'5488'", "5488", "''", "[]", "true",
    ],
)  # fmt: skip
def test_a_port_that_another_machine_may_reach_or_that_is_none_is_refused(tmp_path, key, value):
    file = tmp_path / "pgml_tune.toml"
    file.write_text(f"{key} = {value}")
    with pytest.raises(NotReady):
        read_paths({"PGML_TUNE_CONFIG": str(file)})


def test_a_file_that_is_not_unicode_is_refused(tmp_path):
    file = tmp_path / "pgml_tune.toml"
    file.write_bytes(b'model_root = "/\xff"')
    with pytest.raises(NotReady):
        read_paths({"PGML_TUNE_CONFIG": str(file)})


def test_the_longest_input_has_a_bound():
    assert setting_named("max_input_bytes").check("4194304") == "4194304"
    with pytest.raises(InvalidArgument):
        setting_named("max_input_bytes").check("4194305")


def test_a_file_that_others_can_change_is_refused(tmp_path):
    file = tmp_path / "pgml_tune.toml"
    file.write_text("")
    os.chmod(file, 0o666)
    with pytest.raises(NotReady):
        read_paths({"PGML_TUNE_CONFIG": str(file)})


def test_a_named_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(NotReady):
        read_paths({"PGML_TUNE_CONFIG": str(tmp_path / "none.toml")})


def test_a_text_of_another_form_is_refused():
    setting = setting_named("sql_functions")
    for value in ("", "public.f(integer)", "public.f(text, double precision[]), s.g()"):
        assert setting.check(value) == value
    for value in ("f", "public.f", "public.f(", "public.f();", "public.f(integer) public.g()", "x" * 20_000):
        with pytest.raises(InvalidArgument):
            setting.check(value)


def test_what_only_superusers_may_set_is_refused_to_administrators_in_sql_too():
    statements = (Path(__file__).parents[2] / "sql/functions/internal.sql").read_text()
    refused = re.findall(r"_write_setting\.name = ANY \('\{(.*)\}'\)", statements)[0].split(",")
    assert {setting.name for setting in SETTINGS.values() if setting.is_for_superusers} <= set(refused)
