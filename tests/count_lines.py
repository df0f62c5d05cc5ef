#!/usr/bin/env python3
"""Counts the lines of Rust code that are neither blank nor comment, by package, and the lines of tests apart from them.

Tests are items under `#[cfg(test)]`, files named `tests.rs` or `test_*.rs`, and everything in a `tests` folder.
Exits with 1 when a count is above its budget.
"""

import pathlib
import subprocess
import sys

BUDGETS = {"exporter": 9200, "exporter-toolkit": 1500, "lightfi-simulator": 2300, "tests": 15000}


def is_code(line):
    text = line.strip()
    return bool(text) and not text.startswith("//")


def count(path):
    """Returns the lines of code and the lines of tests in one file, which rustfmt has formatted."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if is_code(line)]
    if path.name == "tests.rs" or path.name.startswith("test_") or "tests" in path.parts[:-1]:
        return 0, len(lines)
    tests = 0
    at = 0
    while at < len(lines):
        if lines[at].strip().startswith("#[cfg(test)]"):
            end = end_of_item(lines, at)
            tests += end - at
            at = end
        else:
            at += 1
    return len(lines) - tests, tests


def end_of_item(lines, at):
    """Returns the index after the item whose first attribute is at `at`: its closing brace has the same indentation."""
    indentation = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    first = at
    while lines[first].startswith(indentation + "#["):
        first += 1
    if lines[first].rstrip().endswith((";", "{}")):
        return first + 1
    closing = {indentation + end for end in ("}", "},", "};")}
    for index in range(first, len(lines)):
        if lines[index].rstrip() in closing:
            return index + 1
    return len(lines)


def package(path):
    parts = path.parts
    if parts[0] == "crates":
        return parts[1]
    return "exporter" if parts[0] in ("src", "tests", "build.rs") else None


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    listed = subprocess.check_output(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "*.rs"], text=True)
    code, folders, tests = {}, {}, 0
    for name in listed.split():
        path = pathlib.Path(name)
        owner = package(path)
        if owner is None or "examples" in path.parts or not (root / path).exists():
            continue
        lines, of_tests = count(root / path) if path.parts[0] != "tests" else (0, count(root / path)[1])
        code[owner] = code.get(owner, 0) + lines
        tests += of_tests
        folder = str(pathlib.Path(*path.parts[:4])) if path.parts[0] == "crates" else str(pathlib.Path(*path.parts[:2]))
        have = folders.get(folder, (0, 0))
        folders[folder] = (have[0] + lines, have[1] + of_tests)
    print(f"{'folder or file':45} {'code':>6} {'tests':>6}")
    for folder in sorted(folders):
        print(f"{folder:45} {folders[folder][0]:6} {folders[folder][1]:6}")
    print()
    over = False
    for what, lines in [*sorted(code.items()), ("tests", tests)]:
        budget = BUDGETS[what]
        over = over or lines > budget
        print(f"{what:20} {lines:6} of {budget:6}{'  OVER' if lines > budget else ''}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
