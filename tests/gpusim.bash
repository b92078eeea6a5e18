# shellcheck shell=bash
# Sourced by tests/run_cuda and tests/run_rehearsal, which may run beside each other: gpusim from its sources.
# shellcheck disable=SC2034 # theirs to read
gpusim_source=${GPUSIM_SOURCE:-../shared/gpusim}

# build_gpusim: into build/gpusim/HASH, so that changed sources are built again; `gpusim` is then the folder
build_gpusim() {
    local hash lock
    hash=$(cd "$gpusim_source" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
    gpusim=$PWD/build/gpusim/$hash
    mkdir -p build
    exec {lock}>build/gpusim.lock
    flock "$lock"
    if [ ! -e "$gpusim/.built" ]; then
        rm -rf build/gpusim
        mkdir -p "$gpusim"
        cp -r "$gpusim_source" "$gpusim.source" # shared folders may be read-only
        chmod -R u+w "$gpusim.source"
        make -s -C "$gpusim.source" OUT="$gpusim" -j2 >"$gpusim/build.log" 2>&1 ||
            { tail -n 20 "$gpusim/build.log" && return 1; }
        rm -rf "$gpusim.source"
        touch "$gpusim/.built"
    fi
    exec {lock}>&-
}
