# shellcheck shell=sh
# Read by every program of the bundle's bin: looks whether this machine can run the bundle, tells Open MPI and others where
# their files lie, and becomes the program of that name in libexec. The programs name the folder of their libraries themselves
# (RPATH), so LD_LIBRARY_PATH is not touched for that, and what they start finds the machine's libraries.
# shellcheck disable=SC2154 # self is the wrapper's
name=${self##*/}
here=$(cd -P "${self%/*}/.." && pwd)

unfit() {
    echo "error: $name: this machine cannot run the bundle: $*" >&2
    exit 2
}
[ -e /proc/self/exe ] || unfit "/proc is not mounted, which says where a program lies"
loader=/lib64/ld-linux-x86-64.so.2
[ -x "$loader" ] || unfit "it has no glibc ($loader is missing)"
version=$("$loader" --version 2>/dev/null) || version='version older than 2.33' # which had no --version
version=${version#*version }
version=${version%%
*}
version=${version%.}
minor=${version#2.} oldest=@GLIBC@
[ "${minor%%[!0-9]*}" -ge "$oldest" ] 2>/dev/null || # what else it may say counts as too old
    unfit "its glibc is $version, and 2.$oldest or newer is needed (Debian 12, Ubuntu 24.04, Fedora 37)"
case $("$loader" --help) in
*"x86-64-v3 (supported"*) ;;
*) unfit "its CPU is older than x86-64-v3 (AVX2, FMA: Intel Haswell, AMD Zen); build from source there" ;;
esac

case $name in
mpirun | orted)
    case $here in *[[:space:]]*)
        echo "error: $name: Open MPI cannot be started from a folder whose name has spaces ($here); move the bundle" >&2
        exit 2
        ;;
    esac
    # Daemons on other hosts are started by whole path; ranks begin with `rank`, which takes all this out again.
    export OMPI_MCA_orte_launch_agent="$here/bin/orted" OMPI_MCA_orte_fork_agent="$here/libexec/rank"
    export OMPI_MCA_plm_rsh_agent="${OMPI_MCA_plm_rsh_agent:-$here/libexec/ssh}"
    ;;
quest-norms)
    export TERMINFO_DIRS="${TERMINFO_DIRS:-}:$here/share/terminfo" # an empty entry is the machine's own
    exec "$here/libexec/$name" "$@"
    ;;
quest-data)
    # libvips' own readers and those that its authors trust; libraries of the others are left out
    export VIPS_BLOCK_UNTRUSTED=1 VIPSHOME="$here"
    ;;
*)
    export OMPI_MCA_ess_singleton_isolated=1 # alone, without mpirun: no daemon beside it
    if [ -d "$here/lib/cuda" ]; then
        cuda=${CUDA_HOME:-/usr/local/cuda}/lib64 # cuBLAS and NCCL are the machine's
        export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$here/lib/cuda:$cuda"
    fi
    ;;
esac
export OPAL_PREFIX="$here" OPAL_BINDIR="$here/bin" OPAL_LIBDIR="$here/lib" OPAL_PKGLIBDIR="$here/lib/openmpi"
export OPAL_PKGDATADIR="$here/share/openmpi" OPAL_SYSCONFDIR="$here/etc/openmpi"
export PMIX_PREFIX="$here" PMIX_LIBDIR="$here/lib" PMIX_PKGLIBDIR="$here/lib/pmix"
export PMIX_PKGDATADIR="$here/share/pmix" PMIX_SYSCONFDIR="$here/etc/openmpi"
export HWLOC_PLUGINS_PATH="$here/lib/hwloc" # none: another version's would be found otherwise
if [ "$name" = mpirun ]; then
    # A program that is started by its whole path takes LD_LIBRARY_PATH and PATH to the ranks; --noprefix forbids it.
    exec "$here/libexec/mpirun" --noprefix "$@"
fi
exec "$here/libexec/$name" "$@"
