"""OpenAI's published formulas for tokens that do not show as text: images and tool definitions."""

import math
import re
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["MEDIA", "image_tokens", "pixel_size", "tool_tokens"]

# Parts of a message that are charged and hold no text.
MEDIA = frozenset(
    (
        *("image_url", "input_image", "image", "input_audio", "audio"),
        *("file", "input_file", "document", "video_url", "video"),
    )
)
_TILE = 512
_PATCH = 32
_MOST_PATCHES = 1536
# Source: developers.openai.com/api/docs/guides/images-vision, "Calculating costs". Tokens of an
# image and of each of its tiles; for later models, what a patch is multiplied by.
_DATE = r"(-20\d\d-\d\d-\d\d)?$"
_TILED = (
    (r"gpt-4o-mini" + _DATE, 2833, 5667),
    (r"(chatgpt-4o-latest|gpt-4o|gpt-4\.1|gpt-4\.5-preview|gpt-4-turbo)" + _DATE, 85, 170),
    (r"gpt-5(-chat-latest)?" + _DATE, 70, 140),
    (r"(o1|o1-pro|o3)" + _DATE, 75, 150),
)
_PATCHED = (
    (r"(gpt-4\.1|gpt-5)-mini" + _DATE, 1.62),
    (r"(gpt-4\.1|gpt-5)-nano" + _DATE, 2.46),
    (r"o4-mini" + _DATE, 1.72),
)
_DESCRIBED = re.compile(r"\[image/[\w.+-]+, (\d{1,6})x(\d{1,6}) pixels,")
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def pixel_size(data: bytes) -> tuple[int, int] | None:
    """The width and height of a PNG, GIF or JPEG by its header; None where it cannot be read.

    Sources: PNG (W3C), section 11.2.1; GIF89a, section 18; JPEG (ITU T.81), table B.2.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        if data.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", data, 6)
            return width, height
        return _jpeg_size(data) if data.startswith(b"\xff\xd8") else None
    except struct.error:
        return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at : at + 1] == b"\xff":
        marker, length = struct.unpack_from(">xBH", data, at)
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + length
    return None


def image_tokens(part: dict[str, Any], model: str | None) -> int | None:
    """The tokens of an image in a message, None where no formula or no size is known.

    Args:
        part: of the message, as it was recorded: the image by its type and size in pixels.
        model: the one that was asked.
    """
    image = part.get("image_url")
    about = image if isinstance(image, dict) else {"url": image, "detail": part.get("detail")}
    found = _DESCRIBED.search(str(about.get("url"))[:200])
    size = (int(found[1]), int(found[2])) if found else None
    name = (model or "").lower().rpartition("/")[2]
    for form, base, tile in _TILED:
        if re.match(form, name):
            if about.get("detail") == "low":
                return base
            return None if size is None else base + tile * _tiles(*size)
    for form, factor in _PATCHED:
        if re.match(form, name) and size is not None:
            return math.ceil(_patches(*size) * factor)
    return None


def _tiles(width: int, height: int) -> int:
    """Tiles of an image that is scaled into 2048x2048, then down to 768 on its shorter side."""
    scale = min(1.0, 2048 / max(width, height, 1))
    scale *= min(1.0, 768 / max(min(width, height) * scale, 1))
    return math.ceil(round(width * scale) / _TILE) * math.ceil(round(height * scale) / _TILE)


def _patches(width: int, height: int) -> int:
    """Patches of an image that is scaled down until there are no more than 1,536."""
    patches = math.ceil(width / _PATCH) * math.ceil(height / _PATCH)
    if patches <= _MOST_PATCHES:
        return patches
    scale = math.sqrt(_PATCH**2 * _MOST_PATCHES / (width * height))
    across, down = width * scale / _PATCH, height * scale / _PATCH
    scale *= min(math.floor(across) / across, math.floor(down) / down)
    whole = (round(side * scale / _PATCH, 6) for side in (width, height))
    return min(_MOST_PATCHES, math.prod(map(math.ceil, whole)))


def tool_tokens(tools: list[Any], start: int, count: Callable[[str], int]) -> int:
    """The tokens of tool definitions.

    Source: OpenAI's cookbook, "How to count tokens with tiktoken", section 7.

    Args:
        tools: definitions of functions, as a request has them.
        start: tokens that each function begins with.
        count: counts a text.

    Raises:
        ValueError, TypeError, AttributeError: a definition is not of the form that is known.
    """
    tokens = 0
    for tool in tools:
        function = tool.get("function") or tool
        properties = (function.get("parameters") or {}).get("properties") or {}
        tokens += start + count(f"{function['name']}:{_sentence(function)}")
        tokens += 3 if properties else 0
        for name, about in properties.items():
            enum = about.get("enum")
            tokens += 3 + count(f"{name}:{about.get('type', '')}:{_sentence(about)}")
            tokens += -3 + sum(3 + count(str(item)) for item in enum) if enum else 0
    return tokens + 12 if tools else 0


def _sentence(about: dict[str, Any]) -> str:
    return str(about.get("description") or "").removesuffix(".")
