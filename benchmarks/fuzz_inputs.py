"""Draws contents of files, names and values: damaged valid ones, and arbitrary ones."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

LETTERS = (
    *"aZ09 .,;:'\"/\\|-_=+<>&$%{}[]()~#!?*\t\r\n\0\x1b\x7f",
    *"\u00e4\u6f22\u202e\u2028\u0301\ufeff\ud800\udcff\U0001f600",
)
NAMES = (
    *("..", ".", "~", "~root", "-rf", "--help", "--", "../canary/secret.png", "../../canary"),
    *("/etc/passwd", "//host/share", "C:\\x", "a\\..\\..\\b", "a\nb", "a\0b", "\udcff", "CON"),
    *("$(x)", "%s", "{0}", "<script>", "=1+1", "a" * 5000, "a/" * 2500, "", " ", ".hidden"),
    *("canary", "\u202egnp.exe", "run.json", "best.pt", "damaged", "x" * 255),
)
NUMBERS = (0, 1, -1, 2, 7, 2**31 - 1, 2**31, -(2**63), 2**64, 10**400, 1e308, 1e-320, 0.5, -0.0)
ODD_NUMBERS = (float("nan"), float("inf"), float("-inf"))
_WHOLE = tuple(
    (value & (2 ** (8 * size) - 1)).to_bytes(size, order)
    for value in (0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**16)
    for size in (1, 2, 4, 8)
    for order in ("little", "big")
)


def mutated(random: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """`content` after one to four changes of bytes, which may splice in parts of `others`."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        begin, end = _span(random, len(content))
        kind = random.randrange(9)
        if kind == 0:
            content = content[:begin]
        elif kind == 1:
            content = content[:begin] + content[end:]
        elif kind == 2:
            content = content[:end] + content[begin:]  # what lies between comes twice
        elif kind == 3:
            other = random.choice(others)
            content = content[:begin] + other[random.randrange(len(other) + 1) :]
        elif kind == 4:
            content = content[:begin] + random.randbytes(random.randrange(1, 40)) + content[begin:]
        elif kind == 5:
            content = (
                content[:begin]
                + random.choice(LETTERS).encode(errors="replace") * (random.choice((1, 2, 1000)))
                + content[begin:]
            )
        elif kind == 6:
            number = random.choice(_WHOLE)
            content = content[:begin] + number + content[begin + len(number) :]
        elif content:
            bit = random.randrange(8 * len(content))
            flipped = content[bit // 8] ^ (1 << bit % 8)
            content = content[: bit // 8] + bytes((flipped,)) + content[bit // 8 + 1 :]
    return content


def _span(random: Random, length: int) -> tuple[int, int]:
    """Two ordered positions in a sequence of `length`, likely close together."""
    begin = random.randrange(length + 1)
    return begin, min(length, begin + random.choice((1, 2, 4, 16, 64, length)))


def any_text(random: Random) -> str:
    """Text of arbitrary characters, or a name with a special meaning to some program."""
    kind = random.randrange(8)
    if kind < 2:
        return random.choice(NAMES)
    if kind == 2:
        return chr(random.choice((random.randrange(0x300), random.randrange(0x110000))))
    return "".join(random.choices(LETTERS, k=random.choice((1, 2, 5, 20))))


def any_name(random: Random) -> str:
    """A file name, likely a valid one."""
    if random.random() < 0.6:
        return f"{random.choice('abcd')}{random.randrange(4)}.png"
    return any_text(random)


def any_json(random: Random, depth: int = 3) -> Any:
    """An arbitrary JSON value, NaN and Infinity included."""
    kind = random.randrange(9 if depth else 6)
    if kind < 2:
        return random.choice(NUMBERS + ODD_NUMBERS)
    if kind == 2:
        return random.choice((None, True, False))
    if kind < 6:
        return any_text(random)
    count = random.choice((0, 1, 2, 5))
    if kind == 6:
        return {any_text(random): any_json(random, depth - 1) for _ in range(count)}
    return [any_json(random, depth - 1) for _ in range(count)]


def mutated_json(random: Random, value: Any) -> Any:
    """`value` with one item, at any depth, replaced by another, renamed or removed."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice(list(value))
        changed = dict(value)
        kind = random.randrange(8)
        if kind == 0:
            del changed[name]
        elif kind == 1:
            changed[any_text(random)] = changed.pop(name)
        elif kind == 2:
            changed[name] = value[random.choice(list(value))]
        else:
            changed[name] = mutated_json(random, value[name])
        return changed
    if isinstance(value, list) and value and random.random() < 0.5:
        place = random.randrange(len(value))
        kind = random.randrange(4)
        if kind == 0:
            return value * 2
        return [*value[:place], mutated_json(random, value[place]), *value[place + 1 :]]
    changes: tuple[Callable[[], Any], ...] = (
        lambda: any_json(random),
        lambda: [value],
        lambda: str(value),
        lambda: {any_text(random): value},
        lambda: random.choice(NUMBERS + ODD_NUMBERS),
        lambda: -value if isinstance(value, int | float) else None,
    )
    return random.choice(changes)()


def json_bytes(random: Random, value: Any, others: Sequence[bytes]) -> bytes:
    """`value` as a JSON file: often intact, else truncated, deep, huge, doubled or damaged."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    content = text.encode(errors="surrogatepass")
    kind = random.randrange(24)
    if kind == 0:
        depth = random.choice((50, 900, 5000, 200_000))
        bracket, close = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        return content[:1] + b'"a":' + bracket * depth + b"1" + close * depth + b"," + content[1:]
    if kind == 1:
        return (
            content[:1]
            + b'"seed":'
            + b"9" * random.choice((400, 5000, 300_000))
            + (b"," + content[1:])
        )
    if kind == 2:
        return content[:-1] + b"," + content[1:]  # every key twice
    if kind == 3:
        return content.decode(errors="replace").encode(random.choice(("utf-16", "utf-8-sig")))
    if kind == 4:
        return random.randbytes(random.randrange(200))
    return mutated(random, content, others) if kind < 9 else content


def place(folder: Path, name: str, content: bytes) -> Path | None:
    """Write `content` to the file `name` in `folder`; None if no file can have this name."""
    whole = os.path.normpath(f"{folder}/{name}")
    if not whole.startswith(f"{folder}/"):
        return None
    try:
        path = Path(whole)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except (OSError, ValueError):
        return None
    return path


def replace_by_something_odd(random: Random, path: Path, scratch: Path) -> str:
    """Replace `path`, in `scratch`, by something that is not a plain file; return what it is."""
    if not os.path.normpath(path).startswith(f"{scratch}/"):
        raise ValueError(f"{path} is none of the fuzzer's own")
    kind = random.choice(("fifo", "folder", "loop", "nowhere", "canary", "zero", "inside", "gone"))
    if path.is_dir() and not path.is_symlink():
        return "a folder"  # it was made one before
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "gone":
        target = {
            "loop": path.name,
            "nowhere": "nothing",
            "canary": scratch.parent / "canary" / random.choice(("secret.png", "folder", "link")),
            "zero": "/dev/zero",
            "inside": random.choice(sorted(scratch.iterdir()) or [scratch]),
        }[kind]
        path.symlink_to(target)
    return kind
