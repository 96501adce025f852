import unicodedata

import pytest

from fusion.commands.arguments import Parser
from fusion.config import ConfigError, load_config
from fusion.typed import as_on_disk, check_numbers, expand, expand_all, read_override, read_value

AS_TYPED = [
    "runs/a#b", "runs/a #b", "a: b", "films, 2024/x.csv", "50%", "%x", "a'b", "'abc", '"abc', "@x",
    "`x", "!x", "&x", "*x", "- a", "? a", "| a", "> a", "a = b", "1:30", "2024-01-01", "---", "-",
    "a]b", "x{1}", "tab\there", " a ", "C:\\films\\x", "ß", "C#m: a, b %5 ~x",
]  # fmt: skip


@pytest.mark.parametrize("text", AS_TYPED)
def test_what_is_no_scalar_of_yaml_arrives_as_typed(text):
    assert read_override(f"data.train={text}") == ("data.train", text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-3", -3), ("1e-3", 1e-3), ("0.5", 0.5), (".5", 0.5), ("true", True),
        ("null", None), ("", None), ("[1, a b]", [1, "a b"]),
        ("{v: 2, t: [x]}", {"v": 2, "t": ["x"]}),
        ('"a #b"', "a #b"), ("'it''s'", "it's"), ('"7"', "7"), ('"[x"', "[x"),
    ],
)  # fmt: skip
def test_scalars_lists_and_quotes_are_yaml(text, value):
    found = read_value("k", text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["[2024] films/x", "{x", "'a' b'", "[a, b"])
def test_an_open_bracket_or_quote_is_refused_with_the_way_to_write_it(text):
    with pytest.raises(ValueError, match="neither a list nor a text in quotes") as caught:
        read_value("data.train", text)
    typed = str(caught.value).partition(", write ")[2].strip('"')  # what the message advises
    assert read_override(typed) == ("data.train", text)


def test_a_tilde_alone_and_no_equals_are_refused():
    with pytest.raises(ValueError, match="write output=null or output=~/"):
        read_value("output", "~")
    with pytest.raises(ValueError, match="override 'trainer.epochs' must be key=value"):
        read_override("trainer.epochs")


@pytest.mark.parametrize("text", ["2024_01", "0x10", "yes", "1e3", "12"])
def test_a_text_of_the_top_level_may_look_like_a_number(text):
    assert load_config("eao", [f"output={text}"])["output"] == text


def test_a_number_where_a_text_is_wanted_says_how_to_write_it():
    from fusion.config import check

    def build(train: str) -> None:
        """Take a text."""

    with pytest.raises(ConfigError, match="data.train must be a text; got 7; if it is a text, wri"):
        check("data", {"train": 7}, build)


def test_tilde_and_variables_expand_in_configs_overrides_and_arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "p")
    (tmp_path / "c.yaml").write_text("base: eao\noutput: ~/runs/x\ndata: {cache: $PLACE/y}\n")
    config = load_config(tmp_path / "c.yaml", ["init=~/i", "data_root=$PLACE/d"])
    assert config["output"] == f"{tmp_path}/runs/x"
    assert (config["init"], config["data"]["cache"]) == (f"{tmp_path}/i", "p/y")
    parser = Parser()
    parser.add_argument("--out")
    parser.add_argument("words", nargs="*")
    given = parser.parse_args(["--out=~/x", "~/y", "$PLACE"])
    assert (given.out, given.words) == (f"{tmp_path}/x", ["~/y", "$PLACE"])


def test_a_variable_in_braces_is_a_key_and_the_error_says_so(monkeypatch):
    monkeypatch.setenv("PLACE", "p")
    with pytest.raises(ConfigError, match=r"key 'PLACE' not found; .* write \$PLACE"):
        load_config("eao", ["output=${PLACE}/x"])


def test_what_a_run_wrote_is_not_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "s")
    (tmp_path / "config.yaml").write_text("base: eao\noutput: $SECRET/x\n")
    assert load_config(tmp_path / "config.yaml", own=False)["output"] == "$SECRET/x"


def test_a_variable_that_is_not_set_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ConfigError, match=r"output: \$NOWHERE/x: \$NOWHERE is not set"):
        load_config("eao", ["output=$NOWHERE/x"])
    parser = Parser()
    parser.add_argument("--out")
    with pytest.raises(SystemExit):
        parser.parse_args(["--out", "$NOWHERE"])
    assert "$NOWHERE is not set; set it, or write" in capsys.readouterr().err
    assert expand("costs $5 or a$b") == "costs $5 or a$b"  # no folder of such a name


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_finds_its_file_in_either_form_of_its_accents(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    name = "café á.csv"
    (tmp_path / unicodedata.normalize(form, name)).touch()
    asked = str(tmp_path / unicodedata.normalize(other, name))
    assert as_on_disk(asked) == str(tmp_path / unicodedata.normalize(form, name))
    assert expand_all({"a": [asked]})["a"] == [str(tmp_path / unicodedata.normalize(form, name))]
    assert as_on_disk(asked + "x") == asked + "x"


@pytest.mark.parametrize("override", ["seed", "trainer.epochs", "model.token_dim"])
def test_integers_out_of_range_are_one_line(override):
    with pytest.raises(ConfigError, match=f"{override} is too large a number"):
        load_config("eao", [f"{override}={2**63}"])
    check_numbers({"a": {"b": [2**63 - 1]}})
    with pytest.raises(ConfigError, match="max_clips must be at least 1; got 0"):
        load_config("eao", ["max_clips=0"])
