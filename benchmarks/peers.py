"""Compares the cost of tracing with other tools: same layers, similar statistics, every step.

    python benchmarks/peers.py --size 32 --pairs 10
    python benchmarks/peers.py --network gpt --batch 16 --size 64 --pairs 20

Every tool runs in its own process. Except for gradflow it also has its own environment, which adds
the tool from the package registry to the packages of the present environment. In the process the
network and an untraced twin train on the same batches, as in overhead.py. A tool that fails is
listed with the first sentence of the last line of its error.
"""

import json
import site
import statistics
import subprocess
import sys
import venv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import tyro
from pairing import load, median_interval
from peer_runner import GPT, Setting

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A tool and what it records here.

    Fields:
        tool: its name in the table.
        distribution: its name in the package registry, with a version if it matters.
        records: in words.
    """

    tool: str
    distribution: str
    records: str
    present: bool = False
    """Runs in the present environment: nothing to install."""


PEERS = (
    Peer(
        "gradflow",
        "gradflow-toolkit",
        "outputs and their gradients (mean, std, norm, extremes, zeros, non-finite), "
        "parameters, their gradients and updates, residual additions",
        present=True,
    ),
    Peer("item-hooks", "torch", "outputs and their gradients: L2 norm, `.item()`", present=True),
    Peer(
        "torchinstruments",
        "torchinstruments",
        "outputs and their gradients: mean, std, rms, largest magnitude, finite fraction; "
        "histogram of one layer",
    ),
    Peer(
        "neural-observatory",
        "neural-observatory",
        "outputs and their gradients: mean, std, extremes, L1 and L2 norms, NaN, Inf",
    ),
    Peer(
        "torchmortem",
        "torchmortem",
        "outputs and their gradients: means, std, norms, fractions; weights; loss",
    ),
    Peer("tensorboard", "tensorboard", "outputs and their gradients: histograms"),
    Peer("wandb.watch", "wandb", "parameters and their gradients: histograms; no outputs"),
    Peer(
        "trainscope",
        "trainscope==1.8.1",
        "parameters and their gradients: norm, mean, std, extremes, non-finite; outputs one step "
        "in five: the same, kurtosis",
    ),
    Peer("trainscope, every step", "trainscope==1.8.1", "the same, outputs at every step"),
    Peer(
        "ormas-monitor",
        "ormas-monitor==0.2.3",
        "norms of the layers' gradients, channels that never fire",
    ),
    Peer(
        "torch-module-monitor",
        "torch-module-monitor==0.1.0",
        "outputs: mean, std, norm; parameters and their gradients: norm",
    ),
)


@dataclass(frozen=True)
class Options(Setting):
    """What to compare."""

    tools: tuple[str, ...] = tuple(peer.tool for peer in PEERS)
    """Tools to run, in the order of the table."""
    environments: Path = HERE / ".environments"
    """Folder of the tools' environments, made where missing."""
    limit: int = 300
    """Seconds a tool may take."""


class PeerError(Exception):
    """A tool could not be installed or did not finish; the message is one line."""


def environment(peer: Peer, folder: Path) -> Path:
    """The Python of the environment of `peer`; the environment is made if it is missing.

    Raises PeerError if the distribution cannot be installed.
    """
    if peer.present:
        return Path(sys.executable)
    home = folder / peer.distribution
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    installed = home / "installed"
    if not installed.exists():
        venv.create(home, with_pip=True, clear=True)
        _see_present_packages(python)
        _call([python, "-m", "pip", "install", "--quiet", peer.distribution], 600)
        installed.touch()
    return python


def _see_present_packages(python: Path) -> None:
    """Add the present environment's packages after those of `python`, so that it finds torch.

    The option of venv for this would add the packages of the base installation, not those of the
    present environment if that one was made by venv, too.
    """
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(_call([python, "-c", query], 60).strip())
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in site.getsitepackages()]
    (own / "present.pth").write_text("".join(lines), encoding="utf-8")


def version(peer: Peer, python: Path) -> str:
    """The version of `peer` that is installed for `python`; raises PeerError."""
    name = peer.distribution.partition("==")[0]
    query = f"import importlib.metadata as m; print(m.version({name!r}))"
    return _call([python, "-c", query], 60).strip()


def run(peer: Peer, python: Path, options: Options) -> dict[str, object]:
    """The JSON line of peer_runner.py for `peer`; raises PeerError."""
    setting = asdict(options)
    arguments = [f"--{field.name}={setting[field.name]}" for field in fields(Setting)]
    command = [python, HERE / "peer_runner.py", peer.tool, *arguments]
    return json.loads(_call(command, options.limit).strip().splitlines()[-1])


def _call(command: list[str | Path], limit: int) -> str:
    """The output of `command`. Raises PeerError with the last line of its errors if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"not done after {limit} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise PeerError(lines[-1].strip() if lines else f"exit status {done.returncode}")
    return done.stdout


def row(peer: Peer, options: Options) -> str:
    """The line of the table for `peer`."""
    installed = ""
    try:
        python = environment(peer, options.environments)
        installed = version(peer, python)
        result = run(peer, python, options)
    except PeerError as error:
        message = str(error).replace("|", "\\|").split(". ")[0]
        return f"| {peer.tool} | {installed} | {peer.records} | failed: {message} | | |"
    ratios = result["ratios"]
    low, high = median_interval(ratios)
    return (
        f"| {peer.tool} | {installed} | {peer.records} | {statistics.median(ratios):.2f} "
        f"| {low:.2f} to {high:.2f} | {'same' if result['identical'] else 'differ'} |"
    )


def main(options: Options) -> None:
    """Print a Markdown table with one row per tool."""
    peers = {peer.tool: peer for peer in PEERS}
    if unknown := set(options.tools) - set(peers):
        raise SystemExit(f"unknown tools {sorted(unknown)}; known are {sorted(peers)}")
    print(
        f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads; {load()}"
    )
    what = (
        f"the GPT of peer_runner.py, {options.batch} texts of {options.size} letters"
        if options.network == GPT
        else f"torchvision's {options.network}, batch {options.batch}, "
        f"{options.size}x{options.size}"
    )
    print(f"{what}, {options.pairs} pairs\n")
    print("| tool | version | records here | traced / untraced | 95 % interval | losses |")
    print("|---|---|---|---|---|---|", flush=True)
    for tool in options.tools:
        print(row(peers[tool], options), flush=True)
    print(f"\nat the end: {load()}")


if __name__ == "__main__":
    main(tyro.cli(Options))
