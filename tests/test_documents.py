"""Files become passages: text, Markdown, HTML and PDF, and what cannot be read is told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from flowledger.chat.library import Passage, opened
from flowledger.chat.library.files import LONGEST_PASSAGE, files_in, passages_of, read_document
from flowledger.chat.retrieval import words_of
from flowledger.cli import main
from flowledger.errors import DocumentError
from flowledger.testing.llm import StubLLM

MARKDOWN = """Before any heading.

# Returns
Goods may be returned.

```
# no heading
```
## Late #
Too late.
"""
HTML = """<html><head><title>Shop &amp; more</title><style>p {color: red}</style></head>
<body><h1>Returns</h1><p>Goods may<br>be <b>returned</b>.</p><script>var x = "no";</script>
<ul><li>one</li><li>two &lt;3</li></ul></body>"""


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page."""
    import io

    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 150 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    data = io.BytesIO()
    writer.write(data)
    return data.getvalue()


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_markdown_is_cut_at_headings_and_not_inside_code(tmp_path: Path) -> None:
    document = read_document(written(tmp_path, "a.md", MARKDOWN))
    assert ["", "Returns", "Late"] == [passage.place for passage in document.passages]
    assert "# no heading" in document.passages[1].text
    assert str(tmp_path / "a.md") == document.source


def test_html_is_the_text_that_people_read(tmp_path: Path) -> None:
    [passage] = read_document(written(tmp_path, "a.HTML", HTML)).passages
    assert "Shop & more" == passage.place
    assert "Returns\n\nGoods may\n\nbe returned.\n\none\n\ntwo <3" == passage.text


def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    document = read_document(written(tmp_path, "a.pdf", pdf("First words", "More words")))
    assert [Passage("page 1", "First words"), Passage("page 2", "More words")] == (
        list(document.passages)
    )


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.pdf", b"%PDF-1.4 and then nothing", "no readable PDF"),
        ("a.pdf", pdf("First words")[:300], "no readable PDF"),
        ("a.pdf", b"", "no readable PDF"),
        ("a.pdf", pdf(""), "holds no text"),
        ("a.txt", b"  \n ", "holds no text"),
        ("a.html", b"<script>only</script>", "holds no text"),
        ("a.exe", b"MZ", "no reader for this kind"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    with pytest.raises(DocumentError, match=told):
        read_document(written(tmp_path, name, content))


def test_bytes_that_are_no_text_are_replaced_and_not_refused(tmp_path: Path) -> None:
    [passage] = read_document(written(tmp_path, "a.txt", b"caf\xe9 au lait")).passages
    assert "caf\ufffd au lait" == passage.text


def test_a_folder_gives_its_files_of_known_kinds_by_name(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("b.txt", "a.md", "c.bin", "inner/d.htm"):
        (tmp_path / name).write_text("x")
    assert ["a.md", "b.txt", "d.htm"] == [path.name for path in files_in(tmp_path)]


@given(st.text(alphabet="ab c.\n", max_size=5000))
def test_every_word_is_in_some_passage_and_none_is_too_long(text: str) -> None:
    passages = [passage.text for passage in passages_of("", text)]
    assert all(0 < len(one) <= LONGEST_PASSAGE for one in passages)
    together = " ".join(passages).split()
    assert set(text.split()) <= set(together) or max(map(len, text.split())) > LONGEST_PASSAGE / 4


def test_passages_end_with_a_sentence_and_overlap() -> None:
    sentence = "This is a sentence of some forty letters. "
    passages = list(passages_of("p", sentence * 60))
    assert all(one.text.endswith("letters.") for one in passages)
    assert passages[0].text[-50:] in passages[1].text


def test_common_words_are_not_looked_for_unless_there_are_no_others() -> None:
    assert ["warranty"] == words_of("What is the warranty of the WARRANTY?")
    assert ["to", "be", "or", "not"] == words_of("to be or not to be")
    assert 32 == len(words_of(" ".join(f"word{n}" for n in range(100))))


def test_docs_are_added_listed_searched_and_removed(home: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    folder = tmp_path / "handbook"
    folder.mkdir()
    written(folder, "returns.md", MARKDOWN)
    written(folder, "prices.pdf", pdf("A pump costs ten dollars"))
    written(folder, "broken.pdf", b"%PDF broken")
    first = run(main, ["docs", "add", str(folder)])
    assert (1, "added 2 documents in 4 passages; 0 had not changed\n") == (
        first.exit_code,
        first.stdout,
    )
    assert "broken.pdf is no readable PDF" in first.stderr
    (folder / "broken.pdf").unlink()
    written(folder, "returns.md", "# Returns\nNo more.")
    assert "added 1 documents in 1 passages; 1 had not changed\n" == (
        run(main, ["docs", "add", str(folder)]).stdout
    )
    found = json.loads(run(main, ["docs", "search", "how much is a pump", "--json"]).stdout)
    assert [("page 1", "A pump costs ten dollars")] == [(f["place"], f["text"]) for f in found]
    assert "prices.pdf" in run(main, ["docs", "search", "pump"]).stdout
    assert 2 == len(json.loads(run(main, ["docs", "list", "--json"]).stdout))
    assert 0 == run(main, ["docs", "remove", str(folder / "prices.pdf")]).exit_code
    assert "returns.md" in run(main, ["docs", "list"]).stdout
    for nothing in (["docs", "search", "pump"], ["docs", "remove", "none"]):
        with pytest.raises(SystemExit) as left:
            main(nothing, standalone_mode=False)
        assert 1 == left.value.code
    opened().close()


def test_docs_have_vectors_where_a_model_for_them_is_set(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flowledger

    flowledger.configure()
    path = written(tmp_path, "a.txt", "A pump costs ten dollars. " * 100)
    with StubLLM() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        monkeypatch.setenv("FLOWLEDGER_EMBEDDING_MODEL", "openai/text-embedding-3-small")
        monkeypatch.setenv("FLOWLEDGER_COLLECTOR", "off")
        assert 0 == CliRunner().invoke(main, ["docs", "add", str(path)]).exit_code
        listed = json.loads(CliRunner().invoke(main, ["docs", "list", "--json"]).stdout)
        found = json.loads(CliRunner().invoke(main, ["docs", "search", "pump", "--json"]).stdout)
    assert "openai/text-embedding-3-small" == listed[0]["embedding"]
    assert found[0]["similarity"] > 0
    opened().close()
    flowledger.configure()
