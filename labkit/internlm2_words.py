"""The words of an InternLM2 folder: its SentencePiece file as a tokenizer, its chat marks, template and end tokens.

The file calls the chat marks `[UNUSED_TOKEN_141]` to `[UNUSED_TOKEN_146]` (ids 92538 to 92543); left so, a converted
model writes `[UNUSED_TOKEN_145]` where a turn ends and goes on talking.
"""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerFast

from labkit import spm
from labkit.records import LabError

MARKS = {  # as the file calls them -> as the chat template does; 92538 to 92543 in the checkpoints
    "[UNUSED_TOKEN_141]": "<|plugin|>",
    "[UNUSED_TOKEN_142]": "<|interpreter|>",
    "[UNUSED_TOKEN_143]": "<|action_end|>",
    "[UNUSED_TOKEN_144]": "<|action_start|>",
    "[UNUSED_TOKEN_145]": "<|im_end|>",
    "[UNUSED_TOKEN_146]": "<|im_start|>",
}
TURN_END = "<|im_end|>"
CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def has_words(folder: Path) -> bool:
    """Whether the folder carries its SentencePiece file."""
    return (folder / "tokenizer.model").is_file()


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the folder's SentencePiece file, with the chat marks under their names and the chat template.

    Where there is a chat template the end token is `<|im_end|>`: the one that ends a turn, and so a response.
    """
    model = folder / "tokenizer.model"
    if not has_words(folder):
        raise LabError(f"model {folder}: no tokenizer.model in it: copy it from where the weights came from")
    stamp = model.stat()
    core = _core(model, (stamp.st_mtime_ns, stamp.st_size), tuple(sorted(_added(folder).items())))
    words = copy.deepcopy(core)
    if missing := [piece for piece in ("<s>", "</s>", "<unk>") if words.token_to_id(piece) is None]:
        raise LabError(f"{model}: there is no piece {missing[0]} in it: this is not InternLM2's file")
    bos = [("<s>", words.token_to_id("<s>"))]
    words.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=bos)
    template = _template(folder)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token=TURN_END if template and words.token_to_id(TURN_END) is not None else "</s>",
        pad_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=template,
    )


def _added(folder: Path) -> dict[int, str]:
    """What tokenizer_config.json calls which piece."""
    added = _json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    return {int(i): token["content"] for i, token in added.items()}


@lru_cache(maxsize=2)  # a run asks for its tokenizer several times, and 92,544 pieces take seconds each time
def _core(model: Path, stamp: tuple[int, int], added: tuple[tuple[int, str], ...]) -> Tokenizer:
    pieces = spm.read(model)
    names = {i: MARKS[piece.text] for i, piece in enumerate(pieces.pieces) if piece.text in MARKS} | dict(added)
    if beyond := [i for i in names if i >= len(pieces.pieces)]:
        raise LabError(f"{model}: tokenizer_config.json names piece {beyond[0]}, but it has {len(pieces.pieces)}")
    return spm.fast(pieces, names)


def _template(folder: Path) -> str | None:
    """The folder's chat template; InternLM's own where the folder says nothing of its tokenizer."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    if not (folder / "tokenizer_config.json").is_file():
        return CHAT
    return _json(folder / "tokenizer_config.json").get("chat_template")


def generation(folder: Path, config: PreTrainedConfig) -> GenerationConfig:
    """How the model ends: as the folder says, and by `<|im_end|>` where there is a chat template. Sampling is left to
    the caller."""
    stated = _json(folder / "generation_config.json").get("eos_token_id")
    ends = set(stated if isinstance(stated, list) else [stated]) | {config.eos_token_id}
    if has_words(folder):
        ends.add(tokenizer(folder).eos_token_id)
    ends = sorted(end for end in ends if end is not None)
    return GenerationConfig(bos_token_id=config.bos_token_id, eos_token_id=ends, pad_token_id=config.pad_token_id)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise LabError(f"{path}: not JSON: copy it again") from None
