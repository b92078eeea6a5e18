"""What came out: the file of results (one JSON object a line) and the table made of it."""
import json
import os

from sample import HERE, WINGS, record_key


class Results:
    def __init__(self, path):
        self.path = path
        self.known = {}

    def read(self, without_survivors=False):
        if os.path.exists(self.path):
            with open(self.path) as lines:
                for line in lines:
                    if line.endswith("}\n"):  # else cut off: that mutant is run again
                        record = json.loads(line)
                        self.known[record_key(record)] = record
        if without_survivors:
            self.known = {key: record for key, record in self.known.items() if record["result"] != "survived"}

    def add(self, record):
        self.known[record_key(record)] = record
        with open(self.path, "a") as out:
            out.write(json.dumps(record) + "\n")


def judged_equivalent():
    """The survivors that no test can kill, from `equivalent`: {(file, original line, mutated line): reason}."""
    reasons = {}
    path = os.path.join(HERE, "equivalent")
    if not os.path.exists(path):
        return reasons
    with open(path) as text:
        blocks = text.read().split("\n\n")
    for block in blocks:
        lines = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            continue
        if len(lines) < 4 or not lines[1].startswith("- ") or not lines[2].startswith("+ "):
            raise SystemExit(f"error: {path}: a file, '- original', '+ mutated' and a reason are expected:\n{block}")
        reasons[lines[0], lines[1][2:].strip(), lines[2][2:].strip()] = " ".join(lines[3:])
    return reasons


def print_report(records):
    reasons = judged_equivalent()
    rows, survivors = {}, []
    hung = uncounted = 0
    for record in records:
        row = rows.setdefault(record["wing"], {"killed": 0, "survived": 0, "equivalent": 0})
        if record["result"] not in ("killed", "survived"):
            uncounted += 1
            continue
        hung += record.get("hung", False)
        result = record["result"]
        if result == "survived":
            reason = reasons.get((record["file"], record["original"], record["mutated"]))
            result = "equivalent" if reason else result
            survivors.append((record, reason))
        row[result] += 1
    survivors.sort(key=lambda entry: (bool(entry[1]), entry[0]["file"], entry[0]["line"]))
    for record, reason in survivors:
        print(f"\n{'equivalent' if reason else 'survived'}: {record['file']}:{record['line']} ({record['mutator']})")
        print(f"    - {record['original']}\n    + {record['mutated']}")
        if reason:
            print(f"    {reason}")
    print_killers(records)
    print(f"\n{'wing':22} {'killed':>7} {'survived':>9} {'equivalent':>11} {'rate':>6}")
    rows = sorted(rows.items(), key=lambda item: (WINGS + [item[0]]).index(item[0]))
    total = {name: sum(row[name] for _, row in rows) for name in ("killed", "survived", "equivalent")}
    for wing, row in [*rows, ("all", total)]:
        counted = row["killed"] + row["survived"]
        rate = f"{100 * row['killed'] / counted:.0f} %" if counted else "-"
        print(f"{wing:22} {row['killed']:7} {row['survived']:9} {row['equivalent']:11} {rate:>6}")
    print(f"{hung} of the killed ran into the time limit; {uncounted} drawn did not compile or gave the same code")


def print_killers(records):
    """Which entries of the table kill, and what a mutant cost until then: what the table's order should follow."""
    kills = {}
    for record in records:
        if record["result"] == "killed":
            kills.setdefault(record["by"], []).append(record["seconds"])
    if kills:
        print("\nkilled by                                           mutants  seconds each")
    for name, seconds in sorted(kills.items(), key=lambda item: -len(item[1])):
        print(f"{name:50} {len(seconds):8} {sum(seconds) / len(seconds):13.1f}")
