"""What the stub says: text of an exact length in tokens, vectors and pictures, all from a seed."""

import base64
import hashlib
import io
import math
import random
import re
import struct
import wave
import zlib
from array import array
from functools import cache
from typing import Any

import msgspec
from splintr import Tokenizer

_SENTENCES = (
    "The short answer is yes, as long as the team agrees on the first step.",
    "We looked at the last three months and the numbers are stable.",
    "This depends on how much time you have and what you need first.",
    "A good place to start is the list of open questions from last week.",
    "The main risk is that two people change the same page at once.",
    "Most users read the first line and leave, so put the result there.",
    "In practice the second option costs less and is easier to explain.",
    "There is no clear sign of a problem, but it is worth another look.",
    "The report shows a small rise in costs and a large rise in use.",
    "Please check the date and the name before you send the form.",
    "One way to do this is to keep a copy and compare it every night.",
    "The meeting moved to Monday because the room was not free.",
    "Our own test took less than a second and gave the same result.",
    "It helps to write down why a choice was made, not only what was chosen.",
    "The new version is faster, yet it needs more memory than before.",
    "You can ask for a refund within thirty days of the order.",
    "The document names four goals, and three of them are done.",
    "That is a fair point, and the data supports it.",
    "Nothing in the log suggests that the service was down.",
    "The next step is to call the customer and agree on a day.",
)


@cache
def _tokenizer() -> Any:
    return Tokenizer.from_pretrained("o200k_base")


def count(text: str) -> int:
    """How many o200k_base tokens the text is."""
    return len(_tokenizer().encode_ordinary(text))


def pieces(text: str) -> list[str]:
    """The text in parts of about one token each, none of them in the middle of a character."""
    decoder = _tokenizer().streaming_decoder()
    parts = [decoder.add_token(token) for token in _tokenizer().encode_ordinary(text)]
    return [part for part in (*parts, decoder.flush()) if part]


def cut(text: str, tokens: int) -> str:
    """The text's first `tokens` tokens."""
    return str(_tokenizer().decode_lossy(_tokenizer().encode_ordinary(text)[:tokens]))


@cache
def _bank() -> list[list[str]]:
    return [pieces(" " + sentence) for sentence in _SENTENCES]


def prose(seed: int, tokens: int | None = None) -> str:
    """English sentences of exactly `tokens` tokens, or one to three whole ones."""
    rng = random.Random(seed)
    parts: list[str] = []
    if tokens is None:
        parts = sum(rng.sample(_bank(), rng.randint(1, 3)), start=parts)
    while tokens is not None and len(parts) < tokens:
        parts = sum(rng.sample(_bank(), len(_bank())), start=parts)
    return "".join(parts[:tokens]).lstrip()


def words(rng: random.Random) -> str:
    """Two to five words from the middle of a sentence."""
    sentence = re.findall(r"\w+", rng.choice(_SENTENCES).lower())
    start = rng.randrange(len(sentence) - 5)
    return " ".join(sentence[start : start + rng.randint(2, 5)])


def seed_of(*parts: object) -> int:
    """One number for the same JSON values, whatever the order of their keys."""
    encoded = msgspec.json.encode(parts, order="deterministic")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")


def vector(features: list[str], dimensions: int) -> "array[float]":
    """A unit vector of 32-bit floats; inputs that share words have a high cosine."""
    values = [0.0] * dimensions
    for feature in features:
        for salt in range(4):
            code = zlib.crc32(f"{salt}{feature}".encode())
            values[(code >> 1) % dimensions] += 1.0 if code & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in values)) or 1.0
    return array("f", [value / norm for value in values])


def png(seed: int, side: int = 16) -> str:
    """A small square picture in one colour, as base64 of a PNG file."""
    row = b"\0" + (seed & 0xFFFFFF).to_bytes(3, "big") * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(row * side)), (b"IEND", b""))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks))).decode()


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, data = chunk
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def seconds_of(audio: bytes) -> float:
    """How long the audio is: a WAV file's own length, else as if it had 128 kbit/s."""
    try:
        with wave.open(io.BytesIO(audio)) as file:
            return float(file.getnframes() / (file.getframerate() or 1))
    except (wave.Error, EOFError):
        return len(audio) / 16_000
