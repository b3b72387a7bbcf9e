"""ASCII forms of the characters that initbench prints, for terminals and pipes without Unicode.

Every command loads this file, so it imports nothing from the package.
"""

from __future__ import annotations

import unicodedata

ASCII_FORMS = {
    "→": "->",
    "←": "<-",
    "↓": "v",
    "×": "x",
    "±": "+/-",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "·": "*",
    "÷": "/",
    "≈": "~=",
    "≠": "!=",
    "≤": "<=",
    "≥": ">=",
    "√": "sqrt ",
    "∞": "inf",
    "∂": "d",
    "∇": "grad ",
    "∗": "*",
    "∘": " o ",
    "‖": "||",
    "∥": "||",
    "⌈": "ceil(",
    "⌉": ")",
    "′": "'",
    "″": "''",
    "½": "1/2",
    "¹": "^1",
    "²": "^2",
    "³": "^3",
    "⁴": "^4",
    "⁶": "^6",
    "⁺": "^+",
    "₁": "_1",
    "₂": "_2",
    "ˣ": "^x",
    "ᵗ": "^t",
    "ᵀ": "^T",
    "\u0302": "^",
    "\u0304": "_",
    "\ufffd": "#",
    "■": "#",
    "□": "o",
    **dict.fromkeys("▲◆●", "*"),
    **dict.fromkeys("△◇○", "o"),
    "µ": "u",
    "↦": "->",
    "⌊": "floor(",
    "⌋": ")",
    **dict.fromkeys("─━", "-"),
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┰┴┸┼╂", "+"),
    "❌": "[failed]",
    "✅": "[passed]",
    "⚠": "[undecided]",
    "\ufe0f": "",
    **dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True)),
}
"""Replacements for characters that the output encoding lacks. Greek letters are spelled out by name."""
UNKNOWN = "?"


def ascii_text(words: str) -> str:
    """Return the text in ASCII; a character without an ASCII form becomes a question mark."""
    return words if words.isascii() else "".join(map(ascii_form, words))


def ascii_form(character: str) -> str:
    """Return the ASCII form of a character: from the table, its Greek name, or without its accent."""
    if character.isascii():
        return character
    if character in ASCII_FORMS:
        return ASCII_FORMS[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK ") and " LETTER " in name:
        letter = name.partition(" LETTER ")[2].partition(" ")[0].lower().replace("lamda", "lambda")
        return letter if "SMALL" in name else letter.capitalize()
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return plain or UNKNOWN


def replace_unencodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace unencodable characters by their ASCII forms; an error handler for `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return ascii_text(error.object[error.start : error.end]), error.end
