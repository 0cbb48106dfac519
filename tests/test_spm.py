"""A SentencePiece file is read without sentencepiece, and splits text exactly as sentencepiece does."""

import io

import pytest

from labkit import pocket, spm
from labkit.records import LabError

sentencepiece = pytest.importorskip("sentencepiece")
ASKED = [problem.question for name in pocket.BENCHMARKS for problem in pocket.problems(name, "train", 120)]
ODD = [
    "",
    " ",
    "  two  spaces ",
    "naïve ﬁne Ａ 漢字 🐉\n\ttab",
    "\n",
    "a\n\n b",
    "1234567",
    "\u200b\xa0x",
    "[MARK] [MARK]",
]
PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def train(path, **settings):
    out = io.BytesIO()
    options = {"vocab_size": 800, "model_type": "bpe", "byte_fallback": True, "minloglevel": 2, **settings}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(ASKED), model_writer=out, **options)
    path.write_bytes(out.getvalue())
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.mark.parametrize("settings", [{}, PLAIN, {**PLAIN, "add_dummy_prefix": False}], ids=["nfkc", "llama", "bare"])
def test_every_text_is_split_and_put_together_as_sentencepiece_does(tmp_path, settings):
    theirs = train(tmp_path / "m.model", user_defined_symbols=["[MARK]"], **settings)
    model = spm.read(tmp_path / "m.model")
    assert [piece.text for piece in model.pieces] == [theirs.id_to_piece(i) for i in range(len(theirs))]
    ours = spm.fast(model)
    for text in [*ASKED, *(odd for odd in ODD if "[MARK]" not in odd or not model.dummy_prefix)]:
        ids = theirs.encode(text)
        assert ours.encode(text, add_special_tokens=False).ids == ids, text
        assert ours.decode(ids) == theirs.decode(ids), text


def test_a_piece_can_be_given_another_name_and_is_then_one_token(tmp_path):
    theirs = train(tmp_path / "m.model", user_defined_symbols=["[UNUSED_TOKEN_145]"], **PLAIN)
    number = theirs.piece_to_id("[UNUSED_TOKEN_145]")
    ours = spm.fast(spm.read(tmp_path / "m.model"), {number: "<|im_end|>"})
    assert ours.encode("x<|im_end|>", add_special_tokens=False).ids[-1] == number
    assert number not in ours.encode("[UNUSED_TOKEN_145]", add_special_tokens=False).ids


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.999])
def test_half_a_file_is_refused(tmp_path, cut):
    train(tmp_path / "m.model")
    whole = (tmp_path / "m.model").read_bytes()
    (tmp_path / "half.model").write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(LabError, match=r"half\.model"):
        spm.read(tmp_path / "half.model")


def test_other_files_and_other_kinds_are_refused(tmp_path):
    train(tmp_path / "unigram.model", model_type="unigram", vocab_size=500)
    (tmp_path / "text.model").write_text("this is not a protocol buffer, whatever it is called")
    for name in ("unigram.model", "text.model", "gone.model"):
        with pytest.raises(LabError, match=name):
            spm.read(tmp_path / name)


def test_a_file_written_here_is_read_by_sentencepiece_as_the_one_it_came_from(tmp_path):
    theirs = train(tmp_path / "m.model", **PLAIN)
    model = spm.read(tmp_path / "m.model")
    (tmp_path / "copy.model").write_bytes(spm.dump(model))
    again = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "copy.model"))
    assert spm.read(tmp_path / "copy.model") == model
    assert all(again.encode(text) == theirs.encode(text) for text in ASKED)
