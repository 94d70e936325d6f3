"""A report as PDF: A4, charts and tables, without a browser and without a system's library."""

import importlib.util
import logging
import re
import struct
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path

import vl_convert
from fpdf import FPDF
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace

from flowledger.charts import LIGHT, Chart
from flowledger.cli.reporting.document import Document, Section, Table, Tile

__all__ = ["as_pdf"]

MARGIN, WIDTH, CHART_WIDTH = 15.0, 180.0, 165.0
HEADING, ROW = 12.0, 6.0
MOST_KEPT, ROWS_WITH_HEADING = 12, 4  # rows of a table that are not torn apart
SHARP = 3.0  # times the pixels of a screen
TEXT, MUTED, LINE, CARD = (18, 22, 31), (91, 100, 114), (214, 219, 227), (246, 247, 249)
NARROWEST, WIDEST = 8, 38  # characters of a column
MOST_CHARACTERS = 105  # of a line before letters are made smaller
_unseen = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
# It tells of every letter that a font lacks.
logging.getLogger("fpdf").setLevel(logging.ERROR)
logging.getLogger("fontTools").setLevel(logging.ERROR)


def as_pdf(document: Document) -> bytes:
    """The file."""
    paper = _Paper(document)
    paper.add_page()
    paper.opening()
    for section in document.sections:
        paper.section(section)
    paper.closing()
    return bytes(paper.output())


class _Paper(FPDF):
    """The pages of one report."""

    def __init__(self, document: Document) -> None:
        super().__init__(format="A4")
        self._document = document
        self.set_margin(MARGIN)
        self.set_auto_page_break(True, MARGIN + 3)
        self._known = self._add_fonts()
        self.set_title(f"{document.title}, {document.about}")
        self.set_creator("flowledger")
        self.set_lang("en")
        self.set_creation_date(datetime.fromisoformat(document.generated))

    def _add_fonts(self) -> frozenset[int] | None:
        """DejaVu where matplotlib is, which brings it; what its letters are, None for Latin-1."""
        found = importlib.util.find_spec("matplotlib")
        places = [] if found is None else found.submodule_search_locations or []
        for place in places:
            folder = Path(place, "mpl-data", "fonts", "ttf")
            if (folder / "DejaVuSans.ttf").is_file() and (folder / "DejaVuSans-Bold.ttf").is_file():
                self.add_font("body", "", folder / "DejaVuSans.ttf")
                self.add_font("body", "B", folder / "DejaVuSans-Bold.ttf")
                return frozenset(getattr(self.fonts["body"], "cmap", ()))
        return None

    def _face(self, size: float, bold: bool = False, colour: tuple[int, int, int] = TEXT) -> None:
        self.set_font("helvetica" if self._known is None else "body", "B" if bold else "", size)
        self.set_text_color(*colour)

    def _text(self, text: str) -> str:
        """The text with what the font has no letter for as `?`."""
        seen = _unseen.sub(" ", text)
        if self._known is None:
            return seen.encode("latin-1", "replace").decode("latin-1")
        return "".join(letter if ord(letter) in self._known else "?" for letter in seen)

    def footer(self) -> None:
        """The page's number, and what this is."""
        self.set_y(-MARGIN)
        self._face(7.5, colour=MUTED)
        self.cell(WIDTH / 2, 5, self._text(f"{self._document.title}: {self._document.about}")[:90])
        self.cell(WIDTH / 2, 5, f"{self.page_no()} of {{nb}}", align="R")

    def opening(self) -> None:
        """The title and the numbers that matter."""
        self._face(20, bold=True)
        self._paragraph(self._document.title, 10)
        self._face(9.5, colour=MUTED)
        self._paragraph(self._document.about, 5)
        self._paragraph(f"Written {self._document.generated} by flowledger", 5)
        self.ln(4)
        self._tiles(self._document.tiles)

    def section(self, section: Section) -> None:
        """A heading with its chart and its table, the chart never away from the heading."""
        chart = section.chart if section.chart is not None and not section.chart.is_empty else None
        picture = None if chart is None else _picture(chart)
        tall = HEADING + _height(section.table)
        if picture is not None:
            tall += picture[1]
        if self.will_page_break(tall):
            self.add_page()
        self.ln(3)
        self._face(12, bold=True)
        self._paragraph(section.title, 8)
        if chart is not None and picture is not None:
            self._face(8.5, colour=MUTED)
            self._paragraph(f"{chart.title}: {chart.summary}", 5)
            told = f"{chart.title}: {chart.summary}"
            self.image(BytesIO(picture[0]), w=CHART_WIDTH, h=picture[1], alt_text=told)
            self.ln(3)
        if section.table is not None:
            self._table(section.table)

    def closing(self) -> None:
        """What the numbers mean."""
        self.ln(5)
        self._face(8, colour=MUTED)
        for note in self._document.notes:
            self._paragraph(note, 4.5)

    def _paragraph(self, text: str, height: float) -> None:
        self.multi_cell(WIDTH, height, self._text(text), align="L", new_x="LMARGIN", new_y="NEXT")

    def _tiles(self, tiles: Sequence[Tile]) -> None:
        gap, top = 3.0, self.get_y()
        width = (WIDTH - gap * (len(tiles) - 1)) / len(tiles)
        self.set_draw_color(*LINE)
        self.set_fill_color(*CARD)
        for place, tile in enumerate(tiles):
            left = MARGIN + place * (width + gap)
            self.rect(left, top, width, 21, style="DF", round_corners=True, corner_radius=1.5)
            lines = ((tile.name, 8, False, MUTED), (tile.value, 13, True, TEXT))
            for line, (text, size, bold, colour) in enumerate(
                [*lines, (tile.note, 7, False, MUTED)]
            ):
                self.set_xy(left + 1, top + 2 + line * 6)
                self._face(size, bold, colour)
                self.cell(width - 2, 5.5, self._text(text))
        self.set_xy(MARGIN, top + 23)

    def _table(self, table: Table) -> None:
        longest = [max(map(len, cells)) for cells in zip(table.head, *table.rows, strict=True)]
        widths = [min(WIDEST, max(NARROWEST, length + 3)) for length in longest]
        align = ["LEFT" if place < table.numeric else "RIGHT" for place in range(len(widths))]
        self._face(8 if sum(widths) <= MOST_CHARACTERS else 7)
        self.set_draw_color(*LINE)
        with self.table(
            col_widths=widths,
            text_align=align,
            borders_layout=TableBordersLayout.HORIZONTAL_LINES,
            headings_style=FontFace(emphasis="BOLD", color=MUTED),
            line_height=ROW - 1,
            padding=(0.5, 1),
            width=WIDTH,
        ) as rows:
            for cells in (table.head, *table.rows):
                rows.row([self._text(cell) for cell in cells])


def _height(table: Table | None) -> float:
    """How much room a table wants below what is before it, at least its beginning."""
    rows = 0 if table is None else len(table.rows) + 1
    return ROW * (rows if rows <= MOST_KEPT else ROWS_WITH_HEADING)


def _picture(chart: Chart) -> tuple[bytes, float]:
    """The chart as PNG, and how tall it stands on paper, in millimetres."""
    png = vl_convert.vegalite_to_png(chart.spec(LIGHT, titled=False), scale=SHARP)
    width, height = struct.unpack(">II", png[16:24])
    return png, CHART_WIDTH * height / width
