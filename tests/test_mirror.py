"""The tests mirror the packages: a reader who knows a module knows the file that tests it."""

from __future__ import annotations

from tests.support.stores import REPOSITORY_ROOT

# tests/X/test_Y.py tests X/Y.py or X/Y/; test_Y_word.py holds one subject of the same module.
EXCEPTIONS = {
    "builders/onboard/test_examples.py": "runs the examples of the public API of a package",
    "builders/test_public.py": "tests the names that the package exports",
    "store/test_examples.py": "runs the examples of the public API of a package",
    "tools/test_mistakes.py": "tests what all commands answer to mistakes",
    "store/test_machine.py": "compares the whole store with a model",
}


def test_each_test_file_has_its_module() -> None:
    strangers = set()
    for package in ("store", "builders", "tools"):
        for path in (REPOSITORY_ROOT / "tests" / package).rglob("test_*.py"):
            name = path.relative_to(REPOSITORY_ROOT / "tests")
            words = path.stem.split("_")[1:]
            modules = [REPOSITORY_ROOT / name.parent / "_".join(words[:count]) for count in range(1, len(words) + 1)]
            if not any(module.with_suffix(".py").is_file() or module.is_dir() for module in modules):
                strangers.add(name.as_posix())
    assert strangers == set(EXCEPTIONS)
