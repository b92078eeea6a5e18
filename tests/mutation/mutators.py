"""Small faults: each mutator takes the tokens of a C file and yields (begin, end, replacement) of one fault each.
The text is that of clang-format, so `a * b` multiplies and `type *b` declares."""
import re
from c_tokens import tokenize

SWAPS = {
    "relation": {"<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"], "==": ["!="], "!=": ["=="]},
    "logic": {"&&": ["||"], "||": ["&&"]},
    "arithmetic": {"+": ["-"], "-": ["+"], "*": ["/"], "/": ["*"], "%": ["/"],
                   "<<": [">>"], ">>": ["<<"], "&": ["|"], "|": ["&"], "^": ["&"]},
    "compound": {"+=": ["-=", "="], "-=": ["+=", "="], "*=": ["/=", "="], "/=": ["*=", "="], "|=": ["&=", "="],
                 "&=": ["|=", "="], "^=": ["|="], "<<=": [">>="], ">>=": ["<<="]},
    "boolean": {"true": ["false"], "false": ["true"]},
}
# Calls that only give something back: leaks are for Valgrind. (fclose stays: it writes.)
NEEDLESS = re.compile(r"^(free|close|closedir|H5\w*close|va_(start|end|copy)|assert\w*|\w*_(free|destroy)|"
                      r"profile_\w+)$")
KEYWORDS = {"if", "for", "while", "switch", "return", "else", "do", "case", "goto", "break", "continue", "default",
            "sizeof"}
MINMAX = re.compile(r"(?:(?<=^)|(?<=_)|(?<=^f))(min|max|MIN|MAX)(?=$|_|[fl]$)")
OPPOSITE = {"min": "max", "max": "min", "MIN": "MAX", "MAX": "MIN"}


def swaps(tokens, table, spaced, source):
    for token in tokens:
        if token.active and token.kind in ("mark", "word") and token.text in table:
            # Unary - * & and casts stand close to what they are of.
            if spaced and not (source[token.begin - 1].isspace() and source[token.end:token.end + 1].isspace()):
                continue
            for text in table[token.text]:
                yield token.begin, token.end, text


def integers(tokens):
    for token in tokens:
        match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|[0-9]+)([uUlL]*)", token.text)
        if not (token.active and token.kind == "number" and match):
            continue
        digits, suffix = match.groups()
        octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
        value = int(digits, 8 if octal else 0)
        for other in dict.fromkeys((value + 1, value - 1, 0)):
            if other >= 0 and other != value:
                text = hex(other) if digits[:2] in ("0x", "0X") else "0%o" % other if octal else str(other)
                yield token.begin, token.end, text + suffix


def floats(tokens):
    for token in tokens:
        match = re.fullmatch(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)([fFlL]?)", token.text)
        if not (token.active and token.kind == "number" and match and re.search(r"[.eE]", token.text)):
            continue
        value = float(match.group(1))
        factor = 10 if value < 1e-3 else 2
        for other in (value * factor, value / factor) if value != 0 else (1.0,):
            yield token.begin, token.end, repr(other) + match.group(2)


def negations(tokens):
    for token in tokens:
        if token.active and token.text == "!":
            yield token.begin, token.end, ""


def minmax(tokens):
    for index, token in enumerate(tokens):
        called = index + 1 < len(tokens) and tokens[index + 1].text == "("
        if token.active and token.kind == "word" and (called or token.text in ("MPI_MIN", "MPI_MAX")):
            other = MINMAX.sub(lambda match: OPPOSITE[match.group(1)], token.text)
            if other != token.text:
                yield token.begin, token.end, other


def conditions(tokens):
    for index, token in enumerate(tokens):
        if token.active and token.text == "if" and tokens[index + 1].partner > 0:
            inside = tokens[index + 1].end, tokens[tokens[index + 1].partner].begin
            yield *inside, "true"
            yield *inside, "false"


def indices(tokens):
    for token in tokens:
        if token.active and token.text == "[" and token.partner > 0:
            end = tokens[token.partner].begin
            yield end, end, " + 1"
            yield end, end, " - 1"


def statements(tokens):
    """(first, last) of each simple statement in a function, its semicolon included."""
    begin = None
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else None
        if token.depth == 0 or before is None:
            continue
        label = before.text == ":" and begin is not None and (tokens[begin].text in ("case", "default")
                                                              or begin == index - 2)
        if before.text in (";", "{", "}", "else", "do") or label or closes_control(tokens, index - 1):
            begin = index
        if token.text in ("{", "}"):
            begin = None
        elif token.text == "(" and begin == index - 1 and tokens[begin].text in ("for", "if", "while", "switch"):
            begin = None
        elif token.text == ";" and begin is not None:
            yield begin, index
            begin = None


def closes_control(tokens, index):
    opening = tokens[index].partner
    return tokens[index].text == ")" and opening > 0 and tokens[opening - 1].text in ("if", "for", "while", "switch")


def in_header_of_for(tokens):
    """Where the loop's own three parts stand: removing a step there only makes it endless."""
    inside = set()
    for index, token in enumerate(tokens):
        if token.text == "for" and tokens[index + 1].partner > 0:
            inside.update(range(index + 1, tokens[index + 1].partner))
    return inside


def deletions(tokens, chosen):
    headers = in_header_of_for(tokens)
    for first, last in statements(tokens):
        part = tokens[first:last]
        if first not in headers and part and part[0].active and chosen(tokens, first, last):
            yield part[0].begin, tokens[last].end, "{}"


def is_call(tokens, first, last):
    start = first + 3 if [token.text for token in tokens[first:first + 3]] == ["(", "void", ")"] else first
    opening = next((i for i in range(start, last) if tokens[i].text == "("), -1)
    if opening <= start or tokens[opening].partner != last - 1 or tokens[start].text in KEYWORDS:
        return False
    plain = all(token.kind == "word" or token.text in (".", "->") for token in tokens[start:opening])
    joined = all(a.kind != "word" or b.kind != "word" for a, b in zip(tokens[start:opening], tokens[start + 1:opening]))
    return plain and joined and not NEEDLESS.match(tokens[opening - 1].text)


def is_assignment(tokens, first, last):
    index = first
    while index < last:
        token = tokens[index]
        if token.text in ("(", "[") and token.partner > index:
            index = token.partner
        elif re.fullmatch(r"(?:[-+*/%&|^]|<<|>>)?=", token.text):
            left = tokens[first:index]
            declares = any(a.kind == "word" and (b.kind == "word" or b.text == "*") for a, b in zip(left, left[1:]))
            return bool(left) and not declares
        index += 1
    return False


def is_step(tokens, first, last):
    return "++" in (tokens[first].text, tokens[last - 1].text) or "--" in (tokens[first].text, tokens[last - 1].text)


def is_jump(tokens, first, last):
    if tokens[first].text not in ("return", "break", "continue", "goto"):
        return False
    return not (tokens[last + 1].text == "}" and tokens[last + 1].depth == 0)  # a function's last


def inner_steps(tokens):
    """a[n++] = x without its ++."""
    headers = in_header_of_for(tokens)
    whole = {i for first, last in statements(tokens) if is_step(tokens, first, last) for i in (first, last - 1)}
    for index, token in enumerate(tokens):
        if token.active and token.text in ("++", "--") and index not in headers and index not in whole:
            yield token.begin, token.end, ""


def mutations(source):
    """(begin, end, replacement, mutator) of every fault that may be planted in this text, in the order of the text."""
    tokens = tokenize(source)
    found = [(*change, name) for name, table in SWAPS.items()
             for change in swaps(tokens, table, name != "boolean", source)]
    simple = {"integer": integers, "float": floats, "negation": negations, "minmax": minmax, "condition": conditions,
              "index": indices, "step": inner_steps}
    found += [(*change, name) for name, mutator in simple.items() for change in mutator(tokens)]
    removed = {"no call": is_call, "no assignment": is_assignment, "no step": is_step, "no jump": is_jump}
    found += [(*change, name) for name, chosen in removed.items() for change in deletions(tokens, chosen)]
    return sorted(found)
