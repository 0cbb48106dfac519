"""Read a SentencePiece BPE file (`tokenizer.model`) and make the fast tokenizer that splits text as it does.

    tokenizer = fast(read(Path("tokenizer.model")), names={92542: "<|im_end|>"})

The file is a protocol buffer, of which a tokenizer needs three messages; they are read here, so that neither protobuf
nor sentencepiece has to be installed. Field numbers: sentencepiece_model.proto of google/sentencepiece.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

from labkit.records import LabError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # SentencePiece.Type
BPE_MODEL = 2  # TrainerSpec.ModelType
LONGEST = 512  # characters of a piece; sentencepiece itself makes none above 16 unless told to
SPACE = "▁"


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its place in the file is its id."""

    text: str
    score: float  # BPE: minus the rank of the merge that makes it
    type: int


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece model: its vocabulary and what is done to a text before it is split."""

    pieces: tuple[Piece, ...]
    charsmap: bytes = b""  # compiled replacements of characters; empty: none
    dummy_prefix: bool = True  # a space is put before the text
    collapse_spaces: bool = True


def read(path: Path) -> Pieces:
    """The model in a file; raises `LabError` where it is damaged, or not BPE."""
    try:
        pieces, trainer, normalizer = [], {}, {}
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                pieces.append(_piece(dict(_fields(value))))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, IndexError, KeyError, struct.error, TypeError, AttributeError):
        raise LabError(f"{path}: not a SentencePiece model, or a damaged one: copy it again") from None
    if not pieces or trainer.get(3, 1) != BPE_MODEL:
        raise LabError(f"{path}: not a BPE SentencePiece model: only those are read here")
    if not normalizer.get(5, 1) or trainer.get(24, 0):
        raise LabError(f"{path}: it treats spaces in a way that is not known here (not as a leading {SPACE})")
    if longest := [piece.text for piece in pieces if piece.type == NORMAL and len(piece.text) > LONGEST]:
        raise LabError(f"{path}: a piece of {len(longest[0])} characters: not a tokenizer's file, or a damaged one")
    if len({piece.text for piece in pieces}) < len(pieces):
        raise LabError(f"{path}: two of its pieces are the same text")
    return Pieces(tuple(pieces), normalizer.get(2, b""), bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)))


def _piece(fields: dict[int, int | bytes]) -> Piece:
    score = struct.unpack("<f", fields[2])[0] if 2 in fields else 0.0
    return Piece(fields[1].decode("utf-8"), score, fields.get(3, NORMAL))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol buffer message: whole numbers as int, all else as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
        else:
            size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if at + size > len(message):
                raise ValueError("cut off")
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at a place, seven bits a byte, lowest first, and the place after it."""
    byte = message[at]
    if byte < 128:  # nearly every one: there are a million of them in a file
        return byte, at + 1
    value, shift = 0, 0
    while shift < 64:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")


def dump(model: Pieces) -> bytes:
    """The file that `read` reads, for a model made elsewhere."""
    rows = []
    for piece in model.pieces:
        score = b"\x15" + struct.pack("<f", piece.score)  # its key: field 2, kind 5
        rows.append(_message(1, _message(1, piece.text.encode()) + score + _count(3, piece.type)))
    trainer = _count(3, BPE_MODEL) + _count(35, any(piece.type == BYTE for piece in model.pieces))
    normalizer = _message(2, model.charsmap) if model.charsmap else b""
    normalizer += _count(3, model.dummy_prefix) + _count(4, model.collapse_spaces)
    return b"".join(rows) + _message(2, trainer) + _message(3, normalizer)


def _count(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _message(field: int, body: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(body)) + body


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def fast(model: Pieces, names: Mapping[int, str] | None = None) -> Tokenizer:
    """The tokenizer, without a post-processor. `names`: what to call pieces by id; they become special tokens."""
    names = dict(names or {})
    texts = [names.get(i, piece.text) for i, piece in enumerate(model.pieces)]
    vocabulary = {text: i for i, text in enumerate(texts)}
    unknown = next((texts[i] for i, piece in enumerate(model.pieces) if piece.type == UNKNOWN), None)
    byte_fallback = any(piece.type == BYTE for piece in model.pieces)
    tokenizer = Tokenizer(
        BPE(vocabulary, _merges(model), unk_token=unknown, fuse_unk=True, byte_fallback=byte_fallback)
    )
    tokenizer.normalizer = _normalizer(model)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if model.dummy_prefix else steps)
    special = [i for i, piece in enumerate(model.pieces) if i in names or piece.type in (UNKNOWN, CONTROL)]
    tokenizer.add_special_tokens([AddedToken(texts[i], normalized=False, special=True) for i in special])
    whole = [texts[i] for i, piece in enumerate(model.pieces) if piece.type == USER_DEFINED and i not in names]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in whole if not {" ", SPACE} & set(text)])
    return tokenizer


def _merges(model: Pieces) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, best piece first: how SentencePiece's BPE goes on."""
    ids = {piece.text: i for i, piece in enumerate(model.pieces) if piece.type == NORMAL}
    found = []
    for text, i in ids.items():
        for cut in range(1, len(text)):
            left, right = ids.get(text[:cut]), ids.get(text[cut:])
            if left is not None and right is not None:
                found.append((-model.pieces[i].score, left, right))
    return [(model.pieces[left].text, model.pieces[right].text) for _, left, right in sorted(found)]


def _normalizer(model: Pieces) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.collapse_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
