"""C source as tokens: what the mutators look at. Comments and preprocessor lines (with those they go on in) are no
tokens; what stands in a struct, union or enum, an attribute, a sizeof or a static assertion is not worth a fault."""
import re
from dataclasses import dataclass

PATTERN = re.compile(r"""
    (?P<comment>/\*.*?\*/|//[^\n]*)
  | (?P<directive>^[ \t]*\#(?:[^\n\\]|\\.|\\\n)*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<number>\.?[0-9](?:[eEpP][+-]|[0-9a-zA-Z_.])*)
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<mark><<=|>>=|\.\.\.|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[^\s])
""", re.VERBOSE | re.DOTALL | re.MULTILINE)

OPENING = {"(": ")", "[": "]", "{": "}"}
PASSIVE_CALLS = {"sizeof", "__attribute__", "_Static_assert", "static_assert", "_Alignas", "_Alignof", "offsetof"}


@dataclass
class Token:
    kind: str
    text: str
    begin: int
    end: int
    partner: int = -1  # of a bracket: where the other one stands
    depth: int = 0  # open braces around it
    active: bool = True  # worth a fault


def tokenize(source):
    tokens = []
    for match in PATTERN.finditer(source):
        if match.lastgroup not in ("comment", "directive"):
            tokens.append(Token(match.lastgroup, match.group(), match.start(), match.end()))
    pair_brackets(tokens)
    leave_out(tokens)
    return tokens


def pair_brackets(tokens):
    stack = []
    braces = 0
    for index, token in enumerate(tokens):
        if token.text == "}" and token.kind == "mark":
            braces -= 1
        token.depth = braces
        if token.kind != "mark":
            continue
        if token.text in OPENING:
            stack.append(index)
            braces += token.text == "{"
        elif token.text in OPENING.values():
            # Alternatives of an #if may open twice what is closed once; nothing near such a place is touched.
            if stack and OPENING[tokens[stack[-1]].text] == token.text:
                token.partner = stack.pop()
                tokens[token.partner].partner = index


def leave_out(tokens):
    initialiser = False  # at file scope: after its "="
    for index, token in enumerate(tokens):
        if token.depth == 0:
            initialiser = token.text == "=" or (initialiser and token.text != ";")
            token.active = token.active and initialiser
        if token.text in PASSIVE_CALLS:
            passivate(tokens, index + 1)
        elif token.text in ("struct", "union", "enum"):
            brace = index + 1 + (index + 1 < len(tokens) and tokens[index + 1].kind == "word")
            if brace < len(tokens) and tokens[brace].text == "{":
                passivate(tokens, brace)
        elif token.text == "[" and is_declaration(tokens, index):
            passivate(tokens, index)


def passivate(tokens, opening):
    if opening < len(tokens) and tokens[opening].partner > opening:
        for token in tokens[opening:tokens[opening].partner + 1]:
            token.active = False


def is_declaration(tokens, bracket):
    """Whether the [ is of `type name[size]` (or of its second size), not of an element."""
    name = bracket - 1
    while name >= 0 and tokens[name].text == "]" and tokens[name].partner >= 0:
        name = tokens[name].partner - 1
    if name < 1 or tokens[name].kind != "word":
        return True  # a designator, [INDEX] = value, or a cast to an array
    before = tokens[name - 1]
    if before.kind == "word":
        return before.text not in ("return", "case", "else", "do")
    # `*name[2]`: a declaration where a word stands before the star; `a * name[2]` has a space after it.
    if before.text == "*" and before.end == tokens[name].begin:
        return name >= 2 and tokens[name - 2].kind == "word"
    return False
