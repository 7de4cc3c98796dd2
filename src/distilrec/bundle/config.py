"""What lies in a bundle folder, and how it is sealed: config.json, vocabularies, digests.json.

    model.onnx      the graph; every weight is stored once, the item table included
    items.json      external item keys; the place in the list is the internal id
    titles.json     titles for display, one or null per item (only if the data has titles)
    users.json      external user keys (only for models that know users)
    values-*.json   the long vocabularies of a bundle that answers rows; such a bundle has none of the three above
    config.json     what goes in, what comes out; server, page and `inspect` read only this
    card.md, ...    whatever `seal` was given
    digests.json    SHA-256 of each of the files above

JSON is the vocabulary format because a bundle must open without pyarrow, and in a browser; 100,000 keys load in 10 ms.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrec.errors import BundleError, problem
from distilrec.files import atomic_folder, digest_file, digest_json, read_json, recover

__all__ = [
    "GRAPH", "ROW_TASKS", "SCHEMA", "bundle_digest", "is_whole", "library_version", "read_config", "seal", "verify",
    "write_bundle",
]

SCHEMA = 1
ROW_TASKS = ("predict", "tag")  # rows of features in, a number per output out
GRAPH = "model.onnx"
_DIGESTS = "digests.json"
_AGAIN = "export it again with `distilrec export`, or copy the whole folder again from where it came"
_REQUIRED: dict[str, type] = {
    "schema": int, "task": str, "inputs": list, "outputs": list, "graphs": dict, "parameters": int,
}
_REQUIRED_OF_RANK: dict[str, type] = {"seen": str, "max_length": int, "items": int}
_INPUT: dict[str, type] = {"name": str, "kind": str, "columns": list, "required": bool}
_OUTPUT: dict[str, type] = {"name": str, "head": str, "kind": str, "space": str}


def library_version() -> str:
    """The installed version of distilrec, or "unknown" when it runs from a bare source folder."""
    try:
        return importlib.metadata.version("distilrec")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def write_bundle(
    path: str | Path, config: Mapping[str, Any], graph: bytes, *, card: str | None,
    vocabularies: Mapping[str, Sequence[str | None] | None],
) -> Path:
    """Write the whole folder under a temporary name and put it in place; returns `path`.

    vocabularies: file name -> the list that it holds, or None for a file that this bundle does not have.
    """
    path = Path(path)
    with atomic_folder(path) as folder:
        (folder / GRAPH).write_bytes(graph)
        for name, vocabulary in vocabularies.items():
            if vocabulary is not None:
                _write(folder / name, json.dumps(list(vocabulary), ensure_ascii=False, separators=(",", ":")))
        _write(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        if card is not None:
            _write(folder / "card.md", card)
        _write_digests(folder)
    return path


def seal(path: str | Path, files: Mapping[str, str]) -> Path:
    """Add or replace text files (a card, the metrics) in a bundle and renew its digests, all or nothing.

    files: name -> content. The graph, the vocabularies and config.json cannot be replaced: BundleError. The bundle
    is verified before, so damage cannot be sealed in.
    """
    path = Path(path)
    digests = verify(path)
    fixed = {GRAPH, "items.json", "titles.json", "users.json", "config.json", _DIGESTS, *_vocabularies(path)}
    for name in files:
        if name in fixed or not _is_plain(name):
            raise BundleError(problem(f"cannot seal {name!r} into a bundle", "a new file name such as 'card.md'"))
    with atomic_folder(path) as folder:
        for name in digests:
            shutil.copyfile(path / name, folder / name)
        for name, text in files.items():
            _write(folder / name, text)
        _write_digests(folder)
    return path


def verify(path: str | Path) -> dict[str, str]:
    """{file: SHA-256} of a bundle whose every file is present and unchanged; otherwise BundleError names the file."""
    path = Path(path)
    recover(path)
    digests = _read_digests(path)
    for name, expected in digests.items():
        if not (path / name).is_file():
            raise BundleError(problem(f"{path / name} is missing", f"the files named in {path / _DIGESTS}", _AGAIN))
        seen = digest_file(path / name)
        if seen != expected:
            raise BundleError(problem(
                f"{path / name} has changed since the export (SHA-256 {seen[:12]}...)", f"{expected[:12]}...", _AGAIN,
            ))
    absent = sorted(_vocabularies(path) - set(digests))
    if absent:
        raise BundleError(problem(f"{path / _DIGESTS} does not name {', '.join(absent)}",
                                  "every vocabulary that config.json names", _AGAIN))
    return digests


def is_whole(path: str | Path) -> bool:
    """Whether there is a bundle whose every file is present and unchanged."""
    try:
        return bool(verify(path))
    except BundleError:
        return False


def bundle_digest(path: str | Path) -> str:
    """One SHA-256 that stands for the whole bundle: that of its table of digests."""
    return digest_json(_read_digests(Path(path)))


def read_config(path: str | Path) -> dict[str, Any]:
    """config.json, with the fields that every reader relies on checked.

    Raises BundleError if it is absent, is no JSON, is of a newer schema, or lacks a field.
    """
    file = Path(path) / "config.json"
    try:
        config = read_json(file)
    except FileNotFoundError:
        raise BundleError(problem(f"{file} is missing", "a folder made by `distilrec export`", _AGAIN)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(problem(f"{file} is not JSON: {error}", "an untouched file", _AGAIN)) from None
    schema = config.get("schema") if isinstance(config, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleError(problem(
            f"{file} has schema {schema}, made by distilrec {config.get('distilrec', '(unknown)')}",
            f"schema {SCHEMA} or older, which is what distilrec {library_version()} reads",
            "pip install --upgrade distilrec",
        ))
    wanted = _REQUIRED if _task(config) in ROW_TASKS else {**_REQUIRED, **_REQUIRED_OF_RANK}
    bad = list(wanted) if schema is None else _wrong(config, wanted)
    if not bad and config["task"] in ROW_TASKS:
        bad = _wrong_parts(config["inputs"], _INPUT, "inputs") + _wrong_parts(config["outputs"], _OUTPUT, "outputs")
    if bad:
        raise BundleError(problem(f"{file}: wrong or missing {', '.join(bad)}", "the fields of a bundle", _AGAIN))
    vectors = config.get("item_vectors")
    named = [*config["graphs"].values(), *([vectors.get("file")] if isinstance(vectors, dict) else [])]
    named += [one["vocabulary"] for one in config["inputs"] if isinstance(one, dict)
              and isinstance(one.get("vocabulary"), str)]
    outside = [name for name in named if not isinstance(name, str) or not _is_plain(name)]
    if outside:
        raise BundleError(problem(f"{file} names {outside[0]!r}", "files of the bundle's own folder", _AGAIN))
    return config


def _task(config: Any) -> Any:
    return config.get("task") if isinstance(config, dict) else None


def _wrong(part: Mapping[str, Any], wanted: Mapping[str, type]) -> list[str]:
    return [name for name, kind in wanted.items() if not isinstance(part.get(name), kind)]


def _wrong_parts(parts: Collection[Any], wanted: Mapping[str, type], what: str) -> list[str]:
    """The fields that one of `parts` lacks, as "inputs[2].kind"; no parts at all are wrong too."""
    if not parts:
        return [what]
    return [f"{what}[{place}].{name}" for place, part in enumerate(parts)
            for name in (_wrong(part, wanted) if isinstance(part, dict) else wanted)]


def _vocabularies(path: Path) -> set[str]:
    """The vocabulary files that config.json names. A config.json that cannot be read names none: `verify` comes to it
    only where its digest is right."""
    try:
        inputs = read_json(path / "config.json")["inputs"]
        return {one["vocabulary"] for one in inputs if isinstance(one.get("vocabulary"), str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _answers_rows(path: Path) -> bool:
    try:
        return _task(read_json(path / "config.json")) in ROW_TASKS
    except (OSError, ValueError):
        return False


def _read_digests(path: Path) -> dict[str, str]:
    file = path / _DIGESTS
    try:
        digests = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        what = f"{file} is missing" if path.is_dir() else f"no bundle at {path}"
        raise BundleError(problem(what, "a folder made by `distilrec export`", "check the path")) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(problem(f"{file} is not JSON: {error}", "an untouched file", _AGAIN)) from None
    named = set(digests) if isinstance(digests, dict) else set()
    if not {GRAPH, "config.json"} <= named or ("items.json" not in named and not _answers_rows(path)):
        raise BundleError(problem(f"{file} does not name the files of a bundle", "an untouched file", _AGAIN))
    if not all(_is_plain(name) and isinstance(digest, str) for name, digest in digests.items()):
        raise BundleError(problem(f"{file} names a file outside the bundle", "plain file names", _AGAIN))
    return digests


def _is_plain(name: str) -> bool:
    """A file directly in the folder: a bundle from elsewhere must not make us read or write anywhere else."""
    return Path(name).name == name and name not in ("", ".", "..")


def _write_digests(folder: Path) -> None:
    digests = {file.name: digest_file(file) for file in sorted(folder.iterdir()) if file.name != _DIGESTS}
    _write(folder / _DIGESTS, json.dumps(digests, indent=2) + "\n")


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
