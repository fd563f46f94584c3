"""What a query may consist of, and what may be evaluated when it is read."""

from __future__ import annotations

import re

from pgml_tune.db import Session
from pgml_tune.service.query_tree import TreeError
from pgml_tune.service.sql_amplifiers import find_amplifier
from pgml_tune.service.sql_functions import Functions, is_allowed, named_functions
from pgml_tune.service.sql_parts import Parts, parts_of, parts_of_check
from pgml_tune.settings import Limits
from pgml_tune.store import sql_check as store
from pgml_tune.store.sql_check import Relation

_READABLE_KINDS = ("r", "p", "v", "m", "f")
# A value of these types is the number of something, and shows its name.
_NAMING_TYPES = frozenset((24, 2202, 2203, 2204, 2205, 2206, 4089, 4096, 4191))
_FIRST_OF_USERS = 16384
_MOST_RELATIONS = 500
_LONGEST_INSIDE = 4_000_000  # characters of trees of views and policies
_LONGEST_NAME = 60  # bytes; the server cuts longer ones than 63 between two characters
_ESCAPED = re.compile(r"u&[\"']", re.IGNORECASE)
_known = Functions()  # of the server itself, the same for all


class Refusal(Exception):
    """A query that is not allowed; no reason where it names what does not exist for its caller."""

    def __init__(self, reason: str | None, may_tell: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_tell = may_tell  # whether something exists, by not being HIDDEN


class Rules:
    """The rules for one caller and one text."""

    def __init__(self, db: Session, limits: Limits) -> None:
        self._db = db
        self._foreign_is_allowed = limits.sql_foreign_tables == "on"
        self._extra = named_functions(limits.sql_functions)
        self._risky_types: frozenset[int] = frozenset()

    def names_code(self, text: str) -> bool:
        """Whether analysing a text could run code of users: it has the name of a type that does, or of its users."""
        risky = self._find_risky(store.type_code(self._db))
        if not risky:
            return False
        users = store.type_users(self._db, risky)
        self._risky_types = users.type_ids
        if _ESCAPED.search(text):
            return True
        plain = text.replace('""', '"').casefold()
        schemas = {schema for schema, _ in users.names}
        reached = {schema for schema in schemas if schema in users.path or _stands_in(schema, plain)}
        return any(schema in reached and _stands_in(name, plain) for schema, name in users.names)

    def check(self, parts: Parts) -> dict[int, Relation]:
        """The relations that a query reads, if all it consists of is allowed; else a Refusal."""
        relations = self._read_relations(parts)
        if any(not relation.is_readable(parts.reads[number]) for number, relation in relations.items()):
            raise Refusal(None)
        users_types = [number for number in parts.type_ids if number >= _FIRST_OF_USERS]
        if users_types and store.hides_type(self._db, users_types):
            raise Refusal(None)
        if any(relation.is_own for relation in relations.values()):
            raise Refusal("it reads tables of the server or of this extension")
        if not _NAMING_TYPES.isdisjoint(parts.type_ids):
            raise Refusal("it asks for names of the server's objects", may_tell=True)
        self._check_parts(parts)
        self._check_inside(relations)
        return relations

    def _check_inside(self, relations: dict[int, Relation]) -> None:
        """Refuse what would be evaluated with these relations: views through all of theirs, policies, indexes."""
        seen, waiting, length = set(relations), list(relations.values()), 0
        while waiting:
            relation = waiting.pop()
            self._check_planned(relation)
            length += sum(map(len, (relation.tree or "", *(relation.policies or ()))))
            if length > _LONGEST_INSIDE:
                raise Refusal("its views and policies are too long")
            inside = [] if relation.tree is None else [parts_of(relation.tree, relation.relation_id)]
            inside += [parts_of(policy) for policy in relation.policies or ()]
            for parts in inside:
                self._check_parts(parts, is_inside=True)
                inner = self._read_relations(parts, seen)
                seen.update(inner)
                waiting.extend(inner.values())
            if len(seen) > _MOST_RELATIONS:
                raise Refusal("its views read too many tables")

    def _read_relations(self, parts: Parts, seen: set[int] | frozenset[int] = frozenset()) -> dict[int, Relation]:
        new = sorted(parts.reads.keys() - seen)
        if new:
            store.hold_relations(self._db, new)
        relations = {one.relation_id: one for one in store.relations(self._db, new)} if new else {}
        if len(relations) < len(new):
            raise Refusal(None)
        if any(relation.kind not in _READABLE_KINDS for relation in relations.values()):
            raise Refusal("it reads something that is no table")
        if not self._foreign_is_allowed and any(relation.has_foreign for relation in relations.values()):
            raise Refusal("it reads a foreign table, which a superuser has to allow: see setting sql_foreign_tables")
        return relations

    def _check_parts(self, parts: Parts, is_inside: bool = False) -> None:
        """Refuse kinds of nodes, types and functions, of the query itself or inside a relation that it reads."""
        if parts.fault:
            raise Refusal("it reads a view or policy that does more than compute" if is_inside else parts.fault)
        if not self._risky_types.isdisjoint(parts.type_ids):
            raise Refusal("it has a value of a type whose checks call functions")
        functions, operators = _known.read(self._db, parts.function_ids, parts.operator_ids)
        if len(functions) < len(parts.function_ids) or len(operators) < len(parts.operator_ids):
            raise TreeError
        for function in (*functions.values(), *operators.values()):
            if not is_allowed(function, self._extra, is_inside):
                if is_inside:
                    raise Refusal("it reads a view or policy with a function that is not allowed")
                raise Refusal(f"function {function.name}({', '.join(function.argument_types)}) is not allowed")
        amplifier = find_amplifier(parts.tree, functions, operators)
        if amplifier is not None:
            raise Refusal(
                "it reads a view or policy whose work has no bound" if is_inside
                else f"function {amplifier}() is not allowed with arguments of any length"
            )  # fmt: skip

    def _check_planned(self, relation: Relation) -> None:
        if relation.function_ids and not self._are_allowed(set(relation.function_ids)):
            raise Refusal("it reads a table whose indexes call a function that is not allowed")

    def _are_allowed(self, function_ids: set[int]) -> bool:
        functions, _ = _known.read(self._db, function_ids, set())
        return all(is_allowed(function, self._extra, True) for function in functions.values())

    def _find_risky(self, codes: list[store.TypeCode]) -> list[int]:
        """The types of which something runs that is not allowed."""
        risky: list[int] = []
        called: list[tuple[int, Parts]] = []  # a domain may have several checks
        for code in codes:
            parts = Parts(function_ids=set(code.function_ids))
            try:
                parts = parts if code.tree is None else parts_of_check(code.tree)
            except TreeError:
                parts.fault = "unknown"
            if parts.fault:
                risky.append(code.type_id)
            else:
                called.append((code.type_id, parts))
        functions, operators = _known.read(
            self._db,
            {number for _, parts in called for number in parts.function_ids},
            {number for _, parts in called for number in parts.operator_ids},
        )
        for type_id, parts in called:
            found = [functions.get(number) for number in parts.function_ids]
            found += [operators.get(number) for number in parts.operator_ids]
            if not all(function is not None and is_allowed(function, self._extra, True) for function in found):
                risky.append(type_id)
            elif find_amplifier(parts.tree, functions, operators) is not None:
                risky.append(type_id)
        return risky


def _stands_in(name: str, text: str) -> bool:
    """Whether a name stands in a text: in quotes or a comment, too, and behind a number, which ends where it begins."""
    folded = name.casefold()
    if folded not in text:
        return False
    word = re.escape(folded)
    if len(name.encode()) >= _LONGEST_NAME or not re.fullmatch(r"[\w$]+", name):
        return re.search(word, text) is not None  # a longer one would be cut to it, and signs need no blanks
    return re.search(rf"(?<![^\W\d]){word}(?![\w$])", text) is not None
