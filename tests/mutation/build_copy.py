"""A copy of the checkout in build/mutation/tree, built without CUDA, and beside it a slot for each mutant at work: the
same files once more (hard links), but with the tests and programs that have the mutant in them. Objects are made from
the tree, which never changes."""
import fcntl
import os
import re
import shlex
import shutil
import subprocess

from sample import ROOT

HOME = os.path.join(ROOT, "build", "mutation")
TREE = os.path.join(HOME, "tree")
# -O2 costs little more than -O1 here, and more faults that change nothing turn out to give the same code.
MAKE = ["make", "-s", "CUDA=0", "CFLAGS=-O2 -g0"]


def lock():
    os.makedirs(HOME, exist_ok=True)
    held = open(os.path.join(HOME, "lock"), "w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit("error: tests/mutation/run: another one is at work in this checkout")
    return held


def copy_checkout():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            check=True, capture_output=True, text=True).stdout.split("\0")
    wanted = {file for file in listed if file and os.path.lexists(os.path.join(ROOT, file))}
    for file in wanted:
        source, copy = os.path.join(ROOT, file), os.path.join(TREE, file)
        if os.path.islink(source) or not os.path.lexists(copy) or stamp(source) != stamp(copy):
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            if os.path.lexists(copy):
                os.remove(copy)
            shutil.copy2(source, copy, follow_symlinks=False)
    for folder, folders, names in os.walk(TREE):
        folders[:] = [name for name in folders if os.path.join(folder, name) != os.path.join(TREE, "build")]
        for name in names:
            if os.path.relpath(os.path.join(folder, name), TREE) not in wanted and not name.endswith(".pyc"):
                os.remove(os.path.join(folder, name))


def stamp(path):
    status = os.lstat(path)
    return status.st_size, status.st_mtime_ns


def symbols(path, defined):
    output = subprocess.run(["nm", "-P", "--defined-only", *defined, path], check=True, capture_output=True, text=True)
    return {line.split()[0] for line in output.stdout.splitlines()}


class Commands:
    """The compiler's and the linker's command for each object, test and program, as the Makefile would call them."""

    def __init__(self, jobs):
        environment = dict(os.environ)
        if "CC" not in os.environ and shutil.which("ccache"):
            environment["CC"] = "ccache gcc"
        built = subprocess.run([*MAKE, f"-j{jobs}", "all", "unit"], cwd=TREE, env=environment, capture_output=True,
                               text=True)
        if built.returncode != 0:
            raise SystemExit(f"{built.stdout}{built.stderr}error: the build of {TREE} failed")
        shown = subprocess.run([*MAKE, "-nB", "V=1", "all", "unit"], cwd=TREE, env=environment, check=True,
                               capture_output=True, text=True).stdout
        self.of = {}
        for line in shown.splitlines():
            target = re.search(r" -o (build/\S+)", line)
            if target:
                words = shlex.split(line)
                self.of[target.group(1)] = words[1:] if os.path.basename(words[0]) == "ccache" else words
        self.symbols = {target: symbols(os.path.join(TREE, target), []) for target in self.of
                        if target.startswith(("build/bin/", "build/tests/"))}
        self.linker = ["-fuse-ld=gold"] if shutil.which("ld.gold") else []


class Slot:
    """Where one mutant at a time is compiled and linked."""

    def __init__(self, number, commands):
        self.commands = commands
        self.path = os.path.join(HOME, f"slot{number}")
        self.object = os.path.join(self.path, "build", "mutant.o")
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(TREE, self.path, symlinks=True, copy_function=os.link,
                        ignore=lambda folder, names: {"build"} if folder == TREE else ())
        for folder in ("bin", "tests"):
            os.makedirs(os.path.join(self.path, "build", folder))
        self.originals = {}
        self.clean()

    def clean(self):
        """All tests and programs the unmutated ones."""
        self.linked = set()
        for target in self.commands.symbols:
            link = os.path.join(self.path, target)
            if os.path.lexists(link):
                os.remove(link)
            os.symlink(os.path.join(TREE, target), link)

    def compile(self, file, text):
        """The object's bytes, or None where it does not compile. The text has the original's name and no line more or
        less, so equal code gives equal bytes."""
        source = os.path.join(self.path, "build", os.path.basename(file))
        with open(source, "w") as out:
            out.write(text)
        command = [word for word in self.commands.of[f"build/o/{file[:-2]}.o"] if word not in ("-MMD", "-MP")]
        command[command.index("-o") + 1] = self.object
        command[command.index("-c") + 1] = source
        compiled = subprocess.run(command, cwd=TREE, capture_output=True).returncode == 0
        os.remove(source)
        if not compiled:
            return None
        with open(self.object, "rb") as made:
            return made.read()

    def plant(self, file, source, text):
        """"not compiled", "same code", or None: the mutant is ready to be linked."""
        if file not in self.originals:
            self.originals[file] = self.compile(file, source)
        made = self.compile(file, text)
        if made is None:
            return "not compiled"
        if made == self.originals[file]:
            return "same code"
        self.clean()
        self.file = file
        self.defined = symbols(self.object, ["--extern-only"])
        return None

    def reaches(self, target):
        return bool(self.commands.symbols[target] & self.defined)

    def link(self, target):
        """Puts the mutant into a test or program, if what it is linked from has the mutated file in it."""
        if target in self.linked or not self.reaches(target):
            return
        command = list(self.commands.of[target])
        own = f"build/o/{self.file[:-2]}.o"
        if own in command:
            command[command.index(own)] = self.object
        else:
            # Before the library: what the mutant defines is not looked for there any more.
            command.insert(next(i for i, word in enumerate(command) if word.endswith(".a")), self.object)
        out = os.path.join(self.path, target)
        os.remove(out)
        command[command.index("-o") + 1] = out
        subprocess.run([*command, *self.commands.linker], cwd=TREE, check=True, capture_output=True)
        self.linked.add(target)
