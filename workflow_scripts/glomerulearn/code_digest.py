"""Which code does a script run? A digest over the script and every library module that it can reach by imports.

A job whose digest is unchanged need not run again, whatever the files' dates say: `git checkout` retrains nothing.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path


def code_digest(script: Path, library: Path) -> str:
    """sha256 over the syntax of `script` and the modules of the package folder `library` it reaches.

    Comments and layout do not count, what is executed does.
    """
    digest = hashlib.sha256()
    for path in sorted(reachable(Path(script), Path(library)), key=str):
        digest.update(path.name.encode() + _meaning(path).encode())
    return digest.hexdigest()[:16]


def reachable(script: Path, library: Path) -> set[Path]:
    """`script` and all modules of `library` it imports, directly or not."""
    found, waiting = set(), [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting += _imported(path, library)
    return found


@cache
def _imported(path: Path, library: Path) -> tuple[Path, ...]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module` and `from package.module import name` look alike: try both
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return tuple(file for name in names for file in _files(name, library))


def _files(name: str, library: Path) -> list[Path]:
    package, *parts = name.split(".")
    if package != library.name:
        return []
    folders = [library.joinpath(*parts[:depth], "__init__.py") for depth in range(len(parts) + 1)]
    return [file for file in [*folders, library.joinpath(*parts).with_suffix(".py")] if file.is_file()]


@cache
def _meaning(path: Path) -> str:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            del body[0]  # a docstring
    return ast.unparse(tree)  # ast.dump differs between versions of Python
