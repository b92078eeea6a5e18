"""Which faults are planted: drawn with a seed, as many in every wing."""
import fnmatch
import os
import random
from dataclasses import asdict, dataclass

from mutators import mutations

WINGS = ["kernels/cpu", "src/train", "src/checkpoint", "src/comm", "src/log", "src/diagnosis", "data_loaders/load",
         "data_loaders/format"]
HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


@dataclass(frozen=True)
class Mutant:
    wing: str
    file: str
    line: int
    mutator: str
    original: str  # the line, stripped
    mutated: str
    begin: int  # in the file's text
    end: int
    replacement: str

    def key(self):
        return self.file, self.line, self.begin, self.mutator, self.original, self.mutated

    def text(self, source):
        # As many lines as before, so that no line number in the object tells it from the original.
        lines = source.count("\n", self.begin, self.end)
        return source[:self.begin] + self.replacement + "\n" * lines + source[self.end:]

    def record(self, **result):
        fields = {name: value for name, value in asdict(self).items() if name not in ("end", "replacement")}
        return {**fields, **result}


def record_key(record):
    return tuple(record[name] for name in ("file", "line", "begin", "mutator", "original", "mutated"))


def table(name):
    """The lines of a table in this folder, as lists of words; # begins a comment."""
    path = os.path.join(HERE, name)
    if not os.path.exists(path):
        return []
    with open(path) as lines:
        return [words for words in (line.split("#")[0].split() for line in lines) if words]


def wing_of(file):
    folder = os.path.dirname(file)
    return next((wing for wing in WINGS if (folder + "/").startswith(wing + "/")), folder)


def product_files(chosen):
    """The C files of the eight wings, or those chosen by name, folder or pattern, which may lie elsewhere."""
    found = []
    for top in ("src", "kernels", "data_loaders"):
        for folder, _, names in os.walk(os.path.join(ROOT, top)):
            found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in names
                      if name.endswith(".c") and "nccl" not in name]  # built with CUDA alone
    if not chosen:
        return sorted(file for file in found if wing_of(file) in WINGS)
    files = set()
    for choice in chosen:
        choice = choice.rstrip("/")
        matching = [file for file in found if file == choice or file.startswith(choice + "/")
                    or fnmatch.fnmatchcase(file, choice)]
        if not matching:
            raise SystemExit(f"error: no C file of src, kernels or data_loaders is, or lies in, {choice}")
        files.update(matching)
    return sorted(files)


def mutants_of(file):
    with open(os.path.join(ROOT, file)) as text:
        source = text.read()
    for begin, end, replacement, mutator in mutations(source):
        line_begin = source.rfind("\n", 0, begin) + 1
        line_end = source.find("\n", begin)
        original = source[line_begin:line_end].strip()
        mutated = source[line_begin:begin] + replacement + source[min(end, line_end):line_end]
        if "\n" in source[begin:end]:
            mutated = source[line_begin:begin] + replacement + source[end:source.find("\n", end)]
        yield Mutant(wing_of(file), file, source.count("\n", 0, begin) + 1, mutator, original, mutated.strip(), begin,
                     end, replacement)


def drawing_order(files, seed):
    """For each wing its mutants in the order in which they are drawn: a line at random, then one of its faults at
    random; no line comes twice before all have come once."""
    by_wing = {}
    for file in files:
        by_wing.setdefault(wing_of(file), []).append(file)
    order = {}
    for wing, members in by_wing.items():
        generator = random.Random(f"{seed} {wing}")
        lines = {}
        for file in members:
            for mutant in mutants_of(file):
                lines.setdefault((mutant.file, mutant.line), []).append(mutant)
        for faults in lines.values():
            generator.shuffle(faults)
        order[wing] = []
        while lines:
            chosen = list(lines)
            generator.shuffle(chosen)
            for line in chosen:
                order[wing].append(lines[line].pop())
                if not lines[line]:
                    del lines[line]
    return order


def quotas(wings, count):
    return {wing: count // len(wings) + (index < count % len(wings)) for index, wing in enumerate(wings)}
