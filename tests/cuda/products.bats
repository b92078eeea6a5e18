# How a run's products are chosen and kept, and what it does when cuBLASLt refuses or fails: tests/cuda/pretend_products.c
# stands before it, on a GPU or in the simulator (GPUSIM names its launcher). Its offer i multiplies by 1 + i / 64, so that
# other choices have other bits.
load ../e2e/helpers
setup_file() {
    make_datasets
    write_config config.yaml
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
}

# train RANKS WISHES ARGUMENT...: 6 steps
train() {
    local count=$1 wishes=$2
    shift 2
    # shellcheck disable=SC2086 # the launcher is words
    LD_PRELOAD=$(readlink -f "$BATS_TEST_DIRNAME/../../build/tests/cuda/pretend_products.so") PRETEND_PRODUCTS=$wishes \
        ranks "$count" ${GPUSIM:+$GPUSIM --devices 2 --threads 1 --} quest-train "$config" --device cuda \
        --set train.steps=6 --set checkpoint.every=3 "$@"
}

two_gpus() { [ -n "${GPUSIM:-}" ] || [ "$(nvidia-smi -L | grep -c '^GPU')" -ge 2 ] || skip "one GPU only"; }

# choices RUN EXPRESSION: Python over d, the lines of products.jsonl
choices() { json "$1/products.jsonl" "$2"; }

# Two runs that tune may choose differently where two ways take as long: whoever shall compute as another run did begins
# with its products.jsonl.
as_in() { mkdir "$2" && cp "$1/products.jsonl" "$2"; }

@test "products that are tuned: the fastest is taken, kept beside the run, and taken again when it goes on" {
    train 1 "offers=3 fast=1 wait_ms=15" --set train.products=tuned --out whole
    [ "$(choices whole 'sorted({(x["way"], x["offered"]) for x in d if x["tuned"] and x["epilogue"] == "none"})')" = "[('library', 3)]" ]
    [ "$(choices whole 'all(0 < x["time_us"] < 15000 <= x["first_us"] for x in d if x["tuned"])')" = True ]
    [ "$(choices whole 'sum(x["tuned"] for x in d) >= 20')" = True ]
    [ ! -e whole/products.jsonl.new ]
    as_in whole part
    train 1 "offers=3 fast=0 wait_ms=15" --set train.products=tuned --out part --max-steps 3
    train 1 "offers=3 fast=2 wait_ms=15" --set train.products=tuned --out part --resume
    same_state part/checkpoints/step_00000006.h5 whole/checkpoints/step_00000006.h5
    cmp part/products.jsonl whole/products.jsonl
    train 1 "offers=3 fast=2 wait_ms=15" --set train.products=tuned --out other
    run same_state other/checkpoints/step_00000006.h5 whole/checkpoints/step_00000006.h5
    [ "$status" != 0 ] # the bits do tell one choice from another
}

@test "on several ranks all take the first one's choices" {
    two_gpus
    PRETEND_PRODUCTS_COUNTS=$PWD/counts PRETEND_PRODUCTS_1="offers=3 fast=2 wait_ms=15" \
        train 2 "offers=3 fast=1 wait_ms=15" --set train.products=tuned --set data.val= --out run
    read -r first second third <counts.1
    [[ $first = 0 && $third = 0 && $second -gt 100 ]] # rank 1 timed nothing and computes as rank 0 does
    read -r first second third <counts.0
    [[ $first -gt 0 && $third -gt 0 && $second -gt 100 ]]
}

@test "a products.jsonl that is damaged, hostile or of another GPU is passed over with one line" {
    train 1 "" --set train.products=tuned --out whole
    first=$(head -n 1 whole/products.jsonl)
    head -c 1000 whole/products.jsonl >short
    sed '2s/"m":[0-9]*/"m":-1/' whole/products.jsonl >wrong
    sed 's/"algorithm":"[0-9a-f]*"/"algorithm":"'"$(printf 'f%.0s' {1..128})"'"/' whole/products.jsonl >hostile
    sed 's/"for":"[^"]*"/"for":"NVIDIA Z9"/' whole/products.jsonl >foreign
    head -c 100000 /dev/urandom >noise
    yes "$first" | head -n 5000 >long
    head -c 5000000 /dev/zero >large
    for file in short wrong hostile foreign noise long large; do
        mkdir "run_$file" && cp "$file" "run_$file/products.jsonl"
        train 1 "" --set train.products=tuned --max-steps 1 --out "run_$file" >log 2>&1 || { cat log && false; }
        [ "$(grep -c 'products.jsonl.*products are chosen anew' log)" = 1 ] || { cat log && false; }
        [ "$(choices "run_$file" 'sum(x["tuned"] and "NVIDIA Z9" not in x["for"] for x in d) >= 20')" = True ]
    done
    grep -q 'NVIDIA Z9' run_foreign/products.jsonl # that GPU's choices stay, for when the run is there again
    train 1 "offers=3 fast=2 wait_ms=15" --set train.products=tuned --max-steps 1 --out run_last
    sed '$s/"algorithm":"[0-9a-f]*"/"algorithm":"'"$(printf 'f%.0s' {1..128})"'"/; $s/"parts"/"library"/' run_last/products.jsonl >last
    mkdir run_anew && cp last run_anew/products.jsonl # what stands before the line that is wrong is not taken either
    train 1 "offers=3 fast=1 wait_ms=15" --set train.products=tuned --max-steps 1 --out run_anew
    for run in run_last run_anew; do choices $run 'sorted({x["algorithm"] for x in d if x["epilogue"] == "none" and x["tuned"]})'; done >algorithms
    [ "$(sort -u algorithms | wc -l)" = 2 ]
    mkdir run_empty && : >run_empty/products.jsonl
    train 1 "" --set train.products=tuned --max-steps 1 --out run_empty
    mkdir -p run_folder/products.jsonl
    train 1 "" --set train.products=tuned --max-steps 1 --out run_folder >log 2>&1 || { cat log && false; }
    grep -q 'products.jsonl: .*products are chosen anew' log
}

@test "by default nothing is timed in the simulator; products.jsonl says what was taken" {
    [ -n "${GPUSIM:-}" ] || skip "needs the simulator"
    train 1 "offers=3" --out run
    [ "$(choices run 'sorted({(x["way"], x["tuned"], x["time_us"]) for x in d})')" = "[('library', False, None)]" ]
    [ "$(choices run 'len(d) >= 16')" = True ]
}

@test "a product that is refused at a late call goes on by another way: a warning, the same result" {
    train 1 "offers=1" --out whole
    train 1 "offers=1 refuse=1 refuse_with=15 refuse_from=100" --out run >log 2>&1 || { cat log && false; }
    grep -q '^warning: step [2-6]: the library refused an algorithm' log || { cat log && false; }
    losses_agree run whole 1e-4 6
    [ "$(choices run 'any(x["way"] == "general" and x["refused"] == 1 for x in d)')" = True ]
}

@test "train.products plain, and a cuBLASLt that refuses or offers nothing: the same results by cublasGemmEx" {
    train 1 "" --out whole
    train 1 "" --set train.products=plain --out plain
    train 1 "nothing=1" --set train.products=tuned --out nothing
    train 1 "offers=2 refuse=3 refuse_with=15" --set train.products=tuned --out refused
    for other in plain nothing refused; do
        losses_agree $other whole 1e-4 6
        [ "$(choices $other 'sorted({x["way"] for x in d})')" = "['general', 'parts']" ]
    done
}

@test "a product that fails when it runs ends the run with one line" {
    run train 1 "fail_at=100 fail_with=13" --out run
    one_error 1 'GPU 0, the product of .*cublasLtMatmul: .*failed to execute'
}

# bench ARGUMENT...: quest-bench gemm on the GPU, with a cuBLASLt of three offers
bench() {
    # shellcheck disable=SC2086 # the launcher is words
    LD_PRELOAD=$(readlink -f "$BATS_TEST_DIRNAME/../../build/tests/cuda/pretend_products.so") \
        PRETEND_PRODUCTS="offers=3 fast=1" ${GPUSIM:+$GPUSIM --} quest-bench gemm --device cuda "$@"
}

@test "quest-bench gemm --plans: every product of a model, as a table and as lines of JSON" {
    bench --plans --preset vit_tiny --batch 1 --precision bf16 --products tuned --json >plans.jsonl
    [ "$(json plans.jsonl 'sorted({(x["layer"], x["pass"]) for x in d}) == sorted({(layer, step) for layer in
        ["patch_embed", "qkv", "proj", "fc1", "fc2", "head"] for step in ["forward", "input", "weights"]} - {("patch_embed", "input")})')" = True ]
    [ "$(json plans.jsonl '{(x["preset"], x["batch"], x["choice"]["in"], x["choice"]["offered"], x["choice"]["tuned"]) for x in d}')" = "{('vit_tiny', 1, 'bf16', 3, True)}" ]
    # fc1: forward m 768, n 197 tokens, k 192, without a bias
    [ "$(json plans.jsonl '[[x["choice"][key] for key in ("m", "n", "k", "epilogue", "way")] for x in d if x["layer"] == "fc1" and x["pass"] == "forward"]')" = "[[768, 197, 192, 'none', 'library']]" ]
    [ "$(json plans.jsonl 'all(x["choice"]["time_us"] < x["choice"]["first_us"] for x in d)')" = True ]
    bench --plans --preset vit_tiny --batch 1 --products first >table
    head -n 1 table | grep -q '^preset .* way .* split-k .* TFLOP/s$'
    [ "$(grep -c '^vit_tiny .* library ' table)" = 17 ]
    run -2 quest-bench gemm --plans
    one_error 2 'products are chosen on a GPU only; give --device cuda'
    run -2 bench --plans --preset vit_giant
    one_error 2 "'vit_giant' is not known"
    run -2 bench --products fastest
    one_error 2 "'fastest' is not one of auto, tuned, first, plain"
}
