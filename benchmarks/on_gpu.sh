#!/usr/bin/env bash
# What a GPU is needed for, in under eight minutes: the CUDA tests, the targets of tracing's cost
# with a profile of one recorded step, an epoch of both networks at 300x300, and the experiment at
# its full setting as far as the time allows. The last lines are a short table.
#
#   bash benchmarks/on_gpu.sh [FOLDER]               results go to FOLDER (gpu-results)
#   bash benchmarks/on_gpu.sh --dry-run [FOLDER]     everything once on the CPU, tiny
#
# PYTHON names the interpreter, IMAGES the images (data/makanan-300, if it is there; else random
# ones), SECONDS_IN_ALL the limit, and PARTS what is done: "tests targets epoch experiment" by default.
# What is installed in folders that PYTHONPATH names is used. Needed beside the README's first line:
# pytest. At most seven files come out, each below 16 MB.
set -uo pipefail
cd "$(dirname "$0")/.."
dry=false
if [[ ${1:-} == --dry-run ]]; then dry=true; shift; fi
out=${1:-gpu-results}
python=${PYTHON:-$(command -v python || command -v python3)}
limit=${SECONDS_IN_ALL:-465}
parts=${PARTS:-tests targets epoch experiment}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$out"
# Of an earlier call, a table would be taken for one of this call.
rm -f "$out"/{targets.md,targets.json,epoch.md,profile.md,summary.md,experiment.tar.gz}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SECONDS=0

# run NAME SECONDS COMMAND...: the command with a limit; its output to NAME.txt, its end to the table.
# Returns 1 if it failed, or if NAME is no part of this call.
summary=()
failed=0
run() {
    local name=$1 most=$2 began=$SECONDS status=0
    shift 2
    [[ " $parts " == *" $name "* ]] || return 1
    timeout --signal=TERM --kill-after=10 "$most" "$@" >"$work/$name.txt" 2>&1 || status=$?
    local words="ok"
    ((status == 124)) && words="ended after its $most s"
    ((status != 0 && status != 124)) && words="failed ($status)" failed=1
    summary+=("| $name | $words | $((SECONDS - began)) s | $(grep . "$work/$name.txt" | tail -n 1 | cut -c 1-100) |")
    tail -c 200000 "$work/$name.txt" >>"$out/log.txt"
    ((status == 0))
}

: >"$out/log.txt"
device=cuda size=300 epochs=10 seeds=(2025 2026 2027 2028 2029) networks=(plain34 resnet34)
targets=(benchmarks/gpu_targets.py --out "$out" --seconds 190)
hooks=tests/gradflow/hooks
tests=("$hooks/test_on_cuda.py" "$hooks/reduction/cuda" "$hooks/test_cuda_graphs.py"
    "$hooks/observation/test_captured_steps.py" "$hooks/updates/test_scaling.py"
    tests/gradflow/data/on_device)
probes=(gradient_coherence shattering path_lengths lesions skip_scaling noise_scale loss_slice
    sharpness)
images=980
if $dry; then
    device=cpu size=32 epochs=1 seeds=(2025) networks=(resnet20) probes=(none) images=40
    targets+=(--dry-run --device cpu)
    tests=("$hooks/test_on_cuda.py")
fi

run tests 120 "$python" -m pytest -q -p no:cacheprovider "${tests[@]}" -k "not interpreter"
run targets 220 "$python" "${targets[@]}"

data=${IMAGES:-data/makanan-300}
if [[ ! -d $data ]] || $dry; then
    data=$work/images
    "$python" - "$data" "$images" "$size" <<'MAKE'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

folder, count, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
generator = np.random.default_rng(0)
for place in range(count + count // 4):
    path = folder / f"class{place % 5}" / f"{place}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)).save(path, compress_level=0)
MAKE
fi

train=("$python" -m gradflow.train_and_trace --data "$data" --image-size "$size" --device "$device"
    --models "${networks[@]}" --precision tf32)

# The second epoch of both networks side by side: the first one compiles and loads.
run epoch 75 "${train[@]}" --epochs 2 --seeds 2025 --probes none --no-recalibrate --no-histograms \
    --processes "${#networks[@]}" --out "$work/epoch"
[[ " $parts " == *" epoch "* ]] && "$python" - "$work/epoch" <<'EPOCH' | tee "$out/epoch.md"
import sys
from pathlib import Path

import gradflow

for folder in sorted(Path(sys.argv[1]).glob("*-seed*")):
    try:
        seconds = list(gradflow.open_run(folder).epochs.seconds)
        print(f"| an epoch, {folder.name} | {', '.join(f'{one:.2f} s' for one in seconds)} | 1.5 s |")
    except Exception as error:
        print(f"| an epoch, {folder.name} | not known: {error} | 1.5 s |")
EPOCH

left=$((limit - SECONDS - 30))
if ((left > 20)); then
    run experiment "$left" "${train[@]}" --epochs "$epochs" --seeds "${seeds[@]}" \
        --state-every 10 --probes "${probes[@]}" \
        --processes "$((${#networks[@]} * ${#seeds[@]}))" --out "$work/experiment"
    # The tables without the weights; if that is too much, without the tables of single steps.
    if [[ -d $work/experiment ]]; then
        pack() { tar -C "$work" -czf "$out/experiment.tar.gz" --exclude='*.pt' "$@" experiment; }
        pack
        if (($(stat -c %s "$out/experiment.tar.gz") > 15000000)); then
            pack --exclude='*histograms*' --exclude='parameters*' --exclude='activations*'
        fi
    fi
fi

{
    cat "$out/targets.md" 2>/dev/null
    echo "| what | | aim |"
    echo "|---|---|---|"
    cat "$out/epoch.md" 2>/dev/null
    echo
    echo "| part | end | took | its last line |"
    echo "|---|---|---|---|"
    printf '%s\n' "${summary[@]}"
    echo "$SECONDS s in all"
} | tee "$out/summary.md"
exit "$failed"
