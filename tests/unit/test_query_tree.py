import pytest

from pgml_tune.service.query_tree import Node, TreeError, name, nodes, parse


def test_a_tree_is_nodes_lists_and_words():
    (tree,) = parse("{QUERY :commandType 1 :args ({VAR :varno 1} {VAR :varno 2}) :set (b 8 9) :none <>}")
    assert tree.tag == "QUERY"
    assert [node["varno"] for node in tree.items("args")] == ["1", "2"]
    assert tree.numbers("set") == [8, 9]
    assert tree.numbers("commandType") == [1]
    assert tree.is_empty("none")
    assert tree.numbers("missing") == []
    assert [node.tag for node in nodes(tree)].count("VAR") == 2


def test_a_constant_is_its_length_and_a_short_one_its_bytes():
    (node,) = parse("{CONST :constlen 4 :constvalue 4 [ 2 0 0 -1 0 0 0 0 ] :location 3}")
    assert node.numbers("constvalue") == [4]
    assert node["constbytes"] == [2, 0, 0, 255, 0, 0, 0, 0]
    assert node["location"] == "3"
    (node,) = parse(f"{{CONST :constvalue 99 [ {'1 ' * 99}] :location 3}}")
    assert (node.numbers("constvalue"), node["constbytes"], node["location"]) == ([99], None, "3")


def test_a_name_that_looks_like_a_field_is_the_value_of_the_one_before_it():
    (node,) = parse(r"{TARGETENTRY :resname :funcid :resno 1 :alias \{CONST\ \( :last [}")
    assert node["resname"] == ":funcid"
    assert node["funcid"] is None
    assert name(node["alias"]) == "{CONST ("
    assert node["last"] == "["


def test_other_blanks_than_the_servers_are_parts_of_words():
    (node,) = parse("{TARGETENTRY :resname 客户　名\x0b :resno 1}")
    assert node["resname"] == "客户　名\x0b"


@pytest.mark.parametrize("word, plain", [("a", "a"), ('""', ""), ("<>", ""), (r"\<>", "<>"), (r"a\ b\\c", r"a b\c")])
def test_a_name_is_read_without_its_signs(word, plain):
    assert name(word) == plain


@pytest.mark.parametrize(
    "text",
    ["{", "}", "(", ")", "{A", "{A :b}", "{A b}", "{A :b 1 2}", "{A :b (1}", "{A :b 1)", "{A :b 1 :b 2}", "({A :b 1)}",
     "{A :constvalue 4 [ 1 2}", "{CONST :constvalue 4 5 ]}", "{A :b {C :d 1} :b 1}"],
)  # fmt: skip
def test_a_text_of_another_form_is_refused(text):
    with pytest.raises(TreeError):
        parse(text)


def test_a_deep_tree_needs_no_stack():
    depth = 50_000
    (tree,) = parse("{A :b " * depth + "1" + "}" * depth)
    assert isinstance(tree, Node)
    assert sum(1 for _ in nodes(tree)) == depth


def test_a_field_that_holds_something_else_is_refused():
    (node,) = parse("{A :b x :c (a b) :d 1}")
    for read in (lambda: node.numbers("b"), lambda: node.numbers("c"), lambda: node.items("d")):
        with pytest.raises(TreeError):
            read()
