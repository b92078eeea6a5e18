# shellcheck shell=bash
# Sourced by tests/bundle and tests/e2e/bundle.bats: machines that hold nothing but what a bundle may expect.

# why_no_machine: what keeps this user from making one; empty if nothing does
why_no_machine() {
    local tool
    [ "$(id -u)" = 0 ] || { echo "only root can make a chroot" && return; }
    for tool in busybox patchelf xz; do
        command -v $tool >/dev/null || { echo "$tool is missing (launch/install-deps --tests)" && return; }
    done
    chroot / true 2>/dev/null || { echo "chroot is forbidden here" && return; }
    unshare --mount true 2>/dev/null || echo "mounting is forbidden here"
}

# glibc_machine DIR: glibc's libraries and busybox's shell, nothing else
glibc_machine() {
    local library
    mkdir -p "$1"/{bin,dev,etc,lib64,lib/x86_64-linux-gnu,opt,proc,sys,tmp}
    cp -L /lib64/ld-linux-x86-64.so.2 "$1/lib64/"
    for library in libc.so.6 libm.so.6 libmvec.so.1 libpthread.so.0 libdl.so.2 librt.so.1 libresolv.so.2 libutil.so.1; do
        cp -L "/lib/x86_64-linux-gnu/$library" "$1/lib/x86_64-linux-gnu/"
    done
    cp "$(command -v busybox)" "$1/bin/busybox"
    ln -s busybox "$1/bin/sh"
    mknod -m 666 "$1/dev/null" c 1 3
    echo 'root:x:0:0::/:/bin/sh' >"$1/etc/passwd"
}

# inside DIR COMMAND...: with a fresh environment, and /proc, /sys and /dev/shm for as long as it runs
inside() {
    local machine=$1 env=(/bin/busybox env)
    shift
    [ ! -x "$machine/usr/bin/env" ] || env=(/usr/bin/env)
    # shellcheck disable=SC2016 # for the inner shell to expand
    unshare --mount sh -c '
        cd "$1" && mount -t proc proc proc && mount -t sysfs -o ro sysfs sys && mkdir -p dev/shm && mount -t tmpfs tmpfs dev/shm || exit 99
        shift
        exec chroot . "$@"' sh "$machine" "${env[@]}" -i HOME=/ PATH="$bundle/bin:/usr/bin:/bin" \
        OMP_NUM_THREADS=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 \
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ${GLIBC_TUNABLES:+GLIBC_TUNABLES="$GLIBC_TUNABLES"} "$@" </dev/null
}

# unpack ARCHIVE DIR: into DIR/opt; `bundle` is then the folder, as the machine names it
unpack() {
    tar -C "$2/opt" -xf "$1"
    bundle=/$(cd "$2" && ls -d opt/quest-train-*)
}

# small_config FILE: reads /tmp/train.h5 and /tmp/val.h5
small_config() {
    cat >"$1" <<YAML
model: {image_size: 16, patch_size: 4, dim: 32, depth: 2, heads: 2}
attention: {kind: quest}
data: {train: /tmp/train.h5, val: /tmp/val.h5}
train: {steps: 3, batch_size: 24, seed: 7}
log: {every: 1}
YAML
}
