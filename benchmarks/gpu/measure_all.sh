#!/usr/bin/env bash
# What only a GPU can show, in parts of at most ten minutes but the last. README.md beside this says what they need.
# Usage: measure_all.sh FOLDER PART...   with the parts kernels, operators, models, plugins, python_plugins, block_engines,
# engines, plans
# PYTHON names the interpreter (default: python3). A part that fails does not stop the next; the exit code tells.
set -u -o pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
shift
python=${PYTHON:-python3}
link=$(mktemp -d)
trap 'rm -rf "$link"' EXIT
ln -s "$root" "$link/agileir_export" # the checkout as the package, whatever its folder is called
export PYTHONPATH="$link${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
cd "$root" || exit 2
failed=0

# step SECONDS LOG COMMAND...
step() {
    local seconds=$1 log=$out/$2.log
    shift 2
    echo "== $*"
    timeout -k 10 "$seconds" "$@" 2>&1 | tee -a "$log"
    local code=$?
    [ $code -eq 124 ] && echo "== stopped after $seconds s" | tee -a "$log"
    [ $code -eq 0 ] || { failed=1; echo "== exit code $code" | tee -a "$log"; }
}

gpu_tests() { # SECONDS LOG FILE EXPRESSION; the folders of the checkout are not to be found as modules
    step "$1" "$2" env PYTHONSAFEPATH=1 "$python" -m pytest -q -rfEs --tb=short -p no:cacheprovider -m gpu "$3" -k "$4"
}

kernels() { # a process for each operator: after an illegal address nothing works any more in its own
    local file=tests/plugins/test_dispatch.py others=tests/plugins/test_kernels_on_gpu.py running=()
    gpu_tests 240 kernels_1 $file "agree and key_semantic_dictionary" >/dev/null & running+=($!)
    gpu_tests 240 kernels_2 $file "agree and key_semantic_attention" >/dev/null & running+=($!)
    gpu_tests 240 kernels_3 $file "agree and group_shifted" >/dev/null & running+=($!)
    gpu_tests 240 kernels_4 $file "agree and shifted_window and not group" >/dev/null & running+=($!)
    gpu_tests 240 kernels_5 $file "not agree" >/dev/null & running+=($!)
    gpu_tests 240 kernels_6 $others "" >/dev/null & running+=($!)
    gpu_tests 240 kernels_7 tests/plugins/test_half_blocks_on_gpu.py "" >/dev/null & running+=($!)
    wait "${running[@]}"
    cat "$out"/kernels_?.log >"$out/kernels.log" && rm "$out"/kernels_?.log
    cat "$out/kernels.log"
    grep -q '^== exit code' "$out/kernels.log" && failed=1
}

operators() { step 400 operators "$python" benchmarks/gpu/operators.py --resume --out "$out/gpu_operators.json"; }

models() { step 400 models "$python" benchmarks/gpu/models.py --resume --out "$out/gpu_models.json"; }

plugins() { # TensorRT with our plugins in networks without other products; FOLDER/nets may come from `prepare`
    local nets=$out/nets script=benchmarks/gpu/plugin_engines.py running=() each
    [ -d "$nets" ] || step 120 prepare "$python" $script prepare "$nets"
    for each in shifted_window_attention group_shifted_window_attention key_semantic_attention key_semantic_dictionary; do
        step 150 "plugins_$each" "$python" $script operators "$nets" "$out" $each >/dev/null & running+=($!)
    done
    for each in swinir agileir_tiny_x2 semanir_tiny_x2; do
        step 150 "plugins_$each" "$python" $script models "$nets" "$out" $each >/dev/null & running+=($!)
    done
    step 150 plugins_runner env PYTHONSAFEPATH=1 AGILEIR_EXPORT_PRODUCTS_AS_SUMS=1 "$python" -m pytest -v -rfEs --tb=short \
        -p no:cacheprovider -m gpu tests/engines/test_tensorrt_gpu.py -k "not rtx and not unet" >/dev/null & running+=($!)
    plugins_cli "$nets" >/dev/null & running+=($!)
    wait "${running[@]}"
    step 60 plugins_bare "$python" $script bare "$nets" "$out" >/dev/null
    grep -h '^{"step"\|^== \|failed\|passed\|PASSED\|FAILED\|ERROR' "$out"/plugins_*.log | cut -c1-300
    grep -q '^== exit code' "$out"/plugins_*.log && failed=1
}

python_plugins() { # the same operators and networks with the plugins in Python, which engines of TensorRT-RTX have
    local nets=$out/nets script=benchmarks/gpu/plugin_engines.py running=() each
    [ -d "$nets" ] || step 120 prepare "$python" $script prepare "$nets"
    for each in shifted_window_attention group_shifted_window_attention key_semantic_attention key_semantic_dictionary; do
        step 150 "python_plugins_$each" "$python" $script operators --form python "$nets" "$out" $each >/dev/null & running+=($!)
    done
    for each in swinir agileir_tiny_x2 semanir_tiny_x2; do
        step 150 "python_plugins_$each" "$python" $script models --form python "$nets" "$out" $each >/dev/null & running+=($!)
    done
    wait "${running[@]}"
    grep -h '^{"step"\|^== \|failed\|passed' "$out"/python_plugins_*.log | cut -c1-300
    grep -q '^== exit code' "$out"/python_plugins_*.log && failed=1
}

block_engines() { # the networks of `plugins` with half blocks as plugins (trt --fuse blocks), in both forms of plugins
    local nets=$out/nets script=benchmarks/gpu/plugin_engines.py running=() each form
    [ -d "$nets" ] || step 120 prepare "$python" $script prepare "$nets"
    for each in swinir agileir_tiny_x2 semanir_tiny_x2; do # a process each: after an illegal address none works any more
        for form in quick python; do
            step 200 "block_engines_${each}_$form" "$python" $script models --blocks --form $form "$nets" "$out" $each >/dev/null & running+=($!)
        done
    done
    wait "${running[@]}"
    grep -h '^{"step"\|^== \|failed\|passed' "$out"/block_engines_*.log | cut -c1-300
    grep -q '^== exit code' "$out"/block_engines_*.log && failed=1
}

plugins_cli() { # the command line on the network as sums, as a user would type it
    local file=$1/agileir_tiny_x2-float32.onnx plan=$link/cli.plan size="--min 1x32x32 --opt 1x64x64 --max 1x64x64"
    said() { step 150 plugins_cli "$python" -c 'from agileir_export.cli import main; main()' "$@"; }
    said doctor
    said trt "$file" --target tensorrt --fp32 --attention plugin $size --no-cache -o "$plan"
    said info "$plan"
    said verify "$plan"
    "$python" -c "from PIL import Image; Image.open('images/samples/chelsea.png').crop((0, 0, 64, 64)).save('$link/in.png')"
    said restore "$plan" "$link/in.png" -o "$link/out.png"
    said polygraphy "$file" --trt --images "$link/in.png" -o "$link/compare.sh"
    step 150 plugins_cli env PATH="$link/bin:$PATH" sh "$link/compare.sh"
}

engines() { gpu_tests 560 engines tests/engines/test_tensorrt_gpu.py ""; }

cli() { step 300 plans "$python" -c 'from agileir_export.cli import main; main()' "$@"; }

plans() { # TensorRT's engines of two packaged models, with plugins and without, each built, verified, timed and used
    local model precision fuse plan
    for fuse in attention blocks none; do
        for model in agileir_tiny_x2 semanir_tiny_x2; do
            for precision in fp16 fp32; do
                plan=$link/$model-$precision-$fuse.plan
                cli trt $model --target tensorrt --$precision --fuse $fuse --profile tiles --no-cache -o "$plan"
                [ -f "$plan" ] || continue
                cli verify --time "$plan"
                cli restore "$plan" images/samples/chelsea.png -o "$link/$model-$precision-$fuse.png"
            done
        done
    done
}

for part in "$@"; do
    case $part in
    kernels | operators | models | plugins | python_plugins | block_engines | engines | plans) "$part" ;;
    *) echo "no such part: $part" >&2; exit 2 ;;
    esac
done
exit $failed
