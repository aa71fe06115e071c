"""What docstrings name exists: a parameter, a class, a function that was renamed leaves no name behind."""

import ast
import builtins
import doctest
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [path for folder in ("platform/lexray", "jobs", "serve") for path in (ROOT / folder).rglob("*.py")]
SECTIONS = {"Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "Examples", "References"}
#: Classes of other packages, tables and programs that docstrings speak of.
OF_OTHERS = {
    "AutoDecoder", "astropy", "Iterable", "Mapping", "Path", "ProcessGroup", "Sequence", "Table", "Tensor",
    "basic", "e_k", "encode_document", "encode_query", "glvary", "h_k", "has_ref", "ident", "ref", "roi", "with",
}  # fmt: skip

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def documented() -> Iterator[tuple[str, Documented, str]]:
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}: {node.name}", node, text


def entries(text: str, section: str) -> Iterator[tuple[list[str], str]]:
    """Names and type of each entry of a numpydoc section."""
    lines = text.splitlines()
    if section not in lines:
        return
    for line in lines[lines.index(section) + 2 :]:
        if line in SECTIONS or line.startswith(">>>"):
            return
        if line and not line.startswith(" "):
            names, _, kind = line.partition(" : ")
            yield [name.strip(" *") for name in names.split(",")], kind


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    of = node.args
    every = [*of.posonlyargs, *of.args, *of.kwonlyargs, *([of.vararg] if of.vararg else [])]
    return {argument.arg for argument in [*every, *([of.kwarg] if of.kwarg else [])]}


def known_names() -> set[str]:
    """Everything that the code defines, imports or speaks of, and the modules themselves."""
    names = OF_OTHERS | set(dir(builtins)) | {part for path in MODULES for part in (*path.parts, path.stem)}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names.add(name)
                case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                    names.add(name)
                case ast.alias(name=name, asname=asname):
                    names.add((asname or name).split(".")[-1])
                case ast.Constant(value=str(text)) if re.fullmatch(r"[\w.]{1,40}", text):
                    names.update(text.split("."))
    return names


def test_documented_parameters_are_those_of_the_signature() -> None:
    wrong = []
    for place, node, text in documented():
        if isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
            fields = {f.target.id for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)}
            known = fields.union(*map(parameters, methods))
        else:
            known = parameters(node)
        wrong += [f"{place}: {name}" for names, _ in entries(text, "Parameters") for name in names if name not in known]
    assert not wrong


def test_documented_types_and_references_exist() -> None:
    known, wrong = known_names(), []
    for place, _, text in documented():
        kinds = [kind for section in ("Parameters", "Attributes") for _, kind in entries(text, section)]
        kinds += [names[0] for section in ("Returns", "Yields", "Raises") for names, _ in entries(text, section)]
        classes = {name for kind in kinds for name in re.findall(r"(?<![\w.'\[])[A-Z][a-z]\w+", kind)}
        references = {part for name in re.findall(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)", text) for part in name.split(".")}
        wrong += [f"{place}: {name}" for name in sorted((classes | references) - known)]
    assert not wrong


WITH_EXAMPLES = [path for path in MODULES if re.search(r">>> (?!.*\+SKIP)", path.read_text())]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_hold(path: Path) -> None:
    module = path.relative_to(ROOT / "platform").with_suffix("").parts
    failed, tried = doctest.testmod(importlib.import_module(".".join(module)), verbose=False)
    assert tried
    assert not failed
